"""Which names cells touch: what a table says, and what is seen when they run."""

from __future__ import annotations

import asyncio
import builtins
import functools
import inspect
import itertools
import random
import sys
from types import FunctionType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from scoping_cells import CELLS, Cell

from remote_exec.session.reach import closure
from remote_exec.session.scoping import Names, compiled, names_of, names_of_function

UNTOLD = {*vars(builtins), "get_ipython"}


class OutOfFuel(BaseException):
    """A program has run for long enough."""


class Thing:
    """It can be used like anything; how it turns out is up to a random generator, if there is one."""

    def __init__(self, chance: random.Random | None = None, fuel: list[int] | None = None) -> None:
        self.__dict__.update(_chance=chance, _fuel=fuel or [10_000])

    def _use(self, *_: object, **__: object) -> Thing:
        self._fuel[0] -= 1
        if self._fuel[0] < 0:
            raise OutOfFuel
        if self._chance and self._chance.random() < 0.1:
            raise ValueError
        return self

    def _coin(self, *_: object) -> bool:
        self._use()
        return not self._chance or self._chance.random() < 0.5

    def __getattr__(self, name: str) -> Thing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._use()

    def __iter__(self) -> Any:
        return iter([self, self][: 2 if self._coin() else 0])

    async def __aiter__(self) -> Any:
        for each in self:
            yield each

    def __await__(self) -> Any:
        yield from ()
        return self._use()

    async def __aenter__(self) -> Thing:
        return self._use()

    async def __aexit__(self, *_: object) -> None:
        self._use()

    def __format__(self, spec: str) -> str:
        return "3"

    def __exit__(self, *_: object) -> bool:
        return self._chance is not None and self._coin()

    def __hash__(self) -> int:
        return 1

    __call__ = __getitem__ = __add__ = __iadd__ = __sub__ = __rsub__ = __lt__ = __enter__ = _use
    __setitem__ = __delitem__ = __setattr__ = __delattr__ = _use
    __bool__ = __eq__ = __contains__ = _coin


class Watched(dict[str, Any]):
    """A namespace that notes which of the values that it had at first are read; functions read from it, too."""

    def __init__(self, first: dict[str, Any]) -> None:
        super().__init__(first)
        self.watch()

    def watch(self) -> None:
        self.first, self.read, self.stored = dict(self), set[str](), set[str]()

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if name in self.first and value is self.first[name] and name not in self.stored:
            self.read.add(name)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        self.stored.add(name)
        super().__setitem__(name, value)

    def bound(self) -> set[str]:
        return self.stored | {name for name, value in self.items() if self.first.get(name, self) is not value}

    def deleted(self) -> set[str]:
        return {name for name in self.first if name not in self}

    def run(self, codes: list[Any]) -> bool:
        """Run what a cell was compiled to; return whether it came to its end."""
        try:
            if any(code.co_flags & inspect.CO_COROUTINE for code in codes):
                asyncio.run(self._run_awaiting(codes))
            for code in () if any(code.co_flags & inspect.CO_COROUTINE for code in codes) else codes:
                exec(code, self)
        except (Exception, OutOfFuel):
            return False
        return True

    async def _run_awaiting(self, codes: list[Any]) -> None:
        for code in codes:
            value = eval(code, self)  # noqa: S307
            if inspect.iscoroutine(value):
                await value


def things() -> dict[str, Any]:
    letters = {letter: Thing() for letter in "abcdefghijklmnopqrstuvwxyz"}
    errors = {letter.upper(): type(letter.upper(), (Exception,), {}) for letter in letters}
    return {**letters, **errors, "__name__": "__main__", "__builtins__": builtins, "_C__x": Thing()}


def transformed(text: str) -> str:
    """What IPython makes of lines that are as those in the table."""
    lines = text.splitlines()
    if text.startswith("%%"):
        name, _, line = lines[0][2:].partition(" ")
        return f"get_ipython().run_cell_magic({name!r}, {line!r}, {text.partition(chr(10))[2]!r})"
    for i, line in enumerate(lines):
        if line.startswith("!"):
            lines[i] = f"get_ipython().system({line[1:]!r})"
        elif line.startswith("%"):
            name, _, rest = line[1:].partition(" ")
            lines[i] = f"get_ipython().run_line_magic({name!r}, {rest!r})"
    return "\n".join(lines)


READABLE = {name: cell for name, cell in CELLS.items() if sys.version_info >= (3, cell.since)}
PLAIN = {name: cell for name, cell in READABLE.items() if "get_ipython" not in cell.source}


