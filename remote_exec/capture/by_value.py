"""Which functions and classes travel by value, and which by the name of their module.

The rule is cloudpickle's: an object that its module hands out under its qualified name goes by reference; one
from ``__main__``, a notebook, another function's body, a replaced name, or a module given to
``cloudpickle.register_pickle_by_value`` goes by value. It is written out here so that analysing a function
imports nothing. Reads ``sys.modules``, owns no state.
"""

from __future__ import annotations

import dis
import sys
from functools import lru_cache
from types import CodeType, ModuleType

# what ``python file.py`` and multiprocessing's children call the script
MAIN_MODULES = frozenset({"__main__", "__mp_main__"})
_GLOBAL_OPERATIONS = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME"})


def travels_by_value(obj: object) -> bool:
    """Whether a function or class is pickled with its code instead of its name.

    Args:
        obj: a function, class, or anything else with ``__module__`` and ``__qualname__``.

    Example:
        >>> import json
        >>> travels_by_value(json.dumps), travels_by_value(lambda: None)
        (False, True)
    """
    module_name = getattr(obj, "__module__", None)
    if not isinstance(module_name, str) or module_name == "builtins":
        # C functions without a module are found by cloudpickle in whichever module holds them
        return False
    if module_name in MAIN_MODULES or registered_by_value(module_name):
        return True
    found: object = sys.modules.get(module_name)
    if found is None:
        return True
    qualified_name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", "")
    for part in str(qualified_name).split("."):
        if part == "<locals>":
            return True
        try:
            found = getattr(found, part)
        except AttributeError:
            return True
    return found is not obj


def module_travels_by_value(module: ModuleType) -> bool:
    """Whether a module object is pickled with its content: made at run time, or registered so."""
    return module.__name__ not in sys.modules or registered_by_value(module.__name__)


def registered_by_value(module_name: str) -> bool:
    """Whether the user's own cloudpickle was told to send this module, or a package around it, by value."""
    cloudpickle = sys.modules.get("cloudpickle")
    if cloudpickle is None:
        return False
    registered: set[str] = cloudpickle.list_registry_pickle_by_value()
    if not registered:
        return False
    parts = module_name.split(".")
    return any(".".join(parts[:n]) in registered for n in range(1, len(parts) + 1))


@lru_cache(maxsize=4096)
def global_names(code: CodeType) -> tuple[str, ...]:
    """The names that a code object, and the code nested in it, looks up in its module or the built-ins."""
    names = {
        str(instruction.argval)
        for instruction in dis.get_instructions(code)
        if instruction.opname in _GLOBAL_OPERATIONS or instruction.opname.endswith("_OR_GLOBALS")
    }
    nested = [const for const in code.co_consts if isinstance(const, CodeType)]
    return tuple(sorted(names.union(*map(global_names, nested))))
