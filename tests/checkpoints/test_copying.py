"""Copies of weights: the same values as ``Tensor.to``, and every value that is not finite is seen."""

import itertools
import math

import pytest
import torch

from birefnet_core.checkpoints import copying, file_data
from birefnet_core.checkpoints.copying import copy_weights
from birefnet_core.checkpoints.io import open_file, write_safetensors

TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
LARGE = file_data.PART // 2 + 3


@pytest.fixture(params=["with madvise", "without"], autouse=True)
def kernel(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setattr(file_data, "_madvise", None)


@pytest.mark.parametrize(("source", "target"), list(itertools.product(TYPES, TYPES)))
def test_copies_are_those_of_torch(source, target):
    x = torch.randn(LARGE, generator=torch.Generator().manual_seed(0))
    weights = {
        "large": x.to(source),
        "transposed": x[:1200].view(30, 40).t().to(source),
        "empty": x[:0].to(source),
        "one": x[5].to(source),
        "odd address": x[:101].to(source)[1:],
        "expanded": x[:4].to(source).view(4, 1).expand(4, 3),
        "parameter": torch.nn.Parameter(x[:7].to(source)),
    }
    copies, magnitudes = copy_weights(weights, dict.fromkeys(weights, target))
    for name, value in weights.items():
        assert magnitudes[name] == (float(value.detach().float().abs().max()) if value.numel() else 0)
    assert list(copies) == list(weights)
    for name, value in weights.items():
        assert copies[name].dtype == target
        assert torch.equal(copies[name], value.detach().to(target))
        assert copies[name].untyped_storage().data_ptr() != value.untyped_storage().data_ptr() or not value.numel()
        assert not copies[name].requires_grad


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["x.pth", "old.pth", "x.safetensors", None])
def test_one_number_of_a_larger_tensor(tmp_path, dtype, name):
    """It is contiguous whatever its strides are, but not to ``Tensor.view(dtype)``."""
    weights = {"bb.a": torch.arange(4).to(dtype)[2::4], "bb.b": torch.ones(6, 1, dtype=dtype)[::3][:0]}
    files = []
    if name == "x.safetensors":
        write_safetensors(tmp_path / name, weights, {})
    elif name:
        torch.save(weights, tmp_path / name, _use_new_zipfile_serialization=name != "old.pth")
    if name:
        file = open_file(tmp_path / name)
        assert all(torch.equal(file.tensors[key], value) for key, value in weights.items())
        weights, files = file.tensors, file.files
    copies, magnitudes = copy_weights(weights, dict.fromkeys(weights, torch.float32), files)
    assert copies["bb.a"].tolist() == [2]
    assert copies["bb.b"].shape == (0, 1)
    assert magnitudes == {"bb.a": 2, "bb.b": 0}


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_positions_and_counts_are_copied(dtype):
    value = torch.tensor([[0, 1], [1, 1]]).to(dtype)
    copies, magnitudes = copy_weights({"index": value}, {"index": dtype})
    assert torch.equal(copies["index"], value)
    assert magnitudes == {"index": 1}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -float("nan")])
@pytest.mark.parametrize("place", [0, 70_000, LARGE - 1])
def test_every_value_is_looked_at(dtype, value, place):
    weights = {"good": torch.full((LARGE,), torch.finfo(dtype).max if dtype != torch.float64 else 3e38, dtype=dtype)}
    weights["bad"] = torch.zeros(LARGE, dtype=dtype)
    weights["bad"][place] = value
    _, magnitudes = copy_weights(weights, dict.fromkeys(weights, torch.float32))
    assert math.isfinite(magnitudes["good"])
    assert not math.isfinite(magnitudes["bad"])


@pytest.mark.parametrize(
    ("least", "found"),
    [(1, "^5"), (LARGE, f"^({LARGE + 2}|{LARGE + 4})")],  # large ones are taken at the same time
    ids=["small", "large"],
)
def test_faults_of_a_thread_are_raised(monkeypatch, least, found):
    def fail(value):
        raise ArithmeticError(f"{value.numel()} numbers")

    monkeypatch.setattr(copying, "largest_magnitude", fail)
    weights = {"smaller": torch.ones(least + 2), "larger": torch.ones(least + 4)}
    with pytest.raises(ArithmeticError, match=f"{found} numbers"):
        copy_weights(weights, dict.fromkeys(weights, torch.float32))


def test_a_type_for_every_weight():
    with pytest.raises(KeyError, match="missing"):
        copy_weights({"missing": torch.ones(3)}, {})


def test_one_processor(monkeypatch):
    monkeypatch.setattr(copying.os, "cpu_count", lambda: None)
    copies, _ = copy_weights({"x": torch.ones(3)}, {"x": torch.float16})
    assert copies["x"].dtype == torch.float16


@pytest.mark.parametrize("target", TYPES)
def test_copies_are_plain_tensors_in_inference_mode_too(target):
    weights = {"x": torch.ones(LARGE), "y": torch.ones(3, dtype=torch.float16)}
    with torch.inference_mode():
        weights["z"] = torch.ones(5)
        copies, _ = copy_weights(weights, dict.fromkeys(weights, target))
    assert all(torch.equal(copies[name], value.to(target)) for name, value in weights.items())
    assert not any(copy.is_inference() for copy in copies.values())


def test_copies_lie_on_the_cpu_whatever_the_default_device():
    torch.set_default_device("meta")
    try:
        copies, _ = copy_weights({"x": torch.ones(3, device="cpu")}, {"x": torch.float16})
    finally:
        torch.set_default_device(None)
    assert copies["x"].tolist() == [1, 1, 1]
