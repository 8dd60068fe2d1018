"""What both ends of a notebook's session share: which names code touches, and two namespaces kept the same."""
