"""What an environment is made of. Its digest is its identity: two equal specs share one folder on a host."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from enum import Enum

from .digests import digest_of
from .record import record

_CREDENTIALS = re.compile(r"(?<=://)[^\s/'\"`]+@")


class EnvironmentKind(str, Enum):
    """How an environment comes about."""

    INTERPRETER = "interpreter"  # an interpreter that is there already, used as it is
    UV = "uv"  # built by uv from requirements
    PROJECT = "project"  # built by uv from a pyproject.toml and its uv.lock
    CONDA = "conda"  # built by conda or micromamba from an environment.yml
    CONDA_NAMED = "conda_named"  # a conda environment of the host, by name or prefix


@record(kw_only=True, repr=False)
class EnvironmentSpec:
    """An environment, as the client asks for it.

    Attributes:
        kind: how it comes about.
        python: the version wanted, as "3.11".
        requirements: requirement lines (PEP 508, or options such as ``--index-url``), in the user's order.
        constraints: lines that bound versions without asking for anything (pip's ``-c``).
        files: name -> text of the files that the builder needs (pyproject.toml, uv.lock, environment.yml).
        wheels: file name -> blob digest of wheels that travel with the call.
        name: for `CONDA_NAMED` the environment's name or prefix, for `INTERPRETER` the executable's path; empty
            for any Python of that version that the host has.
        installed: for these two, a short text that changes with what is installed there, as far as the client
            can see: workers that hold the old code are not used again.
    """

    kind: EnvironmentKind
    python: str
    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    wheels: tuple[tuple[str, str], ...] = ()
    name: str = ""
    installed: str = ""

    @property
    def digest(self) -> str:
        """``sha256:…`` over the canonical JSON of this spec, credentials masked.

        A token that is renewed every hour is not another environment, and its digest tells nothing of it.
        """
        text = mask_credentials(json.dumps(asdict(self), sort_keys=True, separators=(",", ":")))
        return f"sha256:{digest_of(text)}"

    @property
    def summary(self) -> str:
        """One line for people, without credentials: ``uv 3.11: six, numpy==2.1, … (9 more)``."""
        parts = [*self.requirements, *(name for name, _ in self.wheels)]
        if self.kind in (EnvironmentKind.PROJECT, EnvironmentKind.CONDA):
            parts = [name for name, _ in self.files]
        elif self.name:
            parts = [self.name]
        shown = [mask_credentials(part) for part in parts[:5]]
        if len(parts) > len(shown):
            shown.append(f"… ({len(parts) - len(shown)} more)")
        return f"{self.kind.value} {self.python}" + (f": {', '.join(shown)}" if shown else "")

    def __repr__(self) -> str:
        return f"EnvironmentSpec({self.summary})"


def mask_credentials(text: str) -> str:
    """Return the text with what stands before the ``@`` of its URLs replaced by ``***``.

    >>> mask_credentials("--index-url https://me:secret@host/simple")
    '--index-url https://***@host/simple'
    """
    return _CREDENTIALS.sub("***@", text)
