"""What a machine's programs must be built for."""

from __future__ import annotations

from .record import record


@record
class Platform:
    """A machine's system, processor and C library.

    Attributes:
        system: "linux" or "darwin".
        machine: as Linux names processors: "x86_64", "aarch64".
        libc: "glibc" or "musl"; empty on macOS.
        version: of the C library, as "2.36", on macOS of the system; empty where it is not known.
    """

    system: str
    machine: str
    libc: str = ""
    version: str = ""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version, to be compared; empty where it is not known.

        >>> Platform("linux", "x86_64", "glibc", "2.36").numbers
        (2, 36)
        """
        return tuple(int(part) for part in self.version.split(".")[:2] if part.isdecimal())

    def __str__(self) -> str:
        library = f" ({' '.join(filter(None, (self.libc, self.version)))})" if self.libc else ""
        return f"{self.system} {self.machine}{library}"
