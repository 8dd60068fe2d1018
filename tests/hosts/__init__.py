"""Hosts for tests: real SSH servers, links that can be slowed and cut, network namespaces."""
