"""A Python for a host that has none for the agent: one that uv manages, in the state directory there.

By the host's own uv where it has one, else by one that is sent, as `tools` keeps them for building environments. Shell
commands do it all, since there is no Python yet.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..model.environment import mask_credentials
from ..model.errors import HostUnavailable, RuntimeEnvironmentError
from ..model.layout import Layout
from ..model.platform import Platform
from .progress import tell
from .uv import digest_of, own_version, uv_for

if TYPE_CHECKING:
    from .ssh_session import NoPython, Session

SILENCE_SECONDS = 600.0  # of uv while it downloads
LAST_LINES = 5
PIECE = 1 << 20
MARK = "remote-exec-python"
HINT = (
    "let the host reach the network, or set python-install-mirror in ~/.config/uv/uv.toml there, or install a"
    " Python, which needs no root: curl -LsSf https://astral.sh/uv/install.sh | sh; ~/.local/bin/uv python install"
)

_THERE = Layout(Path("$home"), Path())
_VARIABLES = " ".join(f'{name}="${{{name}:-{value}}}"' for name, value in _THERE.uv_variables.items())
# No single quote, backslash or exclamation mark may stand in it: it passes through whatever login shell there is.
_SCRIPT = (
    'umask 077; tools={tools}; uv=; for u in uv "$HOME"/.local/bin/uv "$HOME"/.cargo/bin/uv "$tools"/uv-*/uv; do '
    'if "$u" --version >/dev/null 2>&1 </dev/null; then uv=$u; break; fi; done; '
    'if [ -z "$uv" ]; then echo; echo {mark} wanted; work="$tools"/.new-$$; mkdir -p "$work" && '
    'cat >"$work/uv" && [ "$(wc -c <"$work/uv")" -eq {size} ] && chmod 700 "$work/uv" && '
    '{{ [ -d "$tools"/{name} ] || mv "$work" "$tools"/{name}; }}; rm -rf "$work"; '
    'uv="$tools"/{name}/uv; fi; echo; echo {mark} begins; '
    '{variables} "$uv" --color never python install {minor} 2>&1 </dev/null; '
    "code=$?; echo; echo {mark} ends; exit $code"
)


def bring_python(session: Session, home: str, lacking: NoPython) -> None:
    """Have uv bring the minor that runs this into the host's state directory, where the next command finds it.

    Args:
        session: with the host; its last command has ended.
        home: the state directory; empty: the usual one.
        lacking: what was found there.

    Raises:
        HostUnavailable: it could not be brought: which Pythons are there, what uv says, and what to do.
    """
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    tell(f"uv, which brings Python {minor}")
    uv, why = None, ""
    try:
        uv = uv_for(platform_of(lacking.system))
    except RuntimeEnvironmentError as error:
        why = error.message  # the host may have its own
    size = uv.stat().st_size if uv is not None else -1
    name = f"uv-{own_version()}-{digest_of(uv)[7:23]}" if uv is not None else "uv-none"
    script = _SCRIPT.format(
        tools=_THERE.tools, variables=_VARIABLES, mark=MARK, size=size, name=name, minor=minor
    )
    session.start(script, home)
    last: deque[str] = deque(maxlen=LAST_LINES)
    for line in _lines(session):
        if line.startswith(MARK):
            if uv is None:
                raise _failure(lacking, why)
            _send(session, uv)
        else:
            last.append(mask_credentials(line))
            tell(last[-1])
    if session.ended() != 0:
        raise _failure(lacking, "\n  | ".join(("uv could not bring one:", *last)))


def platform_of(told: str) -> Platform:
    """Return what a host says of itself, as `uname -sm` and `getconf GNU_LIBC_VERSION` do, as a platform.

    >>> str(platform_of("Linux aarch64 glibc 2.36"))
    'linux aarch64 (glibc 2.36)'
    """
    system, machine, libc, version, *_ = [*told.lower().split(), *[""] * 4]
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(machine, machine)
    return Platform(system, machine, libc, version)


def _lines(session: Session) -> Iterator[str]:
    """Yield what uv prints; before it, our own line, if a uv is to be sent."""
    begun = False
    while True:
        line = session.next_line(SILENCE_SECONDS)
        if line == f"{MARK} ends":
            return
        if line == f"{MARK} begins":
            begun = True
        elif line == f"{MARK} wanted" or (begun and line):
            yield line


def _send(session: Session, uv: Path) -> None:
    size, sent = uv.stat().st_size, 0
    with uv.open("rb") as file:
        while piece := file.read(PIECE):
            session.send(piece)
            sent += len(piece)
            tell(f"uv: {sent / 1e6:,.0f} of {size / 1e6:,.0f} MB")
    session.end_input()


def _failure(lacking: NoPython, why: str) -> HostUnavailable:
    return HostUnavailable(f"{lacking.message}; {why}", hint=HINT)
