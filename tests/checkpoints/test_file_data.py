"""Tensors are read from where they lie in a file, and checksums compared on the way where possible."""

import sys
import zipfile

import numpy as np
import pytest
import torch

import birefnet_core as bc
from birefnet_core.checkpoints import file_data
from birefnet_core.checkpoints.copying import copy_weights
from birefnet_core.checkpoints.crc32 import BLOCK
from birefnet_core.checkpoints.io import open_file, read_file
from birefnet_core.checkpoints.pickled import start_loading

COUNT = BLOCK // 4 * 4 + 11


@pytest.fixture
def weights():
    x = torch.arange(float(COUNT))
    return {
        "bb.a.weight": x,
        "bb.b.weight": x.half().view(1, -1),
        "bb.part.weight": x.add(1)[5:90],  # of a larger storage
        "bb.transposed.weight": x[:600].add(2).view(20, 30).t(),
        "bb.small.bias": x[:3].bfloat16(),
    }


@pytest.fixture
def read_again(monkeypatch):
    """Names of the entries that ``verify`` reads."""
    names = []
    original = file_data.FileData._verify
    monkeypatch.setattr(
        file_data.FileData,
        "_verify",
        lambda self, left: (names.extend(entry.filename for entry in left), original(self, left)),
    )
    return names


def copied(file):
    return copy_weights(file.tensors, {name: value.dtype for name, value in file.tensors.items()}, file.files)[0]


def test_tensors_that_are_copied_are_not_read_again(tmp_path, weights, read_again):
    torch.save(weights, tmp_path / "x.pth")
    file = open_file(tmp_path / "x.pth")
    copies = copied(file)
    file.verify()
    assert all(torch.equal(copies[name], value) for name, value in weights.items())
    read = {name.split("/", 1)[1] for name in read_again}
    assert "data.pkl" in read
    assert {name for name in read if name.startswith("data/")} == {"data/2"}  # of which a part was wanted
    read_again.clear()
    file.verify()
    assert not read_again


@pytest.mark.parametrize("name", ["bb.a.weight", "bb.b.weight", "bb.part.weight", "bb.transposed.weight"])
def test_damage_is_found_after_copying(tmp_path, weights, name):
    torch.save(weights, tmp_path / "x.pth")
    content = bytearray((tmp_path / "x.pth").read_bytes())
    data = weights[name].untyped_storage()
    at = content.find(bytes(np.asarray(torch.tensor([], dtype=torch.uint8).set_(data))))
    content[at + data.nbytes() // 2] ^= 1
    (tmp_path / "x.pth").write_bytes(content)
    file = open_file(tmp_path / "x.pth")
    with pytest.raises(bc.CheckpointError, match=r"x\.pth: truncated or corrupted \(Bad CRC-32") as error:
        copied(file)
        file.verify()
    assert str(error.value).count("x.pth") == 1


def test_storages_that_no_name_leads_to_are_read(tmp_path, weights, read_again):
    """Such as those of an optimizer, which stores its in lists."""
    torch.save({"state": [torch.ones(COUNT), torch.ones(COUNT)], "model": weights}, tmp_path / "x.pth")
    file = open_file(tmp_path / "x.pth")
    copied(file)
    file.verify()
    assert {name.split("/", 1)[1] for name in read_again} >= {"data/0", "data/1"}


def test_entries_of_one_size_are_told_apart(tmp_path, read_again):
    """The largest storage may lie in any of them; the wrong guess must neither refuse the file nor pass its damage."""
    weights = {f"bb.{i}.weight": torch.full((COUNT,), float(i)) for i in range(4)}
    torch.save({"first": [torch.zeros(COUNT)], "model": weights, "last": [torch.zeros(COUNT)]}, tmp_path / "x.pth")
    file = open_file(tmp_path / "x.pth")
    assert all(torch.equal(value, weights[name]) for name, value in copied(file).items())
    file.verify()
    content = bytearray((tmp_path / "x.pth").read_bytes())
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        entries = [entry for entry in archive.infolist() if "/data/" in entry.filename]
    for entry in entries:
        changed = bytearray(content)
        changed[entry.header_offset + 400] ^= 4
        (tmp_path / "x.pth").write_bytes(changed)
        file = open_file(tmp_path / "x.pth")
        with pytest.raises(bc.CheckpointError, match="corrupted"):
            copied(file)
            file.verify()


def test_files_of_old_torch_have_none(tmp_path, weights):
    torch.save(weights, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    _, sums = start_loading(tmp_path / "x.pth")
    sums.verify()
    file = open_file(tmp_path / "x.pth")
    assert all(torch.equal(value, weights[name]) for name, value in copied(file).items())


def test_a_file_cut_off_meanwhile(tmp_path, weights):
    torch.save(weights, tmp_path / "x.pth")
    _, sums = start_loading(tmp_path / "x.pth", mmap=False)
    size = (tmp_path / "x.pth").stat().st_size
    with open(tmp_path / "x.pth", "r+b") as file:
        file.truncate(size // 2)
    with pytest.raises(bc.CheckpointError, match="ends before its data"):
        sums.verify()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_numbers_whose_memory_holds_the_opposite(tmp_path, dtype):
    """Such as the imaginary part of a conjugate: the file has a mark with them."""
    x = torch.linspace(-3, 5, COUNT).to(dtype)
    weights = {"bb.a.weight": torch._neg_view(x), "bb.b.weight": torch._neg_view(x[:6].view(2, 3).t()), "bb.c.bias": x}
    torch.save(weights, tmp_path / "x.pth")
    file = open_file(tmp_path / "x.pth")
    copies, magnitudes = copy_weights(file.tensors, dict.fromkeys(weights, torch.float32), file.files)
    file.verify()
    for name, value in weights.items():
        assert torch.equal(copies[name], value.resolve_neg().float())
        assert magnitudes[name] == float(value.resolve_neg().float().abs().max())


@pytest.mark.parametrize("read", [open_file, read_file])
def test_files_of_machines_with_the_other_order_of_bytes(tmp_path, weights, read):
    torch.save(weights, tmp_path / "x.pth")
    other = {"little": "big", "big": "little"}[sys.byteorder]
    sizes = {value.untyped_storage().nbytes(): value.element_size() for value in weights.values()}
    with zipfile.ZipFile(tmp_path / "x.pth") as archive, zipfile.ZipFile(tmp_path / "y.pth", "w") as changed:
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename.endswith("/byteorder"):
                content = other.encode()
            elif "/data/" in entry.filename:
                content = np.frombuffer(content, f"u{sizes[len(content)]}").byteswap().tobytes()
            changed.writestr(entry.filename, content)
    file = read(tmp_path / "y.pth")
    copies = copied(file)
    file.verify()
    assert all(torch.equal(copies[name], value) for name, value in weights.items())
