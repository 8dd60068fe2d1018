"""What code a function reaches: the user's modules, which travel, and installed ones, which must be there.

The function itself is walked as the live object that will be pickled: its code, globals, closure, defaults,
attributes, and the values among them. From there on the *source* of each local module is read, never the
loaded module, and nothing is imported or executed. Owns no state.

What is decided here and why: a module reached names its whole top-level package (``Reach.packages``).
Packages read data files, load siblings by computed names, and register plug-ins; half a package fails late
and far away, while a whole one costs kilobytes once.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, cast

from ..model.record import record
from ..worker.bound import BoundFunction
from .by_value import MAIN_MODULES, global_names, module_travels_by_value, travels_by_value
from .imports import Import, imports_of_code, imports_of_file, nested_code
from .locate import OWN, Locator, Module, Origin

# a global that holds a big structure is looked into this far; what its classes are shows long before
_MOST_VALUES = 50_000
_LEAVES = (type(None), bool, int, float, complex, str, bytes, bytearray, memoryview, type(Ellipsis), range)


@record(kw_only=True)
class Reach:
    """The modules that a function needs, by whose they are."""

    # dotted name -> module, for every local module reached and the packages around it
    local: Mapping[str, Module]
    # top-level name -> the dotted modules actually named
    third_party: Mapping[str, frozenset[str]]
    # dotted name that resolves to nothing here -> who names it; guarded imports are not among them
    missing: Mapping[str, str]

    @cached_property
    def names(self) -> frozenset[str]:
        """The dotted names of all local modules, and of the installed ones and their top levels."""
        return frozenset(self.local).union(self.third_party, *self.third_party.values())

    @property
    def packages(self) -> tuple[Module, ...]:
        """The top-level local modules and packages, sorted by name."""
        return tuple(self.local[name] for name in sorted(self.local) if "." not in name)


def reach(obj: object, *, modules: Iterable[str] = ()) -> Reach:
    """Find the code that an object needs where it is unpickled and called.

    Args:
        obj: a function, class, or any value that will be pickled.
        modules: dotted names of further modules that are needed, such as those that a pickle names.

    Example:
        >>> import statistics
        >>> reach(statistics.mean).local
        {}
    """
    walk = _Walk()
    for name in modules:
        walk.need(name, by="the pickled data")
    walk.visit(obj)
    walk.follow_sources()
    return Reach(
        local=dict(sorted(walk.local.items())),
        third_party={top: frozenset(names) for top, names in sorted(walk.third_party.items())},
        missing=dict(sorted(walk.missing.items())),
    )


class _Walk:
    """One analysis: values first, then the sources of the local modules that they name."""

    def __init__(self) -> None:
        self.local: dict[str, Module] = {}
        self.third_party: dict[str, set[str]] = {}
        self.missing: dict[str, str] = {}
        self._locator = Locator()
        self._unread: list[Module] = []
        # id -> the object, kept alive so that the id stays its own
        self._seen: dict[int, object] = {}

    def need(self, name: str, *, by: str, optional: bool = False) -> Module:
        """Note that a dotted module is needed, and the packages around it, which are imported before it."""
        module = self._locator.locate(name)
        parent = name.rpartition(".")[0]
        if module.origin is Origin.LOCAL:
            if parent:
                self.need(parent, by=by, optional=optional)
            if name not in self.local:
                self.local[name] = module
                self._unread.append(module)
        elif module.origin is Origin.THIRD_PARTY:
            self.third_party.setdefault(name.partition(".")[0], set()).add(name)
        elif module.origin is Origin.MISSING and name not in MAIN_MODULES:
            above = self.need(parent, by=by, optional=optional) if parent else None
            # an installed package may make its submodules at run time (six.moves)
            if not optional and (above is None or above.origin is Origin.LOCAL):
                self.missing.setdefault(name, by)
        return module

    def imported(self, item: Import, *, package: str, by: str) -> None:
        """Note what one import statement needs."""
        name = item.absolute(package)
        if not name:
            return  # relative to no package that is known: the module itself could be imported here
        module = self.need(name, by=by, optional=item.optional)
        if not module.is_package:
            return
        for taken in item.names:
            # ``from package import x``: a submodule if there is one, else an attribute
            if taken != "*" and self._locator.locate(f"{name}.{taken}").origin is not Origin.MISSING:
                self.need(f"{name}.{taken}", by=by, optional=item.optional)

    def follow_sources(self) -> None:
        """Read the local modules reached, and those that they reach, until there is nothing new."""
        while self._unread:
            module = self._unread.pop()
            if module.file is None:
                continue
            package = module.name if module.is_package else module.name.rpartition(".")[0]
            try:
                found = imports_of_file(module.file)
            except OSError:
                self.missing.setdefault(module.name, "its file cannot be read")
                continue
            for item in found:
                self.imported(item, package=package, by=f"module {module.name}")

    def visit(self, root: object) -> None:
        """Walk a value and all that would be pickled with it; deep structures do not recurse."""
        stack = [root]
        while stack and len(self._seen) < _MOST_VALUES:
            value = stack.pop()
            if isinstance(value, _LEAVES) or id(value) in self._seen:
                continue
            self._seen[id(value)] = value
            stack.extend(self._parts(value))

    def _parts(self, value: object) -> Iterable[object]:
        """Note the modules that one value names, and hand out the values inside it."""
        if isinstance(value, ModuleType):
            return self._of_module(value)
        if isinstance(value, FunctionType):
            return self._of_function(value)
        if isinstance(value, type):
            return self._of_class(value)
        if type(value) in {dict, MappingProxyType}:
            mapping = cast("Mapping[object, object]", value)
            return [*mapping.keys(), *mapping.values()]
        if type(value) in {list, tuple, set, frozenset}:
            return cast("Iterable[object]", value)
        if isinstance(value, MethodType | BoundFunction):
            return (value.__func__, value.__self__)
        if isinstance(value, functools.partial):
            partial: Any = cast(Any, value)
            return (partial.func, partial.args, partial.keywords, partial.__dict__)
        if isinstance(value, property):
            return (value.fget, value.fset, value.fdel)
        if isinstance(value, staticmethod | classmethod):
            return (cast("staticmethod[..., Any]", value).__func__,)
        if isinstance(value, BuiltinFunctionType):
            self._named_by(value)
            return (value.__self__,)
        if isinstance(value, CodeType | GetSetDescriptorType | MemberDescriptorType):
            return ()
        return self._of_instance(value)

    def _of_module(self, module: ModuleType) -> Iterable[object]:
        if module.__name__ in MAIN_MODULES:
            return ()
        if module_travels_by_value(module):
            return list(vars(module).values())
        self.need(module.__name__, by="a module object")
        return ()

    def _of_function(self, function: FunctionType) -> Iterator[object]:
        if not travels_by_value(function):
            self._named_by(function)
            return
        yield from vars(function).values()
        by = f"function {function.__qualname__}"
        scope = function.__globals__
        for item in imports_of_code(function.__code__):
            self.imported(item, package=_package_of(scope), by=by)
        attributes: set[str] | None = None
        for name in global_names(
            function.__code__
        ):  # not what it imports: that is bound in the function itself
            if name not in scope:
                continue
            value = scope[name]
            if isinstance(value, ModuleType) and hasattr(value, "__path__"):
                if attributes is None:
                    attributes = {name for code in nested_code(function.__code__) for name in code.co_names}
                self._submodules_used(value, attributes)
            yield value
        for cell in function.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:
                continue
        yield from function.__defaults__ or ()
        yield from (function.__kwdefaults__ or {}).values()
        yield from function.__annotations__.values()

    def _submodules_used(self, module: ModuleType, names: set[str]) -> None:
        # ``import package.part`` binds `package` alone: a loaded part whose name the code uses is needed too
        prefix = f"{module.__name__}."
        for name in [name for name in sys.modules if name.startswith(prefix)]:
            if names.issuperset(name[len(prefix) :].split(".")):
                self.need(name, by="an attribute of a module")

    def _of_class(self, cls: type) -> Iterator[object]:
        if not travels_by_value(cls):
            self._named_by(cls)
            return
        yield type(cls)
        yield from cls.__bases__
        yield from vars(cls).values()

    def _of_instance(self, value: object) -> Iterator[object]:
        yield type(value)
        if str(type(value).__module__).partition(".")[0] in OWN and "__reduce__" in vars(type(value)):
            yield value.__reduce__()[1]  # a remote function leaves behind what it is connected to
            return
        # no look-up through the value itself: the __getattr__ of a proxy or a lazy object is the user's code
        attributes: object = None
        with contextlib.suppress(Exception):
            attributes = object.__getattribute__(value, "__dict__")
        if isinstance(attributes, dict):
            if "__qualname__" in attributes and not travels_by_value(value):
                # a cached function and its like: pickled as the name that its module hands out
                self._named_by(value)
                return
            yield cast("dict[str, object]", attributes)
        for cls in type(value).__mro__:
            for member in [each for each in vars(cls).values() if isinstance(each, MemberDescriptorType)]:
                try:
                    yield member.__get__(value, cls)
                except (AttributeError, TypeError):
                    continue
        for kind in (dict, list, tuple, set, frozenset):
            if isinstance(value, kind):
                # the built-in's own methods, not those that the user's subclass defines
                builtin, content = cast(Any, kind), cast(Any, value)
                yield from builtin.__iter__(content)
                if kind is dict:
                    yield from builtin.values(content)

    def _named_by(self, value: object) -> None:
        name = getattr(value, "__module__", None)
        if isinstance(name, str) and name not in MAIN_MODULES and name != "builtins":
            # a C function may claim a module that was never importable
            module_name = name if name in sys.modules else name.partition(".")[0]
            self.need(module_name, by=f"{getattr(value, '__qualname__', value)}", optional=True)


def _package_of(scope: dict[str, Any]) -> str:
    """The package that a function's relative imports start from."""
    package = scope.get("__package__")
    if isinstance(package, str) and package:
        return package
    spec = scope.get("__spec__")
    if spec is not None:
        return str(spec.parent or "")
    name = str(scope.get("__name__", ""))
    return name if "__path__" in scope else name.rpartition(".")[0]
