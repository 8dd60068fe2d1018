"""The fixtures that give hosts, and a container engine."""

from .containers import calls, engine, short_folder
from .docker_engine import docker_engine
from .fixtures import gpu1, network, new_host, new_link, ssh, ssh_client, ssh_server
from .projects import project

__all__ = [
    "calls", "docker_engine", "engine", "gpu1", "network", "new_host", "new_link", "project", "short_folder", "ssh",
    "ssh_client", "ssh_server",
]  # fmt: skip
