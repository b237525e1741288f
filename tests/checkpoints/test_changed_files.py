"""Files that another program writes, replaces, cuts off or removes while they are read."""

import itertools
import os
import shutil
import sys

import pytest
import torch
from safetensors.torch import save_file

import birefnet_core as bc
from birefnet_core.checkpoints import fit_float16, io, load

HEAD = "decoder.conv_out1.0.bias"


@pytest.fixture
def state(filled):
    return filled("smallest")


@pytest.fixture
def two_files(state, tmp_path):
    """Of the same weights and another time, by ending; clocks of file systems are coarse."""

    def write(ending):
        files = tmp_path / f"x{ending}", tmp_path / f"y{ending}"
        for second, file in enumerate(files):
            (save_file if ending == ".safetensors" else torch.save)(state, file)
            os.utime(file, (second, second))
        return files

    return write


def before_building(monkeypatch, change):
    build = load.model_from_state_dict

    def changed(*arguments, **options):
        change()
        return build(*arguments, **options)

    monkeypatch.setattr(load, "model_from_state_dict", changed)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_file_that_is_written_while_it_is_read_is_refused(ending, two_files, monkeypatch):
    path, _ = two_files(ending)

    times = itertools.count(5)  # of a program that goes on writing
    before_building(monkeypatch, lambda: os.utime(path, (second := next(times), second)))
    with pytest.raises(bc.CheckpointError, match=r"another program wrote this file.*Load it again"):
        bc.load_file(path)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_file_that_is_replaced_while_it_is_read_is_read_anew(ending, two_files, state, monkeypatch):
    path, other = two_files(ending)
    new = {**state, HEAD: state[HEAD] + 1}
    (save_file if ending == ".safetensors" else torch.save)(new, other)
    before_building(monkeypatch, lambda: other.exists() and other.replace(path))
    assert torch.equal(bc.load_file(path).state_dict()["reconstruction.head.bias"], new[HEAD])


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("size", [0, 5000, -1000])
def test_a_file_that_is_cut_off_while_it_is_read_is_refused(size, dtype, ending, two_files, monkeypatch):
    """The system would end a process that touches the rest of a mapping."""
    path, _ = two_files(ending)
    before_building(monkeypatch, lambda: os.truncate(path, size % path.stat().st_size))
    with pytest.raises(bc.CheckpointError, match=r"truncated|has only 0 bytes|empty|no zip|corrupted"):
        bc.load_file(path, dtype=dtype)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_file_that_vanishes_while_it_is_read_is_named(ending, two_files, monkeypatch):
    path, _ = two_files(ending)
    before_building(monkeypatch, path.unlink)
    with pytest.raises(bc.CheckpointError, match=rf"x{ending}: cannot be read \(.*No such file"):
        bc.load_file(path)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_file_that_vanishes_when_it_is_read_is_named(ending, two_files, monkeypatch):
    path, _ = two_files(ending)
    verify = io.CheckpointFile.verify
    monkeypatch.setattr(io.CheckpointFile, "verify", lambda file: (path.unlink(), verify(file)))
    try:
        assert io.read_file(path).tensors
    except bc.CheckpointError as error:
        assert "No such file" in str(error)


def test_a_file_that_another_takes_the_place_of_while_it_is_opened_is_read_again(two_files, monkeypatch):
    """torch's directory of one and its data of the other look like damage."""
    path, _ = two_files(".pth")
    load, calls = torch.load, []

    def loaded(*arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            path.write_bytes(path.read_bytes())
            raise RuntimeError("PytorchStreamReader failed reading zip archive")
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", loaded)
    assert bc.load_file(path).checkpoint.path == path
    assert len(calls) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="mapped files are not renamed there")
@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("whole", ".safetensors"),
        ("whole", ".pth"),
        ("half", ".pth"),
        ("all scaled", ".safetensors"),
        ("scales in the metadata", ".safetensors"),
        ("other order", ".pth"),
        ("bfloat16", ".safetensors"),
        pytest.param("half", ".safetensors", marks=pytest.mark.slow),
        pytest.param("all scaled", ".pth", marks=pytest.mark.slow),
        pytest.param("scales in the metadata", ".pth", marks=pytest.mark.slow),
        pytest.param("other order", ".safetensors", marks=pytest.mark.slow),
        pytest.param("bfloat16", ".pth", marks=pytest.mark.slow),
    ],
)
def test_no_value_is_taken_from_the_mapping(kind, ending, state, tmp_path, monkeypatch):
    """A file is moved away, its copy put into its place, and all of it cut off: whoever looked at it would end here."""
    path, old = tmp_path / f"x{ending}", tmp_path / f"old{ending}"
    options = {"dtype": torch.float16 if kind in ("half", "all scaled") else torch.float32}
    if kind == "bfloat16":
        options = {"dtype": torch.bfloat16, "fine_dtype": torch.float16}
    if kind == "other order":
        options["patch_order"] = "columns_first"
    if kind in ("all scaled", "scales in the metadata"):
        monkeypatch.setattr(fit_float16, "VARIANCE_LIMIT", 1e-2)
    if kind == "scales in the metadata":
        path = old.with_name("x.safetensors")
        bc.save_checkpoint(bc.model_from_state_dict(state), path, dtype=torch.float16)
    else:
        (save_file if ending == ".safetensors" else torch.save)(state, path)
    expected = bc.load_file(path, **options).state_dict()
    opened = io.open_file(path)
    path.rename(old)
    shutil.copy2(old, path)
    os.truncate(old, 0)
    monkeypatch.setattr(load, "open_file", lambda path: opened)
    found = bc.load_file(path, **options).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.skipif(sys.platform == "win32", reason="mapped files are not renamed there")
@pytest.mark.parametrize("ending", [".safetensors", ".pth", "-00001-of-00002.safetensors", "-00001-of-00002.bin"])
def test_what_was_read_is_in_memory_of_its_own(ending, state, tmp_path):
    path = tmp_path / f"x{ending}"
    parts = [state]
    if "-of-" in ending:
        names = sorted(state)
        parts = [{name: state[name] for name in half} for half in (names[::2], names[1::2])]
    for number, part in enumerate(parts, 1):
        (save_file if ending.endswith("safetensors") else torch.save)(
            part, path.with_name(path.name.replace("00001", f"{number:05}"))
        )
    found = io.read_file(path)
    for file in tmp_path.iterdir():
        os.truncate(file, 0)
    assert found.tensors.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in found.tensors.items())