@pytest.mark.parametrize("cell", READABLE.values(), ids=READABLE)
def test_a_cell_touches_what_the_table_says(cell: Cell) -> None:
    names = names_of(*compiled(cell.source, "<cell>"), transform=transformed)

    told = cell.reads.split()
    reads = names.could_read(dict.fromkeys(cell.within.split())) if cell.within else names.reads
    assert reads - UNTOLD - {"__name__"} == {name.rstrip("!") for name in told}
    if not names.opaque:
        assert names.certain - UNTOLD - {"__name__"} == {name[:-1] for name in told if name.endswith("!")}
    assert names.binds == set(cell.binds.split())
    assert names.deletes == set(cell.deletes.split())
    assert {says for says in ("opaque", "star", "evaluates") if getattr(names, says)} == set(
        cell.says.split()
    )


@pytest.mark.parametrize("cell", PLAIN.values(), ids=PLAIN)
def test_what_a_cell_really_touches_is_among_it(cell: Cell) -> None:
    namespace = Watched(things())
    codes = compiled(cell.source, "<cell>")
    names = closure(names_of(*codes), namespace)
    namespace.watch()

    check(namespace, names, ended=namespace.run(codes))


def test_ipython_makes_of_cells_what_the_table_says() -> None:
    manager = pytest.importorskip("IPython.core.inputtransformer2").TransformerManager()

    for cell in CELLS.values():
        assert manager.transform_cell(cell.typed or cell.source).rstrip("\n") == cell.source.rstrip("\n")


def check(namespace: Watched, names: Names, *, ended: bool) -> None:
    if names.opaque:
        return
    assert namespace.read - {"__builtins__"} <= names.reads  # the interpreter reads it
    assert namespace.deleted() <= names.deletes
    if not names.star:
        assert namespace.bound() <= names.binds
    if ended:
        assert names.certain & namespace.first.keys() <= namespace.read


def test_reads_of_functions_are_seen_when_programs_run() -> None:
    namespace = Watched(things())

    assert namespace.run(compiled("def f(): return x\nf()\ny", "<cell>"))
    assert namespace.read == {"x", "y"}


# --- programs made up: none runs for long, or makes something large ---

NAMES = st.sampled_from("abcd")


def expressions() -> st.SearchStrategy[str]:
    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.builds("{}({})".format, NAMES, inner),
            st.builds("{}()".format, NAMES),
            st.builds("({} - {})".format, inner, inner),
            st.builds("({} if {} else {})".format, inner, inner, inner),
            st.builds("({} and {})".format, inner, inner),
            st.builds("[{} for {} in few({}) if {}]".format, inner, NAMES, inner, inner),
            st.builds("few({} for {} in few({}))".format, inner, NAMES, inner),
            st.builds("(lambda p={}, {}=1: more() and {})()".format, inner, NAMES, inner),
            st.builds("(lambda: more() and {})".format, inner),
            st.builds("({} := {})".format, NAMES, inner),
            st.builds("{}.{}".format, NAMES, NAMES),
            st.builds("f'{{{}:3}}'".format, NAMES),
        )

    return st.recursive(st.one_of(NAMES, st.just("1")), larger, max_leaves=3)


def indented(lines: str) -> str:
    return "".join(f" {line}\n" for line in lines.splitlines())


EXPRESSION = expressions()
SIMPLE = st.one_of(
    st.builds("{} = {}\n".format, NAMES, EXPRESSION),
    st.builds("{} -= {}\n".format, NAMES, EXPRESSION),
    st.builds("{}: {} = {}\n".format, NAMES, EXPRESSION, EXPRESSION),
    st.builds("{}\n".format, EXPRESSION),
    st.builds("del {}\n".format, NAMES),
    st.builds("import math as {}\n".format, NAMES),
    st.builds("exec({!r})\n".format, st.builds("{} = {}".format, NAMES, EXPRESSION)),
    st.sampled_from(["raise ValueError\n", "pass\n", "return\n", "break\n", "continue\n"]),
)
OWN = (FunctionType, type, list)
METHOD = st.sampled_from(["__add__", "__call__", "__enter__", "__bool__", "__init__", "a", "b"])


