"""Which global names code can read, bind and delete, from the compiler's own scoping: its code objects.

What is found is never too little for code that names what it touches, and may be too much: a name that is read on one
way through the code counts as read, one that each way binds first does not. Code that looks names up by itself
(`globals()`, `exec` of what is no constant) is `opaque`. Which functions such code calls is not looked at here, but
in `reach`; what is in strings for others to read, magics above all, in `mentions`. Runs nothing and owns nothing.
"""

from __future__ import annotations
import __future__

import ast
import bisect
import dis
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import CodeType, FunctionType
from typing import Any, NamedTuple, cast

from .mentions import names_in_magic, names_in_shell_line
from .names import NO_NAMES, NONE, OPAQUE, Names, merged

__all__ = ["Names", "Transform", "compiled", "names_of", "names_of_function"]

Transform = Callable[[str], str]

_ANY = "*"  # among names that may be bound by now: all
FUTURES = functools.reduce(
    int.__or__, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)

_LOADS = frozenset({"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_CALLS = frozenset({"CALL", "CALL_FUNCTION", "CALL_METHOD"})
_PLAIN_LOADS = ("LOAD_CONST", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_FAST", "LOAD_DEREF", "LOAD_SMALL_INT")
_TO_CALL = frozenset({"PUSH_NULL", "PRECALL", "CACHE", "EXTENDED_ARG", "NOP"})  # say nothing of names
_ENDS = frozenset({"RETURN_VALUE", "RETURN_CONST"})
_NEVER_ON = _ENDS | {
    "RAISE_VARARGS", "RERAISE", "JUMP_FORWARD", "JUMP_ABSOLUTE", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT",
}  # fmt: skip
_INTRINSIC_IMPORT_STAR = 2
_JUMPS = frozenset({*dis.hasjrel, *dis.hasjabs})

_OPAQUE_NAMES = frozenset({"globals", "__builtins__", "builtins", "__main__"})
_OPAQUE_ATTRIBUTES = frozenset(
    {"user_ns", "user_global_ns", "run_cell", "run_cell_async", "f_globals", "f_locals", "__globals__"}
)
_OPAQUE_OF_SHELL = _OPAQUE_ATTRIBUTES | {
    "user_module", "ev", "ex", "push", "del_var", "drop_by_id", "reset", "magic", "run_code", "safe_execfile",
    "safe_execfile_ipy", "safe_run_module", "user_expressions", "var_expand", "all_ns_refs", "ns_table",
}  # fmt: skip
_OWN_NAMESPACE = frozenset({"locals", "vars", "dir"})  # without an argument
_EVALUATING = frozenset(
    {"query", "eval", "evaluate"}
)  # methods that read names from strings: pandas, numexpr
_EXPANDING = frozenset({"system", "system_piped", "system_raw", "getoutput"})
_MAGICS = frozenset({"run_line_magic", "run_cell_magic"})


def compiled(source: str, filename: str, flags: int = 0) -> list[CodeType]:
    """Compile a cell as IPython runs it: statement by statement, with `await` allowed outside of functions.

    Args:
        source: the cell, transformed to Python.
        filename: what tracebacks call it.
        flags: the compiler's, of which those of ``from __future__`` count. What the cell imports from there holds
            from that statement on.

    Raises:
        SyntaxError: it is no Python; line and text are those of the source.
        ValueError: it holds what no source may, such as null characters.

    Example:
        >>> first, second = compiled("x = 1\\nprint(x)", "<cell>")
        >>> names_of(first, second).reads
        frozenset({'print'})
    """
    flags &= FUTURES
    codes: list[CodeType] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said where the cell runs
        try:
            allowed = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            tree: Any = compile(
                source, filename, "exec", flags | allowed | ast.PyCF_ONLY_AST, dont_inherit=True
            )
            for statement in tree.body:
                module = ast.Module([statement], [])
                code = compile(module, filename, "exec", flags | allowed, dont_inherit=True)
                flags |= code.co_flags & FUTURES
                codes.append(code)
        except SyntaxError as error:
            if error.text is None and error.lineno is not None:
                lines = source.splitlines()
                error.text = lines[error.lineno - 1] if error.lineno <= len(lines) else None
            raise
    return codes


def names_of(*codes: CodeType, transform: Transform | None = None) -> Names:
    """Return the names that code of the top level touches, nested code included.

    Args:
        codes: run one after the other, until one raises: what `compiled` gives.
        transform: IPython's, from what a user may write in a cell or a magic to Python.
    """
    state = _START
    found = NO_NAMES
    for code in codes:
        names, after = _flow(code, state, transform, top=True)
        found |= names
        if after is None:
            break  # it always raises, so nothing of what follows runs
        state = after
    return found if found.opaque else replace(found, certain=state.needed)


def names_of_function(function: FunctionType, transform: Transform | None = None) -> Names:
    """Return the names of its globals that a function touches when it is called, nested code included."""
    return _nested(function.__code__, transform)


@functools.lru_cache(maxsize=4096)
def _nested(code: CodeType, transform: Transform | None = None) -> Names:
    """Return the names that a function's or a class's code touches, whenever it runs."""
    return _flow(code, _START, transform, top=False)[0]


def _names_of_text(text: str, transform: Transform | None) -> Names | None:
    """Return the names of code that is in a string, or None if it is none."""
    try:
        codes = compiled(transform(text) if transform else text, "<text>")
    except (SyntaxError, ValueError):
        return None
    return names_of(*codes, transform=transform)


# --- the ways through a code object ---


class _State(NamedTuple):
    """What has happened, wherever the code came from, when an instruction begins.

    Attributes:
        settled: names that are bound or deleted for certain: nobody sees what they were before. Names of a class's
            own begin with a dot.
        bound: names that may be bound or deleted.
        needed: names whose value from before has been read for certain.
    """

    settled: frozenset[str]
    bound: frozenset[str]
    needed: frozenset[str]

    def meet(self, other: _State) -> _State:
        return _State(self.settled & other.settled, self.bound | other.bound, self.needed & other.needed)


_START = _State(NONE, NONE, NONE)


class _Effect(NamedTuple):
    """What an instruction does to names: at once and for certain, or perhaps, then or later (`maybe`)."""

    reads: frozenset[str] = NONE
    settles: frozenset[str] = NONE
    maybe: Names = NO_NAMES

    def after(self, state: _State) -> _State:
        settled, bound, needed = state
        if _ANY not in bound:
            needed |= self.reads - bound
        bound |= self.settles | self.maybe.binds | self.maybe.deletes
        if self.maybe.star or self.maybe.opaque:
            bound |= {_ANY}
        return _State(settled | self.settles, bound, needed)

    def reads_from_before(self, settled: frozenset[str]) -> frozenset[str]:
        at_once = {name for name in self.reads if f".{name}" not in settled}
        return (self.maybe.reads | at_once) - settled


def _flow(
    code: CodeType, start: _State, transform: Transform | None, *, top: bool
) -> tuple[Names, _State | None]:
    """Return what code touches, and the state after it; None if it cannot end without an exception."""
    reader = _Reader(code, transform, top=top)
    effects, instructions = reader.effects, reader.instructions
    offsets = [each.offset for each in instructions]
    handlers = _handlers(code)
    states: dict[int, _State] = {0: start}
    pending = [0]
    ended: _State | None = None

    def go(index: int, state: _State) -> None:
        known = states.get(index)
        new = state if known is None else known.meet(state)
        if new != known:
            states[index] = new
            pending.append(index)

    while pending:
        index = pending.pop()
        instruction, before = instructions[index], states[index]
        after = effects[index].after(before) if index in effects else before
        if instruction.opname in _ENDS:
            ended = after if ended is None else ended.meet(after)
        if instruction.opname not in _NEVER_ON:
            go(index + 1, after)
        for first, end, target in handlers:
            if first <= instruction.offset < end:
                go(bisect.bisect_left(offsets, target), before)
        if instruction.opcode in _JUMPS:
            if instruction.opname.startswith("SETUP_"):  # Python 3.10: to where an exception in a block leads
                after = after._replace(bound=after.bound | {_ANY})
            go(bisect.bisect_left(offsets, instruction.argval), after)
    reads = [effect.reads_from_before(states.get(i, start).settled) for i, effect in effects.items()]
    return replace(reader.touched, reads=NONE.union(*reads)), ended


def _handlers(code: CodeType) -> list[tuple[int, int, int]]:
    """Return from where to where an exception leads where; before Python 3.11 there are instructions for that."""
    if not getattr(code, "co_exceptiontable", b""):
        return []
    entries = cast("Any", dis.Bytecode(code)).exception_entries
    return [(entry.start, entry.end, entry.target) for entry in entries]


# --- single instructions ---


class _Reader:
    """What each instruction of a code object does to names.

    Attributes:
        instructions: without those that say nothing.
        effects: by an instruction's index.
        touched: by all of them; what is read depends on the ways.
    """

    def __init__(self, code: CodeType, transform: Transform | None, *, top: bool) -> None:
        self.instructions = [each for each in dis.get_instructions(code) if each.opname not in _TO_CALL]
        self.effects: dict[int, _Effect] = {}
        self._as_code = functools.partial(_names_of_text, transform=transform)
        self._transform = transform
        self._top = top
        self._in_class = not top and not code.co_flags & inspect.CO_OPTIMIZED
        self._deleted = {each.argval for each in self.instructions if each.opname == "DELETE_NAME"}
        binds: set[str] = set()
        deletes: set[str] = set()
        touched = [Names(strings=frozenset(_strings(code.co_consts)))]
        for index, instruction in enumerate(self.instructions):
            effect = self._effect(index, instruction.opname, instruction.argval)
            if effect is None:
                continue
            self.effects[index] = effect
            settled = {name for name in effect.settles if not name.startswith(".")}
            (deletes if instruction.opname.startswith("DELETE") else binds).update(settled)
            touched.append(effect.maybe)
        self.touched = merged((*touched, Names(binds=frozenset(binds), deletes=frozenset(deletes))))

    def _effect(self, index: int, operation: str, value: Any) -> _Effect | None:
        if operation in _LOADS:
            return _Effect(reads=frozenset({value}), maybe=self._of_name(index, value))
        if operation in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            return _Effect(settles=frozenset({value}))
        if operation in ("STORE_NAME", "DELETE_NAME"):
            if not self._in_class:
                return _Effect(settles=frozenset({value}))
            return None if value in self._deleted else _Effect(settles=frozenset({f".{value}"}))
        if operation == "SETUP_ANNOTATIONS" and self._in_class:
            return _Effect(settles=frozenset({".__annotations__"}))
        maybe = self._perhaps(index, operation, value)
        return None if maybe is NO_NAMES else _Effect(maybe=maybe)

    def _perhaps(self, index: int, operation: str, value: Any) -> Names:
        if operation == "LOAD_CONST":
            if isinstance(value, CodeType):
                return self._of_code(index, _nested(value, self._transform))
            return OPAQUE if value == "__main__" and not self._compared(index) else NO_NAMES
        if operation in _ATTRIBUTES:
            return self._of_attribute(index, value)
        if operation == "IMPORT_NAME":
            return OPAQUE if value in _OPAQUE_NAMES else NO_NAMES
        if operation == "IMPORT_STAR" or (
            operation == "CALL_INTRINSIC_1" and self.instructions[index].arg == _INTRINSIC_IMPORT_STAR
        ):
            return Names(star=True)
        if operation == "SETUP_ANNOTATIONS" and self._top:
            annotations = frozenset({"__annotations__"})
            return Names(reads=annotations, binds=annotations)  # it binds what is not there
        return NO_NAMES

    def _of_code(self, index: int, names: Names) -> Names:
        """A function that is bound as soon as it is made means itself by that name, whenever it runs."""
        for each in self.instructions[index + 1 :]:
            if each.opname in ("STORE_NAME", "STORE_GLOBAL") and not self._in_class:
                return replace(names, reads=names.reads - {each.argval})
            if each.opname not in ("LOAD_CONST", "MAKE_FUNCTION", "SET_FUNCTION_ATTRIBUTE"):
                break
        return names

    def _of_name(self, index: int, name: str) -> Names:
        """What comes of loading a global name, or a builtin, beyond reading it."""
        if name in _OPAQUE_NAMES:
            return OPAQUE
        following = [each.opname for each in self.instructions[index + 1 : index + 3]]
        if name in _OWN_NAMESPACE:
            return OPAQUE if self._top and not following[0].startswith("LOAD_") else NO_NAMES
        if name in ("eval", "exec"):
            arguments = self._arguments(index + 1)
            if arguments and isinstance(arguments[0], str):
                return self._as_code(arguments[0].strip() if name == "eval" else arguments[0]) or NO_NAMES
            return OPAQUE
        if name == "get_ipython":
            known = self._arguments(index + 1) == [] and following[-1].startswith((*_ATTRIBUTES, "POP_"))
            return NO_NAMES if known else OPAQUE
        return NO_NAMES

    def _of_attribute(self, index: int, name: str) -> Names:
        maker = self.instructions[index - 2]
        if name in (_OPAQUE_OF_SHELL if maker.argval == "get_ipython" else _OPAQUE_ATTRIBUTES):
            return OPAQUE
        if name not in _EVALUATING | _EXPANDING | _MAGICS:
            return NO_NAMES
        arguments = self._arguments(index + 1)
        if name in _EVALUATING:
            return NO_NAMES if arguments == [] else Names(evaluates=True)  # as in `model.eval()`
        texts = [each for each in arguments or () if isinstance(each, str)]
        constant = arguments is not None and len(texts) == len(arguments)
        if name in _EXPANDING:
            return names_in_shell_line(texts[0]) if constant and texts else Names(evaluates=True)
        if not constant or len(texts) not in (2, 3):
            return OPAQUE
        return names_in_magic(texts[0], texts[1], texts[2] if len(texts) == 3 else None, self._as_code)

    def _arguments(self, index: int) -> list[object] | None:
        """Return the arguments of a call that begins there, None for what is no constant; None if it is not plain."""
        found: list[object] = []
        for each in self.instructions[index : index + 8]:
            if each.opname in _CALLS:
                return found if len(found) == each.arg else None
            if not each.opname.startswith(_PLAIN_LOADS):
                return None
            found.append(each.argval if each.opname == "LOAD_CONST" else None)
        return None

    def _compared(self, index: int) -> bool:
        return any(each.opname == "COMPARE_OP" for each in self.instructions[index + 1 : index + 3])


def _strings(constants: tuple[object, ...]) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, (tuple, frozenset)):
            yield from _strings(tuple(cast("tuple[object, ...]", constant)))
