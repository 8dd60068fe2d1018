"""Which platform this process runs on: for hosts, and for clients that compare a host with themselves."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
import subprocess
import sys

from ..model.platform import Platform

_SAME = {"arm64": "aarch64", "amd64": "x86_64"}
_SECONDS = 10.0


@functools.cache
def this_platform() -> Platform:
    """Return the platform of this process; on musl, its loader is run once to tell the version."""
    machine = os.uname().machine.lower()
    machine = _SAME.get(machine, machine)
    if sys.platform == "darwin":
        import platform

        return Platform("darwin", machine, "", platform.mac_ver()[0])
    with contextlib.suppress(ValueError, OSError):  # a name that only glibc knows
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        if name == "glibc":
            return Platform("linux", machine, "glibc", version)
    return Platform("linux", machine, "musl", _musl_version())


def _musl_version() -> str:
    for loader in glob.glob("/lib/ld-musl-*.so.1"):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                [loader],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
            if found := re.search(r"Version (\d+\.\d+)", done.stderr):
                return found[1]
    return ""
