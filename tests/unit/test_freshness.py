"""A snapshot sees every rebinding that a function sent by value would feel, and says where it cannot see."""

from __future__ import annotations

import datetime
import functools
import math
import sys
import timeit
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from remote_exec.capture.freshness import Snapshot

Notebook = Callable[[str], dict[str, Any]]


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    """Runs cells one after another in one namespace, as ``__main__`` does it."""
    module = ModuleType("__mp_main__")
    before = sys.modules.get("__mp_main__")
    sys.modules["__mp_main__"] = module

    def run(cell: str) -> dict[str, Any]:
        exec(cell, vars(module))
        return vars(module)

    yield run
    if before is None:
        del sys.modules["__mp_main__"]
    else:
        sys.modules["__mp_main__"] = before


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("rate = 1000\ndef f(): return rate", "rate = 2000"),
        ("def f(): return rate", "rate = 1"),
        ("def f(): return max(1, 2)", "def max(*a): return 0"),
        ("rate = 1\ndef f(): return rate", "del rate"),
        ("def g(): return 1\ndef f(): return g()", "def g(): return 2"),
        ("def h(): return 1\ndef g(): return h()\ndef f(): return g()", "def h(): return 2"),
        ("def g(): return 1\ndef f(): return g()", "g.__code__ = (lambda: 2).__code__"),
        ("def f(x=1): return x", "f.__defaults__ = (2,)"),
        ("def f(*, x=1): return x", "f.__kwdefaults__['x'] = 2"),
        ("def f(): return 1", "f.note = 'x'"),
        ("def make():\n x = 1\n def f(): return x\n def put(v):\n  nonlocal x; x = v\n return f, put\n"
         "f, put = make()", "put(2)"),
        ("def make():\n def f(): return x\n def put(v):\n  nonlocal x; x = v\n x = 0\n del x\n"
         " return f, put\nf, put = make()", "put(2)"),
        ("class C:\n def m(self): return 1\ndef f(): return C().m()", "C.m = lambda self: 2"),
        ("class C:\n def m(self): return 1\ndef f(): return C().m()", "C.extra = 2"),
        ("class B: x = 1\nclass C(B): pass\ndef f(): return C.x", "B.x = 2"),
        ("class C:\n @property\n def p(self): return rate\nrate = 1\ndef f(): return C().p", "rate = 2"),
        ("class C:\n @staticmethod\n def s(): return rate\nrate = 1\ndef f(): return C.s()", "rate = 2"),
        ("def f():\n return [rate for _ in range(3)]\nrate = 1", "rate = 2"),
        ("def f():\n class Inner:\n  size = rate\n return Inner\nrate = 1", "rate = 2"),
        ("import functools\ndef g(): return rate\nf = functools.partial(g, 1)\nrate = 1", "rate = 2"),
        ("import functools\n@functools.lru_cache\ndef g(): return rate\ndef f(): return g()\nrate = 1",
         "rate = 2"),
        ("def g(): return rate\nboth = (g, 1)\ndef f(): return both\nrate = 1", "rate = 2"),
        ("import math\ndef f(): return math.pi", "import cmath as math"),
        ("def f(n): return f(n - 1)", "g = f\ndef f(n): return 0\nf, kept = g, f\ng.__globals__['f'] = kept"),
    ],
)  # fmt: skip
def test_a_rebinding_is_seen(notebook: Notebook, first: str, then: str) -> None:
    f = notebook(first)["f"]
    snapshot = Snapshot.of(f)
    assert snapshot.is_current()
    notebook(then)
    assert not snapshot.is_current()


@pytest.mark.parametrize(
    ("code", "mutable"),
    [
        ("xs = [1]\ndef f(): return xs", True),
        ("xs = {}\ndef f(): return xs", True),
        ("xs = (1, [2])\ndef f(): return xs", True),
        ("xs = bytearray(b'')\ndef f(): return xs", True),
        ("class C: pass\nc = C()\ndef f(): return c", True),
        ("class C: seen = []\ndef f(): return C", True),
        ("def f(x=[]): return x", True),
        ("xs = [1]\ndef g(): return xs\ndef f(): return g()", True),
        ("xs = []\npush = xs.append\ndef f(): return push(1)", True),
        ("import types\nm = types.ModuleType('made_here')\ndef f(): return m", True),
        ("def make():\n xs = []\n def f(): return xs\n return f\nf = make()", True),
        ("xs = (1, 'a', frozenset([2]), None, 2.5, b'')\ndef f(): return xs", False),
        ("import math, json, datetime, pathlib, re\nnow = datetime.datetime(2020, 1, 1)\n"
         "here = pathlib.Path('x')\nword = re.compile('x')\n"
         "def f(): return math.pi, json.dumps, now, here, word, print", False),
        ("class C:\n x = 1\n def m(self): return C\ndef f(): return C", False),
        ("import dataclasses\n@dataclasses.dataclass\nclass C:\n x: int = 1\ndef f(c: C) -> C: return C()",
         False),
        ("import abc\nclass C(abc.ABC):\n @abc.abstractmethod\n def m(self): ...\ndef f(): return C", False),
        ("import logging\nlog = logging.getLogger('x')\ndef f(): return log", False),
        ("from typing import Any\ndef f(x: list[int] | None, y: Any) -> dict[str, int]: return {}", False),
        ("def f(n): return f(n - 1) if n else g\ndef g(): return f", False),
    ],
)  # fmt: skip
def test_content_that_can_change_in_place_is_owned_up_to(
    notebook: Notebook, code: str, mutable: bool
) -> None:
    snapshot = Snapshot.of(notebook(code)["f"])
    assert snapshot.mutable is mutable
    assert snapshot.is_current()


def test_what_does_not_matter_to_the_function_leaves_it_current(notebook: Notebook) -> None:
    f = notebook("import math\nrate = 1\nclass C:\n def m(self): return rate\ndef f(): return C, math")["f"]
    snapshot = Snapshot.of(f)
    notebook("other = 1\ndef g(): return 2\nC().m()\nf()")
    assert snapshot.is_current()


def test_code_that_travels_by_reference_is_the_business_of_its_files() -> None:
    snapshot = Snapshot.of(functools.reduce)
    assert snapshot.is_current()
    assert not snapshot.mutable
    assert not Snapshot.of(datetime.timedelta(1)).mutable


def test_the_question_costs_a_microsecond_or_two(notebook: Notebook) -> None:
    f = notebook("import math\nrate = 1\ndef g(x): return x\ndef f(x): return g(math.sin(rate * x))")["f"]
    snapshot = Snapshot.of(f)
    once = min(timeit.repeat(snapshot.is_current, number=2000, repeat=7)) / 2000
    # against a yardstick of the same machine in the same moment: a call of a C function
    yardstick = min(timeit.repeat(lambda: math.sin(1), number=2000, repeat=7)) / 2000
    assert once < 40 * yardstick
