"""Containers of Docker's engine, or of any that speaks its API: a container is a host that is made when needed.

The ``docker`` package is imported by `engine` alone, and only when an instance type asks for a container.
"""
