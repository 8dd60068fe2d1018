"""The fixtures that give hosts, and a container engine."""

from .docker_engine import docker_engine
from .fixtures import gpu1, network, new_host, new_link, ssh, ssh_client, ssh_server
from .projects import project

__all__ = [
    "docker_engine", "gpu1", "network", "new_host", "new_link", "project", "ssh", "ssh_client", "ssh_server",
]  # fmt: skip
