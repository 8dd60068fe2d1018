"""Decorate a local Python function; it runs somewhere bigger, and comes back as if it had run here."""

__version__ = "0.1.0"
