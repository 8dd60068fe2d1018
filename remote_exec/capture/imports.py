"""The imports that a piece of code names: from bytecode for live functions, from source for module files.

Nothing is imported or executed here, and nothing is looked up: the answer is names, and ``modules`` decides
what they are. Owns one cache: what each source file imports, keyed by the file's stat; any thread may use it.
"""

from __future__ import annotations

import ast
import dis
import io
import marshal
import os
import tokenize
from collections.abc import Iterator
from types import CodeType
from typing import cast

from ..model.record import record

_IMPORT_NAME = dis.opmap["IMPORT_NAME"]
_FORGIVING = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


@record(kw_only=True)
class Import:
    """One import as written: ``from ..module import names``, or ``import module``."""

    # dotted, without the leading dots; empty for ``from . import x``
    module: str
    # what ``from`` takes; empty for a plain import; "*" as written
    names: tuple[str, ...] = ()
    # the number of leading dots
    level: int = 0
    # guarded by ``except ImportError``: its absence is no error
    optional: bool = False

    def absolute(self, package: str) -> str | None:
        """The dotted module, made absolute inside `package`; ``None`` when it leads out of the top level."""
        if not self.level:
            return self.module
        parts = package.split(".") if package else []
        kept = len(parts) - (self.level - 1)
        if kept < 1:
            return None
        return ".".join([*parts[:kept], *([self.module] if self.module else [])])


def imports_of_code(code: CodeType) -> Iterator[Import]:
    """The imports in a code object and all code nested in it, lazy ones and ``import_module("…")`` too."""
    for part in nested_code(code):
        names = part.co_names
        if _IMPORT_NAME in part.co_code[::2]:
            # code that names ImportError is code that can live without what it imports
            yield from _import_instructions(part, optional=not _FORGIVING.isdisjoint(names))
        if "import_module" in names or "__import__" in names:
            for const in part.co_consts:
                if isinstance(const, str) and _dotted(const):
                    yield Import(module=const, optional=True)


def nested_code(code: CodeType) -> Iterator[CodeType]:
    """A code object, then the functions, classes, lambdas and comprehensions inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from nested_code(const)


def _import_instructions(code: CodeType, *, optional: bool) -> Iterator[Import]:
    # the compiler always emits: load the level, load the names, IMPORT_NAME
    loaded: list[object] = [None, None]
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            level, names = loaded
            yield Import(
                module=str(instruction.argval),
                names=cast("tuple[str, ...]", names) if isinstance(names, tuple) else (),
                level=level if isinstance(level, int) else 0,
                optional=optional,
            )
        elif instruction.opname != "EXTENDED_ARG":
            loaded = [loaded[1], instruction.argval]


def imports_of_file(path: str) -> tuple[Import, ...]:
    """The imports of a module file, ``.py`` or sourceless ``.pyc``; those of a compiled one stay unseen.

    Imports under ``if TYPE_CHECKING`` are skipped. A file that does not parse imports nothing: the worker's
    own SyntaxError says it better.

    Raises:
        OSError: the file cannot be read.
    """
    stat = os.stat(path)
    stamp = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
    known = _by_file.get(path)
    if known is not None and known[0] == stamp:
        return known[1]
    if path.endswith(".py"):
        with open(path, "rb") as file:
            found = tuple(imports_of_source(file.read()))
    elif path.endswith(".pyc"):
        found = tuple(_imports_of_bytecode(path))
    else:
        found = ()
    _by_file[path] = (stamp, found)
    return found


# path -> the file's stat, its imports. An edit within one tick of the clock after the file was read is missed
# here; what travels is decided by content (see index), so only an import that is *new* in it would come late
_by_file: dict[str, tuple[tuple[int, ...], tuple[Import, ...]]] = {}


def _imports_of_bytecode(path: str) -> Iterator[Import]:
    with open(path, "rb") as file:
        body = file.read()[16:]
    try:
        code = marshal.loads(body)  # noqa: S302 - a file that this interpreter would run
    except (ValueError, EOFError, TypeError):
        return
    if isinstance(code, CodeType):
        yield from imports_of_code(code)


def imports_of_source(source: bytes) -> Iterator[Import]:
    """The imports written anywhere in a module's source."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        text = source.decode(encoding)
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    yield from _imports_of_statements(tree.body, optional=False)
    if "import_module" in text or "__import__" in text:
        yield from _imports_by_call(tree)


def _imports_of_statements(body: list[ast.stmt], *, optional: bool) -> Iterator[Import]:
    # statements only: expressions hold no import statement, and are most of a tree
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module=alias.name, optional=optional)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            yield Import(module=node.module or "", names=names, level=node.level, optional=optional)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            yield from _imports_of_statements(node.orelse, optional=optional)
        elif isinstance(node, ast.Try | ast.TryStar):
            forgiven = optional or any(map(_forgives_import, node.handlers))
            yield from _imports_of_statements(node.body, optional=forgiven)
            for handler in node.handlers:
                yield from _imports_of_statements(handler.body, optional=optional)
            yield from _imports_of_statements([*node.orelse, *node.finalbody], optional=optional)
        elif isinstance(node, ast.Match):
            for case in node.cases:
                yield from _imports_of_statements(case.body, optional=optional)
        else:
            yield from _imports_of_statements(getattr(node, "body", []), optional=optional)
            yield from _imports_of_statements(getattr(node, "orelse", []), optional=optional)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _forgives_import(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(name, ast.Name) and name.id in _FORGIVING for name in caught)


def _imports_by_call(tree: ast.AST) -> Iterator[Import]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        argument = node.args[0]
        if name in {"import_module", "__import__"} and isinstance(argument, ast.Constant):
            target = argument.value
            if isinstance(target, str) and _dotted(target.lstrip(".")):
                level = len(target) - len(target.lstrip("."))
                yield Import(module=target.lstrip("."), level=level, optional=True)


def _dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))
