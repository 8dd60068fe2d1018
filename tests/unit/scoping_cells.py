"""Cells, and which names they touch: what `test_scoping` looks at, and runs where plain Python can.

In the namespace where a cell runs, each single small letter is a `Thing`, and each capital one an exception.
"""

from __future__ import annotations

from typing import NamedTuple


class Cell(NamedTuple):
    """A cell, and what it touches; names that it reads for certain are marked by an exclamation mark.

    Attributes:
        source: as the user wrote it, if IPython has nothing to do; else as IPython made it of `typed`.
        reads: whose value from before could be read, names of things only.
        binds: that could be bound.
        deletes: that could be deleted.
        says: `opaque`, `star`, `evaluates`.
        since: the first minor version of Python 3 that reads it.
        typed: what the user wrote.
        within: if given, what else there is than these names does not count.
    """

    source: str
    reads: str = ""
    binds: str = ""
    deletes: str = ""
    says: str = ""
    since: int = 10
    typed: str = ""
    within: str = ""


CELLS = {
    # order
    "bound before it is read": Cell("x = 5\nx + y", "y!", "x"),
    "read before it is bound": Cell("y = x\nx = 5", "x!", "x y"),
    "read and bound": Cell("x = x + 1", "x!", "x"),
    "augmented": Cell("x += 1; y.a += 1; z[0] += k", "x! y! z! k!", "x"),
    "chained and unpacked": Cell("x = (y, *z), w = a", "a!", "x y z w"),
    "function reads what is bound later": Cell("def f(): return x\nx = 5", "x", "f x"),
    "function reads what is bound before": Cell("x = 5\ndef f(): return x + y\nf()", "y", "x f"),
    "function binds before the cell reads": Cell("def f():\n global x\n x = 1\nf()\nx", "x", "f x"),
    "bound on one way": Cell("if a:\n x = 1\nx", "a! x", "x"),
    "bound on both ways": Cell("if a:\n x = 1\nelse:\n x = 2\nx", "a!", "x"),
    "read on one way": Cell("x if a else y", "a! x y"),
    "shortcut": Cell("a and b", "a! b"),
    "never comes there": Cell("raise A\nx", "A"),
    "exits": Cell("if a:\n raise A\nx", "a! A x!"),
    # deletion
    "del": Cell("del x", "", "", "x"),
    "del of what was bound": Cell("x = y\ndel x", "y!", "x", "x"),
    "del of an item": Cell("del x[y], z.a", "x! y! z!"),
    "read after del": Cell("del x\ntry:\n x\nexcept NameError: pass", "", "", "x"),
    "del in a function": Cell("def f():\n global x\n del x\nf()", "", "f", "x"),
    # loops
    "for": Cell("for i in x:\n y(i)\nelse:\n z", "x! y z!", "i"),
    "name after the loop": Cell("for i in x: pass\ni", "x! i", "i"),
    "while": Cell("while True:\n x\n break", "x!"),
    "while reads what it binds": Cell("while a:\n x\n x = 1\n a = 0", "a! x", "x a"),
    "break before": Cell("for i in a:\n if i: break\n x = 1\nelse:\n x = 2\nx", "a! x", "i x"),
    # exceptions
    "except as": Cell("try:\n raise A\nexcept A as e:\n e\ne = 1\ne", "A!", "e", "e"),
    "except as unbinds": Cell(
        "try:\n raise A\nexcept A as e: pass\ntry:\n e\nexcept NameError: pass", "A!", "e", "e"),
    "bound in try": Cell("try:\n f()\n x = 1\nexcept A: pass\nx", "f A x", "x"),
    "bound in try and handler": Cell("try:\n x = f()\nexcept A:\n x = 1\nx", "f A", "x"),
    "finally": Cell("try:\n x = 1\nfinally:\n y\nx", "y!", "x"),
    "finally may come first": Cell("try:\n f()\n x = 1\nfinally:\n x", "f! x", "x"),
    "except star": Cell("try:\n raise A\nexcept* A as e:\n x", "A! x", "e", "e", since=11),
    "with": Cell("with a as b, c:\n b; d", "a! c d", "b"),
    "with may swallow": Cell("with a:\n x = 1\nx", "a! x", "x"),
    "assert": Cell("assert a, b", "a! b"),
    # comprehensions
    "comprehension": Cell("y = [f(v, w) for v in x if v]\ny", "x! f w", "y"),
    "its variable is its own": Cell("v = 1\n[v for v in x]; {v: v for v in x}; {v for v in x}", "x!", "v"),
    "outer variable of that name": Cell("[v for v in x]\nv", "x! v!"),
    "iterable of that name": Cell("[x for x in x]", "x!"),
    "nested comprehension": Cell("[[a(i, j) for j in i] for i in x]", "x! a"),
    "walrus in a comprehension": Cell("[(y := v) for v in x]\ny", "x! y", "y"),
    "generator": Cell("g = (f(v) for v in x)\nlist(g)", "x! f", "g"),
    "comprehension after its name": Cell("f = 1\n[f for v in x]", "x!", "f"),
    # functions and classes
    "walrus": Cell("if (n := x): n", "x!", "n"),
    "walrus in a condition": Cell("a and (n := x)\nn", "a! x n", "n"),
    "defaults and decorators": Cell("@d\ndef f(p=x, *, k=y): return p, k, z", "d! x! y! z", "f"),
    "lambda": Cell("f = lambda p, q=x: p + q + y\nf(1)", "x! y", "f"),
    "locals are no globals": Cell("def f(x):\n y = x\n return y\nf(1)", "", "f"),
    "global": Cell("def f():\n global x, y\n x = y\nf()", "y", "f x"),
    "global read after bound": Cell("def f():\n global x\n x = 1\n return x\nf()", "", "f x"),
    "nonlocal": Cell("def f():\n x = 1\n def g():\n  nonlocal x\n  x += z\n g()\nf()", "z", "f"),
    "global of an inner function": Cell("def f():\n def g():\n  global x\n  x = y\n g()\nf()", "y", "f x"),
    "recursion": Cell("def f(n, p=1): return n and f(n - 1)\nf(2)", "", "f"),
    "recursion of what is decorated": Cell("@d\ndef f(n): return f", "d! f", "f"),
    "class that names itself": Cell("class C:\n def m(self): return C", "C", "C"),
    "generator function": Cell("def f():\n yield x\n yield from y\nlist(f())", "x y", "f"),
    "class": Cell("class C(B):\n a = x\n def m(self): return y, a", "B! x y a", "C"),
    "class's own name": Cell(
        "class C:\n x = 1\n y = x\n @property\n def z(self): return 1\n @z.setter\n def z(self, v): pass",
        "", "C"),
    "class's own name deleted": Cell("class C:\n x = 1\n del x\n y = x", "x", "C"),
    "class's own name in a method": Cell("class C:\n x = 1\n def m(self): return x\nC().m()", "x", "C"),
    "class keyword": Cell("class C(metaclass=type, **{}): pass\nc = C", "", "C c"),
    "class with a global": Cell("class C:\n global x\n x = y", "y", "C x"),
    "comprehension in a class": Cell("class C:\n y = [x for _ in range(2)]", "x", "C"),
    "nested class": Cell("class C:\n class D:\n  y = x", "x", "C"),
    "private name": Cell("class C:\n def m(self): return __x\n", "_C__x", "C"),
    "super": Cell("class C:\n def m(self): return super().m", "", "C"),
    # the rest of the syntax
    "f-string": Cell("f'{x!r:>{w}} {y:{f\"{z}\"}}'", "x! w! y! z!"),
    "f-string that holds a function": Cell("f'{(lambda: x)()}'", "x"),
    "string is no code": Cell("x = 'x {y} $z @w'", "", "x"),
    "match": Cell("match x:\n case {'k': v, **r}: v\n case [p, *q] if y: p\n case c: c", "x! y", "v r p q c"),
    "match a value": Cell("import math as m\nmatch x:\n case m.pi | str(): z\n case _: w", "x! z w", "m"),
    "slices and stars": Cell("f(*a, **{}, k=b)[c:d, ...]", "f! a! b! c! d!"),
    "annotation": Cell("x: a = y\nz: b", "a! b! y! __annotations__", "x __annotations__"),
    "annotated function": Cell("def f(p: a, *q: b) -> c: r: d = 1\nf(1)", "a! b! c!", "f"),
    "annotations not evaluated": Cell("from __future__ import annotations\ndef f(p: a) -> b: pass\nf(1)", "",
        "annotations f"),
    "star import": Cell("from math import *\npi + x", "pi x", "", "", "star"),
    "imports": Cell("import os.path, json as j\nfrom math import pi as p\nos, j, p", "", "os j p"),
    "type parameters": Cell("def f[T: a](p: T, q: b) -> T: return x\nf(1, 2)", "a b x", "f", since=12),
    "type parameters of a class": Cell("class C[T](B):\n y: a = x\n z = y", "B a x", "C", since=12),
    "type alias": Cell("type T[U] = dict[U, x]\nT.__value__", "x", "T", since=12),
    "many names": Cell("; ".join(f"n{i} = {i}" for i in range(300)) + "\nfor i in x: n299; n0\nn1, i", "x! i",
        " ".join(f"n{i}" for i in range(300)) + " i"),
    # await
    "await": Cell("y = await x\ny", "x!", "y"),
    "async for": Cell("async for i in x:\n y(i)\n", "x! y", "i"),
    "async with": Cell("async with a as b:\n c", "a! c", "b"),
    "async comprehension": Cell("y = [v async for v in x]", "x!", "y"),
    "async function": Cell("async def f(): return await x\nawait f()", "x", "f"),
    # code in strings
    "eval of a constant": Cell("eval('x + y')", "x y"),
    "exec of a constant": Cell("exec('x = y; del z')\nx", "y x", "x", "z"),
    "exec in a namespace": Cell("exec('x = y', a)", "y a!", "x"),
    "eval of anything": Cell("eval(x)", "x", says="opaque"),
    "eval of a text put together": Cell("eval('x' + y)", "y", says="opaque"),
    "exec kept": Cell("e = exec", "", "e", says="opaque"),
    "globals": Cell("globals()['x'] = 1", says="opaque"),
    "locals at the top": Cell("locals()['x']", says="opaque"),
    "locals of a function": Cell("def f(): return locals(), vars(), dir()\nf()", "", "f"),
    "vars and dir of an object": Cell("vars(x); dir(y)", "x! y!"),
    "vars of all": Cell("vars()", says="opaque"),
    "main imported": Cell("import __main__", "", "__main__", says="opaque"),
    "main by name": Cell("import sys\nsys.modules['__main__']", "", "sys", says="opaque"),
    "main asked for": Cell("if __name__ == '__main__':\n x", "x"),
    "frames": Cell("import sys\nsys._getframe().f_globals", "", "sys", says="opaque"),
    "model.eval": Cell("x.eval(); print('y')", "x!", within="x y"),
    # pandas, IPython
    "query": Cell("x.query('a > @y and b < 1')", "x! y", says="evaluates", within="x y"),
    "shell": Cell("get_ipython().system('echo {x} {y[\"a\"]} $z a')", "x y z", typed="!echo {x} {y[\"a\"]} $z a",
        within="x y z"),
    "shell's output": Cell("k = get_ipython().getoutput('ls $x')", "x", "k", typed="k = !ls $x"),
    "shell in a loop": Cell(
        "for i in x:\n    get_ipython().system('echo {i}')", "x!", "i", typed="for i in x:\n    !echo {i}"),
    "%time": Cell("get_ipython().run_line_magic('time', 'y = f(x.a)')", "f x", "y", typed="%time y = f(x.a)"),
    "%timeit with options": Cell("r = get_ipython().run_line_magic('timeit', '-n 10 -r3 -o f(x)')", "f x", "r",
        typed="r = %timeit -n 10 -r3 -o f(x)", within="f x"),
    "%cd": Cell("get_ipython().run_line_magic('cd', '{x}')", "x", "x", typed="%cd {x}"),
    "x?": Cell("get_ipython().run_line_magic('pinfo', 'x')", "x", "x", typed="x?"),
    "%who": Cell("get_ipython().run_line_magic('who', '')", says="opaque", typed="%who"),
    "%run": Cell("get_ipython().run_line_magic('run', 'a.py')", says="star", typed="%run a.py", within="x"),
    "%%time": Cell(
        "get_ipython().run_cell_magic('time', '', 'y = 1\\nf(y, x)\\n')", "f x", "y", typed="%%time\ny = 1\nf(y, x)\n"),
    "%%capture": Cell("get_ipython().run_cell_magic('capture', 'out', 'print(x)\\n')", "x", "out",
        typed="%%capture out\nprint(x)\n", within="x"),
    "%%bash": Cell(
        "get_ipython().run_cell_magic('bash', '-s {x}', 'echo y\\n')", "x s", "x s", typed="%%bash -s {x}\necho y\n"),
    "%%unknown": Cell("get_ipython().run_cell_magic('sql', '', 'select :x from {y}\\n')", "x y",
        typed="%%sql\nselect :x from {y}\n", within="x y"),
    "magic in a magic": Cell("get_ipython().run_cell_magic('time', '', '!echo {x}\\n%time y\\n')", "x y",
        typed="%%time\n!echo {x}\n%time y\n"),
    "shell's namespace": Cell("get_ipython().user_ns['x']", says="opaque"),
    "the shell itself": Cell("s = get_ipython()", "", "s", says="opaque"),
    "magic that is made": Cell("get_ipython().run_line_magic(n, x)", "n x", says="opaque"),
}  # fmt: skip
