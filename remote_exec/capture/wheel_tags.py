"""Whether a wheel's file name says that it runs on a host."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from ..model.platform import Platform

_OLDEST_GLIBC_MINOR = 5  # manylinux1
_NEWEST_MUSL_MINOR = 9  # where the host does not tell which it has
_ALIASES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


def runs_on(file_name: str, platform: Platform, *, python: str) -> bool:
    """Return whether a wheel is built for a platform and a CPython of a version ("3.11"); true where it names no tags.

    >>> runs_on(
    ...     "a-1-cp311-cp311-linux_x86_64.whl", Platform("linux", "aarch64", "glibc", "2.36"), python="3.11"
    ... )
    False
    """
    try:
        tags = parse_wheel_filename(file_name)[3]
    except InvalidWheelFilename:
        return True
    return not tags.isdisjoint(_tags(platform, python))


def _tags(platform: Platform, python: str) -> Iterator[Tag]:
    major, minor = (int(part) for part in python.split("."))
    platforms = list(_platforms(platform))
    yield from cpython_tags((major, minor), platforms=platforms)
    yield from compatible_tags((major, minor), f"cp{major}{minor}", platforms)


def _platforms(platform: Platform) -> Iterator[str]:
    machine, numbers = platform.machine, platform.numbers
    if platform.system == "darwin":
        newest = (numbers[0], numbers[1] if len(numbers) > 1 else 0) if numbers else (15, 0)
        yield from mac_platforms(newest, "arm64" if machine == "aarch64" else machine)
        return
    known = len(numbers) == 2
    if platform.libc == "musl":
        minors = range((numbers[1] if known else _NEWEST_MUSL_MINOR) + 1)
        yield from (f"musllinux_1_{minor}_{machine}" for minor in minors)
    else:
        for minor in range(_OLDEST_GLIBC_MINOR, (numbers[1] if known else 99) + 1):
            yield f"manylinux_2_{minor}_{machine}"
            if minor in _ALIASES:
                yield f"{_ALIASES[minor]}_{machine}"
    yield f"linux_{machine}"
