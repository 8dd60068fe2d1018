"""Check the carried runtime: each module of it imports on the oldest Python, with nothing installed.

``python .ci/carried.py --unpack FOLDER`` (with the project installed) lays it out and prints where;
``python3.10 -I -S .ci/carried.py WHERE`` imports it all.
"""

import sys
import warnings
from importlib import import_module
from pathlib import Path

NAME = "remote_exec_runtime"


def import_all(folder: Path) -> int:
    """Import each module below a folder; return how many there are."""
    warnings.simplefilter("error")
    sys.path.append(str(folder))
    names = sorted(
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for path in (folder / NAME).rglob("*.py")
    )
    for name in names:
        import_module(name)
    foreign = sorted(
        name
        for name, module in sys.modules.items()
        if not name.startswith(NAME) and "site-packages" in (getattr(module, "__file__", None) or "")
    )
    if foreign:
        sys.exit(f"the carried runtime imported what is not carried: {', '.join(foreign)}")
    return len(names)


if __name__ == "__main__":
    if sys.argv[1] == "--unpack":
        from remote_exec.backends.runtime import unpack

        print(unpack(Path(sys.argv[2])))
    else:
        print(f"Python {sys.version.split()[0]} imports all {import_all(Path(sys.argv[1]))} carried modules")
