"""Where plain pickles break a notebook: each trap with what it is about seen for the first time, and known already."""

# ruff: noqa: E501 - cells stand in one line each

from __future__ import annotations

import pytest

from .notebook import Notebook, value_of

# What it is about; the cell here, the cell there, what is looked at here afterwards, and what that is to be.
TRAPS = {
    "a function's globals": (
        "count = 0\ndef bump():\n    global count\n    count += 1", "bump(); bump()", "count", 2,
    ),
    "a global deleted by a function": (
        "gone = 1\ndef drop():\n    global gone\n    del gone", "drop()", "'gone' in globals()", False,
    ),
    "a redefined function that another one calls": (
        "def g(): return 'old'\ndef f(): return g()", "def g(): return 'new'\nr = f()", "r, f()", ("new", "new"),
    ),
    "a class's attributes": (
        "class P:\n    made = 0\n    def __init__(self): P.made += 1\np = P()", "q = P(); q2 = type(p)()",
        "P.made, isinstance(q, P), type(q) is type(p), p.made", (3, True, True, 3),
    ),
    "a cached function": (
        "import functools\n@functools.cache\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)",
        "r = fib(30); same = fib", "r, fib(10), same is fib", (832040, 55, True),
    ),
    "a submodule": (
        "import concurrent.futures", "r = concurrent.futures.Future.__name__", "r", "Future",
    ),
    "a pickle of an object of the notebook": (
        "class P:\n    x = 1\np = P()", "import pickle\nr = pickle.loads(pickle.dumps(p)).x; back = pickle.dumps(p)",
        "r, __import__('pickle').loads(back).x", (1, 1),
    ),
    "an alias that the cell does not name": (
        "a = [0]; b = a; c = {'k': a}", "a.append(1)", "b, b is a, c['k'] is a", ([0, 1], True, True),
    ),
    "an alias whose name the cell binds anew": (
        "a = [0]; b = a", "a.append(1); a = 5", "a, b", (5, [0, 1]),
    ),
    "what did not change": (
        "cfg = {'k': [1]}; inner = cfg['k']; where = id(cfg), id(inner)", "r = len(cfg); same = cfg",
        "where == (id(cfg), id(cfg['k'])), inner is cfg['k'], same is cfg", (True, True, True),
    ),
    "an exception with a signature of its own": (
        "class Bad(Exception):\n    def __init__(self, code, *, why):\n        super().__init__(code)\n"
        "        self.why = why\ne = Bad(1, why=[2])",
        "e.why.append(3)\ntry: raise Bad(7, why='x')\nexcept Bad as error: new = error",
        "e.args, e.why, new.why, type(new) is Bad", ((1,), [2, 3], "x", True),
    ),
    "single dispatch": (
        "import functools\n@functools.singledispatch\ndef kind(x): return 'any'\n@kind.register\ndef _(x: int): return 'int'\n"
        "before = kind",
        "r = kind(1)\n@kind.register(str)\ndef of_text(x): return 'str'\nr2 = kind('a')",
        "r, r2, kind('a'), kind(1.5), before is kind", ("int", "str", "str", "any", True),
    ),
    "a closure": (
        "def make():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n        return n\n"
        "    return up, lambda: n\nup, now = make(); up()",
        "r = up()", "r, now(), up(), now()", (2, 2, 3, 3),
    ),
    "a default": ("def f(x=[]):\n    x.append(1)\n    return len(x)\nf()", "r = f()", "r, f()", (2, 3)),
    "a decorated function": (
        "import functools\ncalls = []\ndef log(f):\n    @functools.wraps(f)\n    def inner(*a):\n        calls.append(f.__name__)\n"
        "        return f(*a)\n    return inner\n@log\ndef double(x): return 2 * x",
        "r = double(4)", "r, calls, double.__wrapped__(1)", (8, ["double"], 2),
    ),
    "a sentinel": ("NONE = object(); d = {'x': NONE}", "r = d['x'] is NONE; d['y'] = NONE", "r, d['y'] is NONE", (True, True)),
    "a tuple": ("l = [1]; t = (l, 2); u = t", "l.append(u); same = t is u", "t[0] is l, l[1] is t, same", (True, True, True)),
    "a generator of random numbers": (
        "import random\nr = random.Random(3); held = [r]", "x = r.random()",
        "held[0] is r, r.random() == (q := random.Random(3)).random(), x == random.Random(3).random()",
        (True, False, True),
    ),
    "a deque": ("from collections import deque\nd = deque([1, 2], maxlen=2); e = d", "d.append(3)", "list(e), e.maxlen", ([2, 3], 2)),
    "a defaultdict": (
        "from collections import defaultdict\nd = defaultdict(list); e = d", "d['a'].append(1)",
        "dict(e), e is d, e['b']", ({"a": [1]}, True, []),
    ),
    "an ordered dict": (
        "from collections import OrderedDict\nd = OrderedDict(a=1, b=2); e = d", "d.move_to_end('a')", "list(e), e is d", (["b", "a"], True),
    ),
    "a counter": ("from collections import Counter\nc = Counter('aab'); d = c", "c.update('b')", "d['b'], d is c", (2, True)),
    "a data class": (
        "import dataclasses\n@dataclasses.dataclass\nclass D:\n    x: int\n    l: list = dataclasses.field(default_factory=list)\n"
        "d = D(1); e = d",
        "d.x = 2; d.l.append(1); f = dataclasses.replace(d, x=9)", "e.x, e.l, f, f == D(9, [1]), [x.name for x in dataclasses.fields(f)]",
    ),
    "slots": (
        "class S:\n    __slots__ = ('a', 'b')\ns = S(); s.a = [1]; t = s", "s.a.append(2); s.b = s.a; del s.a",
        "t.b, hasattr(t, 'a'), t is s", ([1, 2], False, True),
    ),
    "a frozen data class with slots": (
        "import dataclasses\n@dataclasses.dataclass(frozen=True, slots=True)\nclass F:\n    l: list\nf = F([1]); g = f",
        "f.l.append(2); h = dataclasses.replace(f)", "g.l, f is g, h == f, h.l is f.l", ([1, 2], True, True, True),
    ),
    "an enumeration": (
        "import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\ne = E.A", "r = e is E.A; other = E.B; E.label = 'x'",
        "r, other is E.B, E(1) is e, E.label", (True, True, True, "x"),
    ),
    "a named tuple": (
        "from collections import namedtuple\nN = namedtuple('N', 'a b'); n = N(1, [2])", "n.b.append(3); m = n._replace(a=5)",
        "n, type(m) is N, m.b is n.b", ((1, [2, 3]), True, True),
    ),
    "a property": (
        "class P:\n    def __init__(self): self._x = 1\n    @property\n    def x(self): return self._x\n    @x.setter\n"
        "    def x(self, v): self._x = v\n    @staticmethod\n    def s(): return 's'\n    @classmethod\n    def c(cls): return cls\np = P()",
        "p.x = 5; r = P.c() is P, P.s()", "p.x, r, P.c() is P", (5, (True, "s"), True),
    ),
    "a generic class": (
        "from typing import Generic, TypeVar\nT = TypeVar('T')\nclass Box(Generic[T]):\n    def __init__(self, x): self.x = x\nb = Box[int](1)",
        "b.x += 1; c = Box[str]('a'); r = Box.__parameters__ == (T,)", "b.x, type(c) is Box, r, Box.__parameters__ == (T,)",
        (2, True, True, True),
    ),
    "a partial": (
        "import functools\nl = []\np = functools.partial(l.append); q = functools.partial(sorted, key=len)", "q.keywords['reverse'] = True",
        "q(['a', 'bb'])", ["bb", "a"],
    ),
    "an iterator": ("import itertools\nc = itertools.count(); d = c", "x = next(c), next(c)", "x, next(d), c is d", ((0, 1), 2, True)),
    "a cell that raises": ("l = [1]", "l.append(2); x = 5; 1 / 0", "l, x", ([1, 2], 5)),
    "an object that is taken out of a list once it has changed": (
        "a = [1]; o = type('O', (), {})(); o.x = 1; l = [[a], o]", "l[0][0].append(2); l[1].x = 2; l.clear()", "a, o.x, l", ([1, 2], 2, []),
    ),
    "numbers of an array in a list": (
        "import array\na = array.array('d', [1, 2]); b = [a]", "a.append(3); r = b[0] is a", "b[0].tolist(), b[0] is a, r", ([1.0, 2.0, 3.0], True, True),
    ),
    "a file in memory, in a list": (
        "import io\nf = io.StringIO(); g = io.BytesIO(b'x'); h = [f, g]", "f.write('ab'); g.seek(0, 2); g.write(b'y'); r = h[1] is g",
        "f.write('c'), h[0].getvalue(), h[1].getvalue(), h[0] is f, r", (1, "abc", b"xy", True, True),
    ),
    "a view of memory": (
        "b = bytearray(6); m = memoryview(b)[1:4]; n = m[::-1]", "m[0] = 5; r = b[1], n[2]; n[0] = 7; b[2] = 6", "bytes(b), bytes(m), bytes(n), r",
        (b"\0\5\6\7\0\0", b"\5\6\7", b"\7\6\5", (5, 5)),
    ),
    "a name deleted there": ("x = 1", "del x", "'x' in globals()", False),
    "a name bound to what it was there": ("x = 1", "y = x", "y", 1),
    "inheritance": (
        "class A:\n    def m(self): return 1\nclass B(A):\n    def m(self): return super().m() + 1\nb = B()",
        "A.m = lambda self: 10\nr = b.m()", "r, b.m(), isinstance(b, A)", (11, 11, True),
    ),
    "an abstract class": (
        "import abc\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def m(self): ...\nclass B(A):\n    def m(self): return 1\nb = B()",
        "r = b.m(), isinstance(b, A)\ntry: A()\nexcept TypeError: t = True", "r, t, isinstance(b, A)", ((1, True), True, True),
    ),
    "a descriptor of the class's own": (
        "class V:\n    def __set_name__(self, o, n): self.n = '_' + n\n    def __get__(self, i, o): return getattr(i, self.n, 0)\n"
        "    def __set__(self, i, v): setattr(i, self.n, v + 1)\nclass C:\n    v = V()\nc = C()",
        "c.v = 4", "c.v", 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("known", [False, True], ids=["first seen", "known already"])
@pytest.mark.parametrize("trap", list(TRAPS))
def test_the_far_end_is_as_if_it_were_here(notebook: Notebook, trap: str, known: bool) -> None:
    here, there, look, *expected = TRAPS[trap]
    assert not notebook.here(str(here))
    if known:
        names = ", ".join(name for name in notebook.names if not name.startswith("__"))
        assert not notebook.there(f"_all = ({names})")
    failure = notebook.there(str(there))
    assert failure == ("ZeroDivisionError: division by zero" if "1 / 0" in str(there) else "")
    assert not notebook.cannot
    if expected:
        assert value_of(notebook, str(look)) == expected[0]
    else:
        assert value_of(notebook, str(look))[:2] == (2, [1])


def test_a_change_that_is_taken_back_is_told_through_whatever_name(notebook: Notebook) -> None:
    notebook.here("a = [1]; c = {'k': a}")
    assert not notebook.there("x = a, c")
    notebook.here("a.append(2)")
    assert not notebook.there("x = len(a)")
    notebook.here("a.pop()")
    assert not notebook.there("r = list(c['k']); c['k'].append(3)")
    assert value_of(notebook, "r, a, c['k'] is a") == ([1], [1, 3], True)
    notebook.here("a[:] = [1, 3, 4]")
    assert not notebook.there("x = len(c)")
    notebook.here("a.pop()")
    assert not notebook.there("r = list(a)")
    assert notebook["r"] == [1, 3]


def test_what_changes_here_is_new_there(notebook: Notebook) -> None:
    notebook.there("def f(): return level")
    notebook.here("level = 1")
    assert not notebook.there("r = f()")
    assert notebook["r"] == 1
    notebook.here("level = 2")
    assert not notebook.there("r = f()")
    assert notebook["r"] == 2
    notebook.here("class P: made = 0\np = P()")
    notebook.there("q = P()")
    notebook.here("P.made = 99; del level")
    assert not notebook.there("r = q.made")
    assert notebook["r"] == 99
    assert notebook.there("r = f()") == "NameError: name 'level' is not defined"


def test_a_value_here_is_not_set_back_by_an_older_one_there(notebook: Notebook) -> None:
    notebook.here("x = 1; a = [1]; b = [a]; s0 = {1}")
    notebook.there("y = x, a, b")
    notebook.here("x = 2; a.append(2); a = [3]")
    assert not notebook.there("z = 1")
    assert value_of(notebook, "x, a, b") == (2, [3], [[1, 2]])
    assert not notebook.there("x = 1; r = b[0]")
    assert value_of(notebook, "x, r is b[0], r") == (1, True, [1, 2])
