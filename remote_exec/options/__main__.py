"""The reference page: ``python -m remote_exec.options --write PATH`` makes it, ``--check PATH`` compares."""

from __future__ import annotations

import sys
from pathlib import Path

from .reference import options_markdown


def main(arguments: list[str]) -> int:
    """Write or check the page; return the exit status."""
    match arguments:
        case ["--write", path]:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(options_markdown(), encoding="utf-8")
            return 0
        case ["--check", path]:
            if Path(path).is_file() and Path(path).read_text(encoding="utf-8") == options_markdown():
                return 0
            print(
                f"{path} is out of date; run: python -m remote_exec.options --write {path}", file=sys.stderr
            )
            return 1
        case _:
            print("usage: python -m remote_exec.options --write|--check PATH", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
