"""What an environment is made of. Its digest is its identity: two equal specs share one folder on a host."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import Enum


class EnvironmentKind(str, Enum):
    """How an environment comes about."""

    INTERPRETER = "interpreter"  # an interpreter that is there already, used as it is
    UV = "uv"  # built by uv from requirements
    PROJECT = "project"  # built by uv from a pyproject.toml and its uv.lock
    CONDA = "conda"  # built by conda or micromamba from an environment.yml
    CONDA_NAMED = "conda_named"  # a conda environment of the host, by name or prefix


@dataclass(frozen=True, kw_only=True)
class EnvironmentSpec:
    """An environment, as the client asks for it.

    Attributes:
        kind: how it comes about.
        python: for `INTERPRETER` the path of the executable; else the version wanted, as "3.11".
        requirements: requirement lines (PEP 508, or options such as ``--index-url``), in the user's order.
        files: name -> text of the files that the builder needs (pyproject.toml, uv.lock, environment.yml).
        wheels: file name -> blob digest of wheels that travel with the call.
        name: for `CONDA_NAMED`, the environment's name or prefix.
    """

    kind: EnvironmentKind
    python: str
    requirements: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    wheels: tuple[tuple[str, str], ...] = ()
    name: str = ""

    @property
    def digest(self) -> str:
        """``sha256:…`` over the canonical JSON of this spec."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
