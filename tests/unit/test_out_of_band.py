"""Arrays travel out of band and come back as good as local ones: also those of pandas, Arrow and PyTorch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from remote_exec.serial import pickling

try:
    import torch as _torch
except ModuleNotFoundError:
    _torch = None
torch: Any = _torch
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
BIG = 100_000


def there_and_back(value: Any) -> Any:
    """As over a connection: the buffers arrive in other, writable memory."""
    pickled = pickling.dump(value)
    return pickling.load(pickled.stream, [bytearray(buffer.raw()) for buffer in pickled.buffers])


@needs_torch
@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "bfloat16", "float16", "int64", "int8", "bool", "complex64", "complex128"]
)
@pytest.mark.parametrize("size", [0, 5, BIG])
def test_a_tensor_of_any_type_comes_back_equal_and_writable(dtype: str, size: int) -> None:
    tensor = (torch.arange(size) % 7).to(getattr(torch, dtype))
    back = there_and_back(tensor)
    assert back.dtype == tensor.dtype
    assert torch.equal(back, tensor)
    back += 1 if dtype != "bool" else True
    assert size == 0 or not torch.equal(back, tensor)


@needs_torch
def test_big_tensors_leave_the_pickle_and_small_ones_can_be_resized() -> None:
    pickled = pickling.dump(torch.zeros(BIG))
    assert [buffer.raw().nbytes for buffer in pickled.buffers] == [4 * BIG]
    assert sum(map(len, pickled.stream)) < 1000
    there_and_back(torch.zeros(5)).resize_(10)


@needs_torch
def test_a_pickle_keeps_the_memory_that_it_refers_to() -> None:
    pickled = pickling.dump(torch.ones(BIG))  # nobody else has the tensor
    torch.zeros(BIG)
    assert float(pickling.load(*pickled).sum()) == BIG


@needs_torch
@pytest.mark.parametrize("size", [8, BIG])
def test_views_of_one_storage_stay_views_of_one_storage(size: int) -> None:
    whole = torch.zeros(size)
    back, part, transposed = there_and_back((whole, whole[2:4], whole.reshape(2, -1).t()))
    back[3] = 1
    assert part.tolist() == [0, 1]
    assert float(transposed.sum()) == 1
    assert not whole.sum()


@needs_torch
def test_gradients_parameters_and_modules_are_kept() -> None:
    leaf = torch.ones(BIG, requires_grad=True)
    layer = torch.nn.Linear(300, 300)
    tied = torch.nn.ParameterList([layer.weight, layer.weight])
    back, layer_back, tied_back, parameter = there_and_back(
        (leaf, layer, tied, torch.nn.Parameter(torch.ones(3), requires_grad=False))
    )
    assert back.requires_grad
    (back * 2).sum().backward()
    assert float(back.grad[0]) == 2
    assert type(parameter) is torch.nn.Parameter
    assert not parameter.requires_grad
    assert tied_back[0] is tied_back[1] is layer_back.weight
    torch.optim.SGD(layer_back.parameters(), lr=0.1).step()
    x = torch.ones(2, 300)
    assert torch.equal(layer_back(x), layer(x))


@needs_torch
@pytest.mark.parametrize(
    "make", ["eye(300).to_sparse()", "empty(3, device='meta')", "ones(300, 300).t()[::2]"]
)
def test_other_layouts_are_left_to_pytorch(make: str) -> None:
    tensor = eval(f"torch.{make}", {"torch": torch})  # noqa: S307
    back = there_and_back(tensor)
    assert back.shape == tensor.shape
    assert back.device == tensor.device
    assert back.device.type == "meta" or torch.equal(back.to_dense(), tensor.to_dense())


def test_pickling_imports_no_torch() -> None:
    code = "from remote_exec.serial import pickling as p; p.dump([object()]); import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_frames_leave_the_pickle_and_can_be_worked_on() -> None:
    frame = pd.DataFrame(
        {
            "n": np.arange(BIG),
            "x": np.ones(BIG),
            "kind": pd.Categorical(["a", "b"] * (BIG // 2)),
            "at": pd.date_range("2020", periods=BIG, freq="s"),
            "for": pd.to_timedelta(np.arange(BIG), unit="s"),
        },
        index=pd.date_range("2020", periods=BIG, freq="min", tz="Europe/Berlin"),
    )
    pickled = pickling.dump(frame)
    assert sum(map(len, pickled.stream)) < 10_000
    back = pickling.load(pickled.stream, [bytearray(buffer.raw()) for buffer in pickled.buffers])
    pd.testing.assert_frame_equal(back, frame)
    back.loc[back.index[3], "n"] = 7
    back["at"] += pd.Timedelta("1s")
    back["x"] *= 2
    assert frame["n"].iloc[3] == 3
    assert back["x"].sum() == 2 * BIG


def test_dates_in_any_layout_come_back_equal_and_writable() -> None:
    dates = np.arange(BIG).astype("M8[ms]").reshape(-1, 2)
    for array in (dates, dates.T, dates[::3], np.asfortranarray(dates)):
        back = there_and_back(array)
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)
        back[0, 0] = "2020-01-01"
    assert dates[0, 0] == np.datetime64(0, "ms")


def test_arrow_tables_leave_the_pickle() -> None:
    table = pa.table({"n": np.arange(BIG), "s": ["text"] * BIG})
    pickled = pickling.dump(table)
    assert sum(map(len, pickled.stream)) < 10_000
    assert there_and_back(table).equals(table)
