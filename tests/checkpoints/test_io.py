"""Files: what can be read, what is refused and how, and that nothing half-written stays."""

import errno
import os
import pickle
import stat
import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

import birefnet_core as bc
from birefnet_core.checkpoints import formats, io, load
from birefnet_core.files import atomic_path, remove_abandoned_parts, remove_part

ROOT = Path(__file__).resolve().parents[2]
TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(1)}


def assert_same(found, expected=TENSORS):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_safetensors_are_read_with_their_metadata(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors", {"licence": "MIT"})
    file = io.read_file(tmp_path / "x.safetensors")
    assert_same(file.tensors)
    assert file.metadata == {"licence": "MIT"}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
@pytest.mark.parametrize("wrap", [None, "model", "state_dict", "ema"])
def test_pickled_weights_are_found_in_what_training_code_wraps_around_them(wrap, suffix, tmp_path):
    content = {wrap: TENSORS, "epoch": 3, "optimizer": {"state": {}}} if wrap else TENSORS
    torch.save(content, tmp_path / f"x{suffix}")
    assert_same(io.read_file(tmp_path / f"x{suffix}").tensors)


@pytest.mark.skipif(sys.platform != "linux", reason="all names are UTF-8 there")
def test_names_in_a_locale_that_is_not_utf8_are_found(tmp_path, monkeypatch):
    path = tmp_path / "caf\xe9.pth"
    path.write_bytes(b"content")
    monkeypatch.setattr(os, "fsencode", lambda path: str(path).encode("latin-1"))
    with formats.utf8_path(path) as name:
        assert name.isascii() and Path(name).read_bytes() == b"content"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
@pytest.mark.parametrize("folder", [b"caf\xe9", b"\xff\xfe", "café".encode()])
@pytest.mark.parametrize("ending", ["safetensors", "pth", "bin", "old.pth", "pt"])
def test_paths_that_are_not_utf8_are_read(tmp_path, folder, ending):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + folder)) / f"x.{ending}"
    path.parent.mkdir()
    buffer = BytesIO()
    torch.save(TENSORS, buffer, _use_new_zipfile_serialization=not ending.startswith("old"))
    content = save(TENSORS) if ending == "safetensors" else buffer.getvalue()
    path.write_bytes(content)
    found = io.read_file(path)
    path.unlink()
    assert_same(found.tensors)
    path.write_bytes(content[:-9])
    with pytest.raises(bc.CheckpointError, match="truncated"):
        io.read_file(path)


