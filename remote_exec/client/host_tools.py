"""What a host needs to build environments: uv, in the build for its platform, brought there once.

Hosts that cannot see this machine's files; for this machine, `target.find_uv` does. What is sent is `backends.uv`'s.
What a host has is remembered for each session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..backends.uv import INSTALL, digest_of, own_version, uv_for
from ..model.environment import EnvironmentKind, EnvironmentSpec
from ..model.errors import RuntimeEnvironmentError
from ..model.platform import Platform
from ..wire.messages import from_plain

if TYPE_CHECKING:
    from .phases import Span
    from .session import Session

BUILT_BY_UV = (EnvironmentKind.UV, EnvironmentKind.PROJECT)

_platforms: WeakKeyDictionary[Session, Platform] = WeakKeyDictionary()
_brought: WeakKeyDictionary[Session, str] = WeakKeyDictionary()  # where uv lies on the host


def platform_of(session: Session) -> Platform:
    """Return the platform of a host, asked once for each session.

    Raises:
        HostUnavailable: its agent is gone.
    """
    known = _platforms.get(session)
    if known is None:
        known = _platforms[session] = _platform_in(session.ask("platform"))
    return known


def ensure_uv(session: Session, environment: EnvironmentSpec, span: Span) -> str:
    """See to it that a host can build an environment; return where its uv lies, or nothing where it needs none.

    The host's own uv is taken if it has one, or one that an earlier client has brought; else this client sends one;
    if it cannot, the host's pip is asked.

    Args:
        session: with the host's agent.
        environment: what will be asked for.
        span: a phase that is entered; told how far the transfer is.

    Raises:
        HostUnavailable: its agent is gone.
        RuntimeEnvironmentError: no uv is to be had.
    """
    some_python = environment.kind is EnvironmentKind.INTERPRETER and not environment.name
    if environment.kind not in BUILT_BY_UV and not some_python:
        return ""
    if some_python and session.welcome.python == environment.python:
        return ""  # without asking: a bare host's first call is quick
    if known := _brought.get(session):
        return known
    told = session.ask("tools", {"python": environment.python})
    platform = _platforms[session] = _platform_in(told)
    if some_python and told["python"]:
        return ""
    path = _brought[session] = str(told["uv"]) or _bring(session, platform, span)
    return path


def _bring(session: Session, platform: Platform, span: Span) -> str:
    """Send uv to the host, or have its pip install it; return where it lies."""
    reasons: list[str] = []
    try:
        path = uv_for(platform)
        digest = digest_of(path)
        span.expect(path.stat().st_size)
        session.upload_blob(digest, path, span)
        arguments = {"name": "uv", "version": own_version(), "digest": digest}
    except RuntimeEnvironmentError as error:
        reasons.append(error.message)
        arguments = {"name": "uv", "version": own_version(), "digest": ""}
    told = session.ask("install_tool", arguments)
    if not told["path"] and arguments["digest"]:
        reasons.append(str(told.get("reason")))
        told = session.ask("install_tool", {**arguments, "digest": ""})
    if not told["path"]:
        reasons.append(str(told.get("reason")))
        raise RuntimeEnvironmentError(
            f"the host has no uv, which builds environments: {'; '.join(reasons)}", hint=INSTALL
        )
    return str(told["path"])


def _platform_in(told: dict[str, Any]) -> Platform:
    if not told["platform"]:
        raise RuntimeEnvironmentError(f"the host could not be looked at: {told.get('reason')}")
    return from_plain(Platform, told["platform"])
