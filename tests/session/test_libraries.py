"""Arrays, frames, models and their like: changed in place, still shared, and sent again only where they have changed."""

# ruff: noqa: E501 - cells stand in one line each

from __future__ import annotations

from typing import Any

import pytest

from .notebook import Notebook, value_of

MODEL = (
    "import torch\ntorch.manual_seed(0)\n"
    "class Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.first, self.second = torch.nn.Linear(300, 300), torch.nn.Linear(300, 300)\n"
    "        self.second.weight = self.first.weight\n        self.register_buffer('seen', torch.zeros(1))\n"
    "    def forward(self, x):\n        self.seen += 1\n        return self.second(self.first(x))\n"
    "net = Net(); best = torch.optim.Adam(net.parameters()); weight = net.first.weight; x = torch.ones(2, 300)\n"
    "def step():\n    best.zero_grad(); loss = net(x).square().mean(); loss.backward(); best.step(); return loss.item()\n"
    "before = weight.detach().clone(); numbers = weight.detach().numpy(); losses = []\n"
)
SMALL = 20_000  # bytes of an update that brings no data


def test_arrays_change_in_place_and_are_not_sent_again(notebook: Notebook) -> None:
    pytest.importorskip("numpy")
    notebook.here(
        "import numpy as np\nbig = np.arange(3_000_000); held = {'big': big, 'n': 0}; at = big.ctypes.data"
    )
    assert not notebook.there("s = int(big.sum())")
    assert notebook.sent > 24_000_000
    assert not notebook.there("held['n'] += 1; s = held['big'] is big")
    assert notebook["s"]
    assert notebook.sent < SMALL
    assert notebook.came < SMALL
    assert notebook["held"]["n"] == 1
    notebook.here("big[7] = -1")
    assert not notebook.there("v = int(big[7]); big[2_000_000] = -2")
    assert notebook["v"] == -1
    assert value_of(notebook, "int(big[2_000_000]), big is held['big'], big.ctypes.data == at") == (
        -2,
        True,
        True,
    )
    assert notebook.sent < 5_000_000
    assert notebook.came < 5_000_000
    assert not notebook.there("more = big * 2; big.shape = (3, -1)")
    assert value_of(notebook, "big.shape, int(more[7])") == ((3, 1_000_000), -2)
    notebook.here("more[0] = 5; small = np.zeros(3); names = np.array(['a', None], dtype=object)")
    assert not notebook.there("small[1] = 1; names[1] = small; small.flags.writeable = False")
    assert value_of(notebook, "small.tolist(), names[1] is small, small.flags.writeable") == (
        [0, 1, 0],
        True,
        False,
    )


@pytest.mark.parametrize("order", ["C", "F"])
def test_of_a_large_array_only_what_has_changed_travels(notebook: Notebook, order: str) -> None:
    pytest.importorskip("numpy")
    notebook.here(f"import numpy as np\na = np.zeros((4000, 4000), order={order!r}); part = a[::2]; t = a.T")
    notebook.there("a[0, 0] = 1")
    notebook.here("a[3999, 0] = 2")
    assert not notebook.there("a[0, 3999] = 3; s = a.sum()")
    assert notebook["s"] == 6
    assert notebook.sent < 10_000_000
    assert notebook.came < 10_000_000
    assert value_of(notebook, "(a[0, 0], a[3999, 0], a[0, 3999], a.sum(), part[0, 3999], t[0, 0])") == (
        1,
        2,
        3,
        6,
        3,
        1,
    )
    assert not notebook.there("part[0, 1] = 4")
    assert value_of(notebook, "(part[0, 1], a[0, 1], part.sum())") == (4, 4, 8)
    assert not notebook.there("part[0, 2] = 5; x = part.sum()")
    assert value_of(notebook, "(part[0, 2], a[0, 2], x)") == (5, 5, 13)


def test_frames_change_in_place(notebook: Notebook) -> None:
    pytest.importorskip("pandas")
    notebook.here(
        "import pandas as pd, numpy as np\ndf = pd.DataFrame({'a': np.arange(200_000), 's': ['x', 'yy'] * 100_000,"
        " 'f': np.zeros(200_000)}, index=np.arange(200_000) * 2)\nalias = df; where = id(df)"
    )
    assert not notebook.there("n = len(df)")
    assert notebook["n"] == 200_000
    assert not notebook.there("df['b'] = df.a * 2; df.loc[0, 's'] = 'new'")
    assert value_of(
        notebook, "id(df) == where, alias is df, list(df), df.loc[0, 's'], int(df.b.iloc[-1])"
    ) == ((True, True, ["a", "s", "f", "b"], "new", 399_998))
    notebook.there("n = len(df)")
    assert not notebook.there("df['c'] = 1")
    assert value_of(notebook, "list(df), int(df.c.sum())") == (["a", "s", "f", "b", "c"], 200_000)
    assert notebook.came < 3_000_000  # the new column
    assert not notebook.here("df.pop('s'); df.iloc[5, 0] = -1")
    assert not notebook.there("r = list(df), int(df.iloc[5, 0])")
    assert notebook["r"] == (
        ["a", "f", "b", "c"],
        -1,
    )
    assert not notebook.there("r = len(df)")
    assert notebook.sent < SMALL
    assert notebook.came < SMALL
    assert not notebook.there(
        "s = df.a; g = df.groupby('c').f.sum(); dates = pd.date_range('2020', periods=3)"
    )
    assert value_of(notebook, "s.sum() == df.a.sum(), len(g), dates[1].day") == (True, 1, 2)
    notebook.here(
        "df['z'] = 1.0; df.loc[2, 'z'] = 5; s.iloc[0] = 3; more = g * 2"
    )  # all of it can be written