def test_pickled_weights_of_the_old_format_are_read(tmp_path):
    torch.save(TENSORS, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert_same(io.read_file(tmp_path / "x.pth").tensors)


class Malicious:
    def __reduce__(self):
        return os.mkdir, (os.environ["BIREFNET_TEST_TRAP"],)


@pytest.mark.parametrize("saver", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_objects_in_a_file_are_never_executed(saver, tmp_path, monkeypatch):
    trap = tmp_path / "executed"
    monkeypatch.setenv("BIREFNET_TEST_TRAP", str(trap))
    saver({"model": Malicious()}, tmp_path / "x.pth")
    with pytest.raises(bc.CheckpointError, match="never executed"):
        io.read_file(tmp_path / "x.pth")
    assert not trap.exists()


BAD_SAFETENSORS = {
    "text": (b"hello, these are no weights at all", "not a safetensors file"),
    "empty": (b"", "only 0 bytes"),
    "web page": (b"<!DOCTYPE html><html>404</html>" * 9, "web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
    "zip": (b"PK\x03\x04" + bytes(99), "zip archive"),
    "broken header": (struct.pack("<Q", 20) + b'{"a": {"dtype": "F32' + bytes(99), "header cannot be read"),
}


@pytest.mark.parametrize("kind", BAD_SAFETENSORS)
def test_what_is_not_safetensors_is_named(kind, tmp_path):
    content, words = BAD_SAFETENSORS[kind]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(bc.CheckpointError, match=words) as error:
        io.read_file(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("The paging file is too small for this operation to complete. (os error 1455)"), "too little memory"),
        (MemoryError("Cannot allocate memory (os error 12)"), "too little memory"),
        (RuntimeError("unable to mmap 96 bytes from file <x>: Cannot allocate memory (12)"), "too little memory"),
        (RuntimeError("can't allocate memory: you tried to allocate 96 bytes."), "too little memory"),
        (RuntimeError("can't allocate memory: you tried to allocate 9999999 bytes."), "corrupted"),
        (OSError("No such device (os error 19)"), "cannot be read"),
        (RuntimeError("unable to open file <x> in read-only mode: Too many open files (24)"), "cannot be read"),
    ],
    ids=str,
)
def test_errors_of_the_system_are_not_taken_for_damage(tmp_path, monkeypatch, error, words):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(io, "safe_open", fail)
    monkeypatch.setattr(torch, "load", fail)
    save_file(TENSORS, tmp_path / "x.safetensors")
    torch.save(TENSORS, tmp_path / "x.pth")
    for path in tmp_path.iterdir():
        kind = bc.MemoryLimitError if "memory" in words else bc.CheckpointError
        with pytest.raises(kind, match=rf"x\.\w+: .*{words}") as caught:
            io.read_file(path)
        assert ("Delete it" in str(caught.value)) == (words == "corrupted")


def test_too_little_memory_for_the_network_is_told(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("can't allocate memory: you tried to allocate 96 bytes.")

    monkeypatch.setattr(load, "model_from_state_dict", fail)
    save_file(TENSORS, tmp_path / "x.safetensors")
    with pytest.raises(bc.MemoryLimitError, match="too little memory to read this file"):
        load.load_file(tmp_path / "x.safetensors")


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_truncated_files_are_refused(share, tmp_path):
    big = {"a": torch.zeros(1000)}
    save_file(big, tmp_path / "x.safetensors")
    torch.save(big, tmp_path / "x.pth")
    for name in ("x.safetensors", "x.pth"):
        path = tmp_path / name
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(bc.CheckpointError, match=r"truncated|never executed"):
            io.read_file(path)


def test_other_contents_are_refused(tmp_path):
    with pytest.raises(bc.CheckpointError, match="no such file"):
        io.read_file(tmp_path / "missing.safetensors")
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(bc.CheckpointError, match=r"\.jpg is not a checkpoint format"):
        io.read_file(tmp_path / "photo.jpg")
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(bc.CheckpointError, match="a dictionary with epoch"):
        io.read_file(tmp_path / "x.pth")
    torch.save(torch.zeros(3), tmp_path / "y.pth")
    with pytest.raises(bc.CheckpointError, match="a Tensor"):
        io.read_file(tmp_path / "y.pth")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(bc.CheckpointError, match="no weights"):
        io.read_file(tmp_path / "empty.safetensors")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = io.write_safetensors(tmp_path / "x.safetensors", TENSORS, {})
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(io, "_write_tensors", full_disk)
    with pytest.raises(bc.CheckpointError, match="the disk is full"):
        io.write_safetensors(path, {"c": torch.zeros(1)}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_a_forbidden_place_is_named(tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("birefnet_core.files.os.open", forbidden)
    with pytest.raises(bc.CheckpointError, match="no permission"):
        io.write_safetensors(tmp_path / "x.safetensors", TENSORS, {})
    with pytest.raises(bc.CheckpointError, match=r"written as \.safetensors"):
        io.write_safetensors(tmp_path / "x.pth", TENSORS, {})
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(bc.CheckpointError, match="a folder"):
        io.write_safetensors(tmp_path / "d.safetensors", TENSORS, {})


@pytest.mark.skipif(os.name == "nt", reason="no file modes")
def test_files_have_the_modes_of_ordinary_ones(tmp_path, monkeypatch):
    """Without a moment in which files of other threads would be writable by everybody: the umask is not touched."""
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("changes the mask of the whole process"))
        with atomic_path(tmp_path / "x") as part:
            Path(part).write_bytes(b"whole")
        io.write_safetensors(tmp_path / "y.safetensors", TENSORS, {})
    finally:
        monkeypatch.undo()
        os.umask(before)
    for name in ("x", "y.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640


def test_the_bytes_are_those_of_safetensors(tmp_path):
    tensors = {f"{i} é {dtype}": torch.randn(3, 5).to(dtype) for i in (2, 10, 1) for dtype in io._DTYPES}
    tensors |= {"0-dim": torch.tensor(3.0), "empty": torch.empty(0, 4), "transposed": torch.randn(4, 6).t()}
    tensors["with a gradient"] = torch.randn(2, requires_grad=True)
    for metadata in ({}, {"k": 'é\n"\\\x7f'}):
        path = io.write_safetensors(tmp_path / "x.safetensors", tensors, metadata)
        dense = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        assert path.read_bytes() == save(dense, metadata or None)


WRITER = """
import sys, time
import torch
from birefnet_core.checkpoints import io
def dense(tensor):
    print("writing", flush=True)
    time.sleep(60)
class Slow(torch.Tensor):
    cpu = dense
io.write_safetensors(sys.argv[1], {"a": torch.zeros(9), "b": torch.zeros(9).as_subclass(Slow)}, {})
"""


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be deleted")
def test_a_file_that_is_being_written_is_nobody_else_s_and_goes_when_its_writer_was_killed(tmp_path):
    path = tmp_path / "x.safetensors"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    with writer:
        assert writer.stdout.readline() == b"writing\n"
        (part,) = tmp_path.iterdir()
        remove_part(part)
        remove_abandoned_parts(path)
        assert list(tmp_path.iterdir()) == [part]
        writer.kill()
    io.write_safetensors(path, TENSORS, {})
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "x") as part:
        Path(part).write_bytes(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
