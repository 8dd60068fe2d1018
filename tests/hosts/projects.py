"""Projects whose configuration names hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_exec import remote

from .fixtures import NewHost, NewLink
from .letting_go import let_go

PATIENCE = 20.0  # of calls that the link is to come back for: longer than any test breaks it


class Project:
    """A folder whose configuration names hosts; the current one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []

    def add(self, name: str, **settings: Any) -> Callable[..., Any]:
        """Configure an instance type; return `remote` for it."""
        with open(self.folder / "pyproject.toml", "a") as file:
            file.write(f'[tool.remote_exec.instances.{name}]\nbackend = "ssh"\n')
            file.writelines(f"{key} = {value!r}\n" for key, value in settings.items())
        self.names.append(name)
        return remote(instance_type=name, connection_timeout=PATIENCE)

    def close(self) -> None:
        """Let go of the hosts."""
        for name in self.names:
            let_go(name)


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_host: NewHost, new_link: NewLink
) -> Iterator[Project]:
    """One that has let go of its hosts before they end."""
    monkeypatch.chdir(tmp_path)
    made = Project(tmp_path)
    yield made
    made.close()
