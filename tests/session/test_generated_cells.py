"""Generated notebooks: whatever runs here and whatever runs there, all is as if everything had run here."""

# ruff: noqa: E501 - cells stand in one line each

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .generated import Cell, cells, run_both_ways
from .notebook import Process

IMPORTS = "import random, functools\nfrom collections import deque, OrderedDict, defaultdict"
LISTS = [
    "{l} = [{i}, 2]", "{l} = {l2}", "{l}.append({l2})", "{l}.append({d})", "{l} += [{i}]", "{l} = {l} + [3]",
    "{l}.pop()", "{l}[0] = {d}", "{l}.clear()", "{l} = [{l2}, {l2}, {o}]", "{l} = [x for x in {l2}]", "{l}[:] = [{t}, {f}]",
    "{l} *= 2", "{l} = {d}.get('a', {l2})", "{l}.append({o}.v)", "del {l}[0]", "{l}.append({C})", "{l} = list({q})",
    "for k in {l}:\n    {l2}.append(k)\n    if len({l2}) > 5: break", "{l} = [[] for _ in range(3)]; {l2} = {l}[1]",
]  # fmt: skip
DICTS = [
    "{d} = {{}}", "{d} = {d2}", "{d}['a'] = {l}", "{d}['b'] = {o}", "{d}.update({d2})", "{d}.pop('a', None)",
    "{d}['self'] = {d}", "{d} = {{'f': {f}, 'l': {l}}}", "{d}['t'] = {t}", "{d} = OrderedDict(a={l}, b={i})",
    "{d} = defaultdict(list, a={l}); {d}['z'].append(1)",
    "{d}.setdefault('n', []).append({i})", "{d} |= {{'z': {l}}}", "{d} = dict(vars({o}))", "{d}['C'] = {C}", "{d}.clear()",
]  # fmt: skip
OTHERS = [
    "{s} = {{{i}}}", "{s}.add({i})", "{s} |= {{5, 6}}", "{s} = {s2}", "{s} = set()", "{i} = len({s})",
    "{t} = ({l}, {i}, {d})", "{t} = ({t2}, {o})", "{t} = {t2}", "{t}[0].append(7)",
    "{q} = deque([{i}, {l}], maxlen=3)", "{q}.append({d})", "{q} = {q2}", "{q}.rotate()",
    "{r} = random.Random({i})", "{i} = {r}.randrange(100)", "{r} = {r2}", "{l}.append({r})",
]  # fmt: skip
NUMBERS = [
    "{i} = 1", "{i} += 1", "{i} = len({l})", "{i} = {f}()", "{i} = {i2}", "{i} = {o}.m()", "{i} = {C}.n",
    "{i} = {l} is {l2}", "{i} = {l}[0] is {d}", "{i} = isinstance({o}, {C})", "{i} = {o}.v is {l}",
    "{i} = {d}.get('a') is {l}", "exec('{i} = 7')", "globals()['{i}'] = 3", "{i} = {t}[0] is {l}",
    "{i} = {i2} if {d} == {d2} else 0", "{i} = type({o}) is {C}", "{i} = {f2}()",
]  # fmt: skip
FUNCTIONS = [
    "def {f}():\n    global {i}\n    {i} += 1\n    return {i}",
    "def {f}():\n    {l}.append({i})\n    return len({l})",
    "def {f}(x=[]):\n    x.append(1)\n    return len(x)",
    "def {f}():\n    return {g}() + 1",
    "def {g}(y={l}):\n    y.append(0)\n    return {i}",
    "def {f}():\n    global {l}\n    {l} = [{i}]\n    return 5",
    "def {f}():\n    global {d}\n    del {d}\n    return 6",
    "def mk():\n    n = 0\n    def inc():\n        nonlocal n\n        n += 1\n        return n\n    return inc\n{f} = mk()",
    "def pair():\n    n = [0]\n    def up():\n        n.append(1)\n        return len(n)\n    def down():\n        nonlocal n\n"
    "        n = n[1:]\n        return len(n)\n    return up, down\n{f}, {g} = pair()",
    "{f} = {f2}", "{f}.mark = {l}", "{f}()", "{f} = lambda: {i} + len({l})", "{f} = functools.partial(len, {l})",
    "@functools.lru_cache\ndef {g}(n=3):\n    return n if n < 2 else {g}(n - 1) + {g}(n - 2)",
    "{f}.__defaults__ = ([{i}],)",
]  # fmt: skip
CLASSES = [
    "class {C}:\n    n = 0\n    def __init__(self):\n        {C}.n += 1\n        self.v = {l}\n    def m(self):\n"
    "        self.v.append({i})\n        return len(self.v)",
    "class {C}:\n    n = 1\n    seen = []\n    def __init__(self):\n        self.seen.append(1)\n        self.v = [{i}]\n"
    "    def m(self):\n        self.n += 1\n        return self.n",
    "class {D}({B}):\n    def m(self):\n        return super().m() + 10",
    "{C}.n = {i}", "{C}.k = {l}", "{o} = {C}()", "{o}.v = {d}", "{o}.m()", "{o} = {o2}", "{o}.w = {o2}", "del {o}.v",
    "{l}.append({o})", "{C}.m = {f}", "{o}.f = {f}", "class {E}(ValueError):\n    def __init__(self, a, b):\n        super().__init__(a)\n        self.b = b",
    "try:\n    raise {E}({i}, {l})\nexcept {E} as error:\n    {x} = error", "{x}.b = {d}", "raise {x}", "del {C}.n",
    "{o}.__class__ = {C}", "{x} = ValueError({l})", "{o} = {C}.__new__({C})", "{l}.append({o}.m)",
]  # fmt: skip
ENDS = [
    "del {l}",
    "del {d}, {o}",
    "1 / 0",
    "raise ValueError({i})",
    "del {f}",
    "del {C}",
    "assert {i}, {l}",
    "del {t}",
]
ALL = LISTS + DICTS + OTHERS + NUMBERS + FUNCTIONS + CLASSES + ENDS
POOL = {
    **{kind: [f"{kind}{n}" for n in range(3)] for kind in "ldstiorqx"},
    "f": ["f0", "f1"], "g": ["g0"], "C": ["C0", "C1"], "B": ["C0"], "D": ["C1"], "E": ["E0"],
}  # fmt: skip
FIRST = (
    f"{IMPORTS}\nl0 = [1]; l1 = l0; l2 = [l0]; d0 = {{}}; d1 = {{'a': l0}}; d2 = d1; s0 = {{1}}; s1 = s0; s2 = set()\n"
    "t0 = (l0, 1); t1 = t0; t2 = (); i0 = 1; i1 = 2; i2 = 3; r0 = random.Random(0); r1 = r0; r2 = random.Random(1)\n"
    "q0 = deque(); q1 = q0; q2 = deque([l0])\nx0 = x1 = x2 = ValueError()\n"
    "def g0(): return 1\ndef f0(): return len(l0)\nf1 = f0\n"
    "class C0:\n    n = 0\n    def __init__(self): self.v = [0]\n    def m(self): return len(self.v)\n"
    "class C1(C0): pass\nclass E0(ValueError): pass\no0 = C0(); o1 = o0; o2 = C1()"
)


@pytest.mark.timeout(1800)  # of a deep run
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(notebook=st.lists(cells(ALL, POOL), min_size=1, max_size=8), begun=st.booleans())
def test_notebooks_are_as_if_all_ran_here(process: Process, notebook: list[Cell], begun: bool) -> None:
    first = [(False, FIRST), (begun, "i0 = l0, d0, f0, C0" if begun else "i0 = 1")]
    run_both_ways(process, [*first, *notebook], plain=_plain)


def _plain(text: str) -> str:
    return text.split(" at 0x")[0]
