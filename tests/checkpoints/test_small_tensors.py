"""Small tensors are read together with those beside them in a file: the same values, and as carefully, as by itself."""

import math
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import birefnet_core as bc
from birefnet_core.checkpoints import copying, file_data
from birefnet_core.checkpoints.copying import copy_weights
from birefnet_core.checkpoints.io import open_file

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
OTHERS = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool)
SMALL = copying._SMALL


def tensors(dtype):
    """Of every size, in an order that mixes them, with negative, zero and empty ones."""
    generator = torch.Generator().manual_seed(1)
    sizes = [1, 3, 700, 0, 5, SMALL, 2, 64, 9, 3000, 1, SMALL // 8, 17, 1, 2048, 31]
    found = {
        f"bb.{i:02}.weight": (torch.randn(size, generator=generator) * 9).to(dtype) for i, size in enumerate(sizes)
    }
    found["bb.scalar.weight"] = torch.tensor(3).to(dtype)
    found["bb.negative.weight"] = torch.full((2, 3), -4.0).to(dtype)
    found["bb.zero.weight"] = torch.zeros(4, dtype=dtype)
    return found


def save(weights, path):
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


def copied(file, target=None):
    return copy_weights(file.tensors, {name: target or value.dtype for name, value in file.tensors.items()}, file.files)


@pytest.fixture(params=["x.safetensors", "x.pth"])
def path(request, tmp_path):
    return tmp_path / request.param


@pytest.fixture
def groups(monkeypatch):
    """How many tensors were read together, each time."""
    found = []
    original = copying._Reader._read_together

    def read(self, data, group):
        found.append(len(group))
        return original(self, data, group)

    monkeypatch.setattr(copying._Reader, "_read_together", read)
    return found


@pytest.mark.parametrize("target", [None, torch.float32, torch.float16])
@pytest.mark.parametrize("dtype", FLOATS + OTHERS)
def test_values_and_magnitudes(path, groups, dtype, target):
    weights = tensors(dtype)
    target = target if dtype in FLOATS else None
    file = open_file(save(weights, path))
    copies, magnitudes = copied(file, target)
    file.verify()
    assert sum(groups) >= 12
    for name, value in weights.items():
        assert torch.equal(copies[name], value.to(target or dtype))
        assert copies[name].shape == value.shape
        assert magnitudes[name] == (float(value.float().abs().max()) if value.numel() else 0)
    addresses = [copy.untyped_storage().data_ptr() for copy in copies.values() if copy.numel()]
    assert len(set(addresses)) == len(addresses)


def test_several_types_in_one_file(path, groups):
    weights = {f"bb.{dtype}.{name}": value for dtype in FLOATS + OTHERS for name, value in tensors(dtype).items()}
    copies, magnitudes = copied(open_file(save(weights, path)))
    assert len(groups) > 5
    for name, value in weights.items():
        assert torch.equal(copies[name], value)
        assert magnitudes[name] == (float(value.float().abs().max()) if value.numel() else 0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(path, groups, dtype, value):
    """In the first number and the last of a tensor, and of the tensors beside it nothing is said."""
    names = [f"bb.{i}.weight" for i in range(6)]
    for at, bad in ((0, 0), (-1, 0), (0, 3), (-1, 3), (-1, 5)):
        weights = {name: torch.full((5,), torch.finfo(torch.float16).max).to(dtype) for name in names}
        weights[names[bad]][at] = value
        _, magnitudes = copied(open_file(save(weights, path)))
        assert [name for name in names if not math.isfinite(magnitudes[name])] == [names[bad]]
    assert groups == [6] * 5


def test_views_and_names_of_one_tensor(tmp_path, groups):
    x = torch.arange(400.0)
    weights = {
        "bb.whole.weight": x,
        "bb.tied.weight": x,
        "bb.part.weight": x[3:9],
        "bb.overlapping.weight": x[5:20],
        "bb.transposed.weight": x.view(20, 20).t(),
        "bb.reversed.weight": torch.view_as_complex(x.view(-1, 2)).conj().imag,
        "bb.other.weight": x + 1,
        "bb.last.weight": x + 2,
    }
    file = open_file(save(weights, tmp_path / "x.pth"))
    copies, magnitudes = copied(file)
    file.verify()
    for name, value in weights.items():
        assert torch.equal(copies[name], value)
        assert magnitudes[name] == float(value.abs().max())
    assert groups


def test_large_tensors_between_are_not_read_along(path, monkeypatch):
    read = []
    original = file_data.FileData.read

    def counted(self, file, start, size, *others):
        read.append(size)
        return original(self, file, start, size, *others)

    monkeypatch.setattr(file_data.FileData, "read", counted)
    weights = {}
    for i in range(8):
        weights[f"bb.{i}.a"] = torch.ones(4)
        weights[f"bb.{i}.b"] = torch.ones(SMALL)
    copies, _ = copied(open_file(save(weights, path)))
    assert all(torch.equal(copies[name], value) for name, value in weights.items())
    assert sum(read) < 1.1 * sum(value.nbytes for value in weights.values())


def test_many_are_read_in_parts(path, groups):
    weights = {f"bb.{i:03}": torch.full((SMALL // 4 - 1,), float(i)) for i in range(60)}
    copies, _ = copied(open_file(save(weights, path)))
    assert all(torch.equal(copies[name], value) for name, value in weights.items())
    assert len(groups) > 3
    assert sum(groups) > 50


def test_damage_of_each_is_found(tmp_path, groups):
    weights = {f"bb.{i}.weight": torch.full((50 + i,), float(i)) for i in range(5)}
    file = save(weights, tmp_path / "x.pth")
    content = file.read_bytes()
    for value in weights.values():
        at = content.find(value.numpy().tobytes())
        changed = bytearray(content)
        changed[at + 120] ^= 1
        file.write_bytes(changed)
        opened = open_file(file)
        with pytest.raises(bc.CheckpointError, match=r"x\.pth: truncated or corrupted \(Bad CRC-32 for file 'x/data/"):
            copied(opened)
    assert groups == [5] * 5


def test_checksums_are_compared_once(tmp_path, monkeypatch):
    file = open_file(save({f"bb.{i}": torch.ones(9) for i in range(9)}, tmp_path / "x.pth"))
    copied(file)
    again = []
    monkeypatch.setattr(file_data.FileData, "_verify", lambda self, left: again.extend(e.filename for e in left))
    file.verify()
    assert not [name for name in again if "/data/" in name]


def test_a_file_without_checksums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        file = save({f"bb.{i}": torch.full((9,), float(i)) for i in range(9)}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(file) as archive:
        assert not any(entry.CRC for entry in archive.infolist() if "/data/" in entry.filename)
    copies, _ = copied(open_file(file))
    assert [copies[f"bb.{i}"].tolist() for i in range(9)] == [[i] * 9 for i in range(9)]


def test_a_file_that_ends_before_them(path):
    weights = {f"bb.{i}": torch.ones(5000) for i in range(9)}
    file = open_file(save(weights, path))
    size = path.stat().st_size
    with open(path, "r+b") as stream:
        stream.truncate(size // 2)
    with pytest.raises(bc.CheckpointError, match=r"x\.\w+: .*truncated"):
        copied(file)