@pytest.mark.parametrize(
    "there",
    [
        "df.iloc[0, 0] = 9; s.iloc[1] = 7",
        "df.iloc[0, 0] = 9",
        "s.iloc[0] = 9",
        "n = df[1:]; n.iloc[0, 0] = 5",
    ],
)
@pytest.mark.parametrize(
    "column",
    [
        "[1.0, 2.0, 3.0]",
        "pd.array([1, 2, None], dtype='Int64')",
        "pd.date_range('2020', periods=3)",
        "['x', 'y', 'z']",
    ],
)
def test_frames_that_share_memory_seem_not_to(notebook: Notebook, column: str, there: str) -> None:
    pytest.importorskip("pandas", minversion="3")
    there = there.replace("9", "df.iloc[2, 0]").replace("7", "df.iloc[0, 0]").replace("5", "df.iloc[0, 0]")
    begin = f"import pandas as pd\ndf = pd.DataFrame({{'a': {column}, 'b': {column}}}); s = df['a']; head = df[:2]\n"
    notebook.here(begin)
    assert not notebook.there(there)
    assert not notebook.here("df.iloc[1, 1] = df.iloc[0, 0]")
    assert not notebook.there("r = [x.copy() for x in (df, s, head)]")
    alone: dict[str, Any] = {}
    exec(f"{begin}{there}\ndf.iloc[1, 1] = df.iloc[0, 0]\nr = [x.copy() for x in (df, s, head)]", alone)
    for name in ("df", "s", "head"):
        assert notebook[name].equals(alone[name]), name
    assert all(ours.equals(theirs) for ours, theirs in zip(notebook["r"], alone["r"], strict=True))


def test_tensors_and_arrays_share_memory(notebook: Notebook) -> None:
    torch = pytest.importorskip("torch")
    notebook.here(
        "import torch, numpy as np\nt = torch.zeros(10); a = np.zeros(6); net = torch.nn.Linear(2, 2)"
    )
    assert not notebook.there(
        "s = t[2:]; n = t.numpy(); u = torch.from_numpy(a)[1:]; s[0] = 1; n[3] = 2; u[0] = 3"
    )
    notebook.here("w = net.weight.data; s[2] = 4; a[2] = 5; part = t[:3]; w.fill_(1)")
    assert not notebook.there(
        "seen = t.tolist(), u.tolist(); part[1] = 6; w[0, 0] = 7; r = n[1], net.weight[0, 0].item()"
    )
    assert value_of(notebook, "t.tolist(), n.tolist() == t.tolist(), s.tolist() == t[2:].tolist()") == (
        [0, 6, 1, 2, 4, 0, 0, 0, 0, 0], True, True,
    )  # fmt: skip
    assert value_of(notebook, "a.tolist(), u.tolist(), r, net.weight.tolist()") == (
        [0, 3, 5, 0, 0, 0], [3, 5, 0, 0, 0], (6, 7), [[7, 1], [1, 1]],
    )  # fmt: skip
    assert notebook["seen"] == ([0, 0, 1, 2, 4, 0, 0, 0, 0, 0], [3, 5, 0, 0, 0])
    assert torch.zeros(1) is not None


def test_a_model_and_its_optimizer_share_parameters(notebook: Notebook) -> None:
    pytest.importorskip("torch")
    notebook.here(MODEL)
    for turn in range(6):
        source = "losses.append(step())"
        assert not (notebook.here(source) if turn % 2 else notebook.there(source))
    alone: dict[str, object] = {}
    exec(MODEL + "for _ in range(6): losses.append(step())", alone)
    assert notebook["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert value_of(
        notebook,
        "net.first.weight is weight, net.second.weight is weight, best.param_groups[0]['params'][0] is weight,"
        " weight in best.state, float(best.state[weight]['step']), bool((weight != before).all()), float(net.seen),"
        " bool((torch.tensor(numbers) == weight).all())",
    ) == (True, True, True, True, 6.0, True, 6.0, True)
    assert not notebook.there("loss = float(net(x).sum())")
    notebook.there("frozen = 1; net.seen += 1")
    assert notebook.came < 60_000  # but for what is small, nothing of the model has changed


def test_generators_of_random_numbers_go_on_in_place(notebook: Notebook) -> None:
    np = pytest.importorskip("numpy")
    notebook.here(
        "import numpy as np\nr = np.random.default_rng(1); old = np.random.RandomState(1); held = [r, old]"
    )
    assert not notebook.there("a = r.random(), old.random_sample()")
    notebook.here("b = r.random(), old.random_sample()")
    assert not notebook.there("c = held[0].random(), held[1].random_sample(); s = held[0] is r")
    new, old = np.random.default_rng(1), np.random.RandomState(1)
    assert notebook["a"] == (new.random(), old.random_sample())
    assert notebook["b"] == (new.random(), old.random_sample())
    assert notebook["c"] == (new.random(), old.random_sample())
    assert notebook["s"]
    assert notebook["held"][0] is notebook["r"]
