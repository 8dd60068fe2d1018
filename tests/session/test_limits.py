"""What goes wrong, what stays where it is, and what goes: nothing is in anybody's way, nothing is held on to."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from remote_exec.session.mirror import Mirror
from remote_exec.session.updates import NotLoaded, OutOfStep

from .notebook import Notebook, value_of

BREAKS_THERE = """
class Breaks:
    def __init__(self, x): self.x = x
    def __reduce__(self): return rebuilt, (self.x,)
def rebuilt(x):
    import os
    if ('FAR_END' not in os.environ) == {here}: raise ValueError('not in this place')
    made = Breaks.__new__(Breaks)
    made.x = x
    return made
"""


def test_what_cannot_be_loaded_there_is_in_nobodys_way(notebook: Notebook) -> None:
    notebook.here(BREAKS_THERE.format(here=False))
    notebook.here("ok = [1]; b = Breaks(ok); c = [b, ok]; alias = ok; unused = {'b': b}")
    assert not notebook.there("ok.append(2); r = repr(b), repr(c); fine = alias is ok")
    assert value_of(notebook, "ok, alias is ok, c[1] is ok, b.x is ok, fine") == (
        [1, 2],
        True,
        True,
        True,
        True,
    )
    assert all("ValueError: not in this place" in text and "<remote" in text for text in notebook["r"])
    assert not notebook.there("r2 = repr(b)")
    assert notebook["r2"] == notebook["r"][0]
    assert set(notebook.reached("b, ok").cannot) == {"b"}  # a cell that needs it can be told before it runs
    notebook.here("b = 3; c.pop(0)")
    assert not notebook.there("r = b, c is not ok and c[0] is ok")
    assert notebook["r"] == (3, True)


def test_what_cannot_be_loaded_here_stays_there(notebook: Notebook) -> None:
    notebook.here("old = [0]; alias = old")
    notebook.there(BREAKS_THERE.format(here=True))
    assert not notebook.there("b = Breaks(5); old.append(b.x); held = [b]; good = [old]")
    assert value_of(notebook, "alias, alias is old, good[0] is old") == ([0, 5], True, True)
    assert "not in this place" in repr(notebook["b"])
    assert "not in this place" in repr(notebook["held"])
    assert not notebook.there("r = b.x, held[0] is b")
    assert notebook["r"] == (5, True)
    notebook.here("copy = b; del b")
    assert not notebook.there("r = copy is held[0]")
    assert notebook["r"]


def test_a_module_that_is_missing_there(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "only_here_now.py").write_text("class Thing:\n    x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    notebook.here(
        "import only_here_now as m\nthing = m.Thing(); l = [1]\ndef f():\n    return 0 if l else m.Thing"
    )
    assert not notebook.there("l.append(2); r = repr(thing), f()")
    assert notebook["l"] == [1, 2]
    assert "'only_here_now' is missing there" in notebook["r"][0]
    assert notebook["r"][1] == 0


def test_what_has_no_pickle_stays_there_and_works_there(notebook: Notebook) -> None:
    assert not notebook.there("import threading\nlock = threading.Lock(); g = (x for x in [1, 2]); n = 1")
    assert set(notebook.cannot) == {"lock", "g"}
    assert notebook["n"] == 1
    assert repr(notebook["lock"]).startswith("<remote lock: <unlocked")
    notebook.here("other = lock")
    assert not notebook.there("r = next(g), other is lock")
    assert notebook["r"] == (1, True)
    assert notebook.process.ask("kept") == 2
    notebook.here("del lock, other, g")
    notebook.there("n = 2")
    gc.collect()
    notebook.there("n = 3")
    assert notebook.process.ask("kept") == 0


def test_what_is_too_large_stays_there(notebook: Notebook) -> None:
    pytest.importorskip("numpy")
    notebook.most_bytes = 1 << 20
    notebook.here(
        "import numpy as np\nmine = np.zeros(1_000_000)"
    )  # what comes from here may be as large as it likes
    assert not notebook.there(
        "big = np.ones(1_000_000); nest = [list(range(400_000)), 'x']; small = big[:10].copy(); s = mine.sum()"
    )
    assert "it is large" in repr(notebook["big"])
    assert "it is large" in repr(notebook["nest"])
    assert notebook.came < 100_000
    assert not notebook.there("r = big.sum(), len(nest[0])")
    assert notebook["r"] == (1_000_000, 400_000)


def test_a_failed_load_changes_nothing(notebook: Notebook) -> None:
    class Setting:
        def __init__(self) -> None:
            self.x = 1

        def __setstate__(self, state: dict[str, Any]) -> None:
            self.x = state["x"]
            if self.x == 13:
                raise ValueError("bad luck")

    namespace: dict[str, Any] = {}
    near = Mirror(notebook.names, first=0, own=lambda name: name.startswith("__"))
    far = Mirror(namespace, first=1, own=lambda name: name.startswith("__"))
    notebook.names.update(a=[1], s=Setting(), d={"k": 1})
    names = ["a", "s", "d", "n"]
    far.apply(near.update(near.reach(names)))
    a, s = namespace["a"], namespace["s"]
    notebook.names["a"].append(2)
    notebook.names["s"].x = 13
    notebook.names["n"] = 5
    update = near.update(near.reach(names))
    with pytest.raises(NotLoaded) as raised:
        far.apply(update)
    assert "bad luck" in str(raised.value)
    assert (a, s.x, "n" in namespace) == ([1], 1, False)
    near.take_back(raised.value)
    far.apply(near.update(near.reach(names)))
    assert namespace["a"] is a
    assert a == [1, 2]
    assert namespace["n"] == 5
    assert "bad luck" in repr(namespace["s"])
    near.update(near.reach(["a"]))  # and this is lost on its way
    notebook.names["a"].append(3)
    with pytest.raises(OutOfStep):
        far.apply(near.update(near.reach(names)))
    assert a == [1, 2]
    near.forget()
    far.apply(near.update(near.reach(names)))
    assert namespace["a"] == [1, 2, 3]
    assert namespace["d"] == {"k": 1}
    namespace["d"]["z"] = 1
    near.apply(far.update(far.reach(names)))
    assert notebook.names["d"] == {"k": 1, "z": 1}


def test_who_starts_anew_has_the_right_values(notebook: Notebook) -> None:
    notebook.here("class P: made = 1\na = [1]; b = a; p = P(); stale = 1")
    notebook.there("c = [a]; p.x = a; y = stale")
    notebook.here("a.append(2); P.made = 2; stale = 2")
    notebook.mirror.forget()
    assert not notebook.there("r = c[0] is a, p.x is a, b is a, P.made; P.made = 3; a.append(3)")
    assert notebook["r"] == (True, True, True, 2)
    assert value_of(notebook, "a, b is a, c[0] is a, p.x is a, P.made, stale, y, type(p) is P") == (
        ([1, 2, 3], True, True, True, 3, 2, 1, True)
    )


def test_nothing_is_held_on_to(notebook: Notebook) -> None:
    np = pytest.importorskip("numpy")
    notebook.here(
        "import numpy as np\nbig = np.zeros(12_500_000); boxed = {'x': [np.ones(10)]}; keep = [np.ones(5)]"
    )
    assert not notebook.there("s = big.sum() + boxed['x'][0].sum(); made = np.ones(1000)")
    seen = {
        name: weakref.ref(value_of(notebook, name)) for name in ("big", "boxed['x'][0]", "made", "keep[0]")
    }
    for name in ("big", "made"):
        notebook.process.ask("watch", name)
    assert all(ref() is not None for ref in seen.values())
    notebook.here("del big, boxed, made")
    gc.collect()
    assert [name for name, ref in seen.items() if ref() is not None] == ["keep[0]"]
    notebook.there("pass")
    assert not notebook.process.ask("lives", "big")
    assert not notebook.process.ask("lives", "made")
    notebook.there("big = np.zeros(1000)")
    notebook.process.ask("watch", "big")
    ref: Any = weakref.ref(notebook["big"])
    notebook.there("del big")
    gc.collect()
    assert ref() is None
    assert not notebook.process.ask("lives", "big")
    assert isinstance(np.ones(1), np.ndarray)


def test_what_has_another_name_is_not_sent_again(notebook: Notebook) -> None:
    pytest.importorskip("numpy")
    notebook.here("import numpy as np\nbig = np.zeros(1_000_000)")
    assert not notebook.there("s = big.sum()")
    assert notebook.sent > 8_000_000
    notebook.here("same = big; del big")
    assert not notebook.there("s = same.sum()")
    assert notebook.sent < 100_000


def test_tables_do_not_grow(notebook: Notebook) -> None:
    notebook.here("class P: pass\nl = []; d = {}\ndef f(): return [P(), {}]")
    sizes = []
    for turn in range(300):
        notebook.here(f"l = [P() for _ in range(5)]; d['k'] = l; t = (l, {turn})")
        assert not notebook.there("l.append(f()); d['k'] = [1, f()]; x = f(); y = (x, l)\ndef h(): return l")
        sizes.append((notebook.mirror.size, notebook.process.ask("size")))
    assert max(sizes[100:]) <= max(sizes[:100])
    assert max(max(sizes)) < 200
