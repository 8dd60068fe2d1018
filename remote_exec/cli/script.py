"""A script, as something that can be called remotely: one function of it, or the whole as ``__main__``.

The file is run here to get at a function of it, as an import would; a whole script is only compiled here.
Both travel by value, so that the host needs no file; local modules that they import travel as usual.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from ..model.errors import ConfigurationError

# multiprocessing's word: what is defined there travels by value, and `if __name__ == "__main__"` is not run
MODULE = "__mp_main__"


def parse_target(target: str) -> tuple[Path, str]:
    """Return the file and the function's name; the name is empty where the whole script is meant.

    Raises:
        ConfigurationError: there is no such file.
    """
    file, colon, name = target.rpartition(":")
    if not colon or os.path.isfile(target):
        file, name = target, ""
    path = Path(file)
    if not path.is_file():
        raise ConfigurationError(
            f"FILE must be a Python script that exists, not {file!r}", hint="remote-exec run --help"
        )
    return path, name


def load_function(path: Path, name: str) -> Callable[..., Any]:
    """Run the file as a module and return what it calls `name`; dots lead into classes.

    Raises:
        ConfigurationError: it has nothing of that name that can be called.
    """
    code = _compile(path)
    module = ModuleType(MODULE)
    module.__file__ = str(path.resolve())
    sys.modules[MODULE] = module
    sys.path.insert(0, str(path.resolve().parent))
    exec(code, module.__dict__)  # noqa: S102 - the user's own script, which they asked us to run
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        from ..options import nearest

        known = [
            key
            for key, value in vars(module).items()
            if callable(value) and not key.startswith("_") and getattr(value, "__module__", "") == MODULE
        ]
        near = nearest(name, known)
        raise ConfigurationError(
            f"{path} has no function {name!r}{near and f'; did you mean {near!r}?'}",
            hint=f"it has: {', '.join(known)}" if known else "",
        )
    return found  # type: ignore[no-any-return]


def whole_script(path: Path, arguments: tuple[str, ...]) -> Callable[[], Any]:
    """Return a function that runs the file as ``__main__``, wherever it is called."""
    place = path.resolve()
    body = FunctionType(_compile(path), {"__name__": MODULE}, path.stem)
    sys.path.insert(0, str(place.parent))
    # Of no module of ours, which hosts do not have: it travels by value.
    function = FunctionType(run_as_main.__code__, {"__name__": MODULE, "__builtins__": __builtins__})
    function.__name__ = function.__qualname__ = re.sub(r"\W+", "-", path.stem).strip("-") or "script"
    function.__module__ = MODULE
    function.__defaults__ = (body, str(place), [str(path), *arguments])
    return function


def run_as_main(body: FunctionType, file: str, argv: list[str]) -> None:
    """In the worker: be the script. Imports nothing of ours."""
    import os
    import sys
    import types

    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=file, __builtins__=__builtins__)
    former = sys.modules["__main__"], sys.argv, list(sys.path)
    sys.modules["__main__"], sys.argv = module, argv
    if os.path.isdir(os.path.dirname(file)):
        sys.path.insert(0, os.path.dirname(file))
    try:
        exec(body.__code__, module.__dict__)  # noqa: S102
    except SystemExit as end:
        if end.code not in (None, 0):
            raise  # the job has failed, and who asked for it exits with the same code
    finally:
        sys.modules["__main__"], sys.argv, sys.path[:] = former


def _compile(path: Path) -> CodeType:
    return compile(path.read_bytes(), str(path.resolve()), "exec", dont_inherit=True)