def compound(block: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = block.map(indented)
    return st.one_of(
        st.lists(block, min_size=2, max_size=4).map("".join),
        st.builds("if {}:\n{}".format, EXPRESSION, body),
        st.builds("if {}:\n{}else:\n{}".format, EXPRESSION, body, body),
        st.builds("for {} in few({}):\n{}".format, NAMES, EXPRESSION, body),
        st.builds("for {} in few({}):\n{}else:\n{}".format, NAMES, EXPRESSION, body, body),
        st.builds("while {} and more():\n{}".format, EXPRESSION, body),
        st.builds("try:\n{}except Exception as {}:\n{}".format, body, NAMES, body),
        st.builds("try:\n{}except ValueError:\n{}else:\n{}".format, body, body, body),
        st.builds("try:\n{}finally:\n{}".format, body, body),
        st.builds("with {} as {}:\n{}".format, EXPRESSION, NAMES, body),
        st.builds("match {}:\n case [{}] if {}:\n {}\n case _:\n{}".format, EXPRESSION, NAMES, EXPRESSION,
            EXPRESSION, body.map(indented)),
        st.builds("def {}(p={}):\n more()\n{}".format, NAMES, EXPRESSION, body),
        st.builds("def {}(*p):\n global {}\n more()\n{}".format, NAMES, NAMES, body),
        st.builds("@{}\ndef {}({}=1):\n more()\n{}".format, NAMES, NAMES, NAMES, body),
        st.builds("class {}:\n{}".format, NAMES, body),
        st.builds("class {}:\n global {}\n{}".format, NAMES, NAMES, body),
        st.builds("class {}:\n def {}(self, *p):\n  more()\n{}".format, NAMES, METHOD, body.map(indented)),
    )  # fmt: skip


PROGRAMS = st.lists(st.recursive(SIMPLE, compound, max_leaves=6), min_size=1, max_size=3).map("".join)


@settings(suppress_health_check=list(HealthCheck))
@given(before=PROGRAMS, program=PROGRAMS, seed=st.integers(0, 1000))
def test_what_programs_touch_is_among_what_is_said(before: str, program: str, seed: int) -> None:
    try:
        first, second = compiled(before, "<before>"), compiled(program, "<program>")
    except SyntaxError:
        reject()
    chance, fuel = random.Random(seed), [200]
    namespace = Watched({name: Thing(chance, fuel) for name in "abcd"})
    spare = Thing(fuel=fuel)
    dict.update(namespace, __name__="__main__", __builtins__=builtins, more=lambda: bool(spare))
    dict.update(namespace, few=lambda items: [item for item in itertools.islice(items, 2) if spare])
    namespace.run(first)
    for name, value in list(
        namespace.items()
    ):  # a value of its own for each: so it is seen which one is read
        if name in "abcd" and (
            not isinstance(value, OWN) or sum(value is each for each in namespace.values()) > 1
        ):
            namespace[name] = Thing(chance, fuel)
    fuel[0] = 200
    names = closure(names_of(*second), namespace)
    namespace.watch()

    check(namespace, names, ended=namespace.run(second))


# --- functions and classes that are met ---


def notebook(source: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__", "functools": functools}
    for code in compiled(source, "<cell>"):
        exec(code, namespace)
    return namespace


FOLLOWED = {
    "function": "def f(): return x",
    "function of a function": "def g(): return x\ndef f(): return g()",
    "function in a container": "def g(): return x\nf = {'a': [g]}",
    "closure": "def make():\n def g(): return x\n return lambda: g()\nf = make()",
    "default": "def g(): return x\ndef f(p=g, *, q=None): pass",
    "wrapped": "@functools.lru_cache\ndef f(): return x",
    "wrapped twice": "@functools.cache\n@functools.wraps(print)\ndef f(): return x",
    "partial": "def g(p): return x\nf = functools.partial(g, 1)",
    "dispatch": "@functools.singledispatch\ndef f(p): pass\n@f.register\ndef _(p: int): return x",
    "class": "class f:\n def m(self): return x",
    "base class": "class B:\n def m(self): return x\nclass f(B): pass",
    "metaclass": "class M(type):\n def m(cls): return x\nclass f(metaclass=M): pass",
    "static method": "class f:\n @staticmethod\n def m(): return x",
    "class method": "class f:\n @classmethod\n def m(cls): return x",
    "property": "class f:\n @property\n def m(self): return 1\n @m.setter\n def m(self, v): return x",
    "cached property": "class f:\n @functools.cached_property\n def m(self): return x",
    "instance": "class C:\n def m(self): return x\nf = C()",
    "instance's attribute": "class C: pass\ndef g(): return x\nf = C()\nf.made = g",
    "bound method": "class C:\n def m(self): return x\nf = C().m",
    "text annotation": "class f:\n field: 'list[x]'",
    "nested class": "class f:\n class D:\n  def m(self): return x",
    "data class": "import dataclasses\ndef g(): return x\n@dataclasses.dataclass\nclass f:\n"
    " a: list = dataclasses.field(default_factory=g)",
}


@pytest.mark.parametrize("source", [pytest.param(source, id=name) for name, source in FOLLOWED.items()])
def test_what_functions_and_classes_read_is_found(source: str) -> None:
    namespace = notebook(source)

    assert "x" in closure(names_of(*compiled("f", "<cell>")), namespace).reads
    assert "x" not in names_of(*compiled("f", "<cell>")).reads


def test_a_function_of_another_namespace_is_not_followed_but_what_it_wraps_is() -> None:
    namespace = notebook("def g(): return x\nfunctools = None")
    other = notebook("y = 1\ndef deco(h):\n def w(): return h() + y\n return w")
    namespace["f"] = other["deco"](namespace["g"])

    found = closure(names_of(*compiled("f()", "<cell>")), namespace)

    assert "x" in found.reads
    assert "y" not in found.reads


def test_following_runs_no_code_of_the_users() -> None:
    namespace = notebook("""
class Meta(type):
    def __getattribute__(cls, name): raise AssertionError(name)
    def __eq__(cls, other): raise AssertionError
    def __hash__(cls): raise AssertionError
    def __instancecheck__(cls, other): raise AssertionError
class Trap(metaclass=Meta):
    def __getattribute__(self, name): raise AssertionError(name)
    __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __getattribute__
    @property
    def __dict__(self): raise AssertionError
    @property
    def __class__(self): raise AssertionError
    def m(self): return x
class List(list):
    def __len__(self): raise AssertionError
    def __iter__(self): raise AssertionError
f = [Trap(), List()]
""")

    assert "x" in closure(names_of(*compiled("f", "<cell>")), namespace).reads


def test_what_functions_bind_is_not_certain_to_be_read_as_it_was() -> None:
    namespace = notebook("x = y = 1\ndef f():\n global x\n x = 2")

    assert closure(names_of(*compiled("f()\nx, y", "<cell>")), namespace).certain == {"f", "y"}


def test_an_opaque_function_makes_its_caller_opaque() -> None:
    namespace = notebook("def f(): return globals()\nx = 1")

    assert closure(names_of(*compiled("f()", "<cell>")), namespace).could_read(namespace) == set(namespace)


def test_an_imported_main_is_the_namespace() -> None:
    namespace = notebook("")
    module = namespace["m"] = type(sys)("__main__")
    module.__dict__.update(x=1)

    assert not closure(names_of(*compiled("m.x", "<cell>")), namespace).opaque
    assert closure(names_of(*compiled("m.x", "<cell>")), {"m": module}).could_read({"x": 1}) == set()
    own = vars(module)
    own["m"] = module
    assert closure(names_of(*compiled("m.x", "<cell>")), own).opaque


def test_texts_from_before_count_where_texts_are_evaluated() -> None:
    namespace = {"q": "a > @y", "df": 1, "y": 1, "z": 1}

    assert names_of(*compiled("df.query(q)", "<cell>")).could_read(namespace) == {"df", "q", "y"}


def test_a_live_function_tells_its_names() -> None:
    names = names_of_function(notebook("def f():\n global z\n z = x")["f"])

    assert (names.reads, names.binds, names.certain) == ({"x"}, {"z"}, set())


# --- compiling ---


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        ("x = 1\ny = = 2\n", 2, "y = = 2"),
        ("x = 1\nreturn x\n", 2, "return x"),
        ("x = 1\ndef f():\n    break\n", 3, "    break"),
        ("if x:\n  y\n z\n", 3, " z"),
    ],
)
def test_a_syntax_error_has_the_editors_line(source: str, line: int, text: str) -> None:
    with pytest.raises(SyntaxError) as caught:
        compiled(source, "<cell 3>")

    assert (caught.value.filename, caught.value.lineno) == ("<cell 3>", line)
    assert (caught.value.text or "").rstrip("\n") == text


def test_flags_of_earlier_cells_hold_and_those_of_the_cell_from_there_on() -> None:
    import __future__

    flag = __future__.annotations.compiler_flag
    source = "def f(p: x): pass"

    assert "x" in names_of(*compiled(source, "<cell>")).reads
    assert "x" not in names_of(*compiled(source, "<cell>", flag | 0x4200)).reads
    later = f"y = 1\nfrom __future__ import annotations\n{source}"
    assert "x" not in names_of(*compiled(later, "<cell>")).reads
