"""Files that are not what their ending says are named for what they are."""

import gzip
import io
import json
import struct
import tarfile

import pytest
import torch
from safetensors.torch import save

import birefnet_core as bc
from birefnet_core.checkpoints.io import read_file


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"), io.BytesIO())
    return buffer.getvalue()


def torch_file(**options) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer, **options)
    return buffer.getvalue()


ANY_ENDING = {
    "nothing": (b"", "only 0 bytes"),
    "few bytes": (b"\x80\x02}", "only 3 bytes"),
    "zeros": (bytes(9000), "zeros in place of weights"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer.*lfs pull"),
    "page": (b"\n <!DOCTYPE html><html><body>Not found</body></html>", "web page"),
    "page without doctype": (b"<HTML><head></head></HTML>", "web page"),
    "page with a mark": (b"\xef\xbb\xbf<!DOCTYPE html><html></html>", "web page"),
    "page of Windows": ("<!doctype html><html></html>".encode("utf-16"), "web page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
    "error as JSON": (b'{"error":"Repository not found"}', "but JSON that begins with .*Repository not found"),
    "error as text": (b"Invalid username or password.", "but text that begins with 'Invalid username"),
    "text of the world": ("Zugriff verweigert: \u00fcber ".encode() * 40, "but text that begins with 'Zugriff"),
    "gzip": (gzip.compress(bytes(999)), "archive .*Unpack"),
    "tar": (tar(), "archive .*Unpack"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5 file"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(99), "GGUF"),
    "NumPy": (b"\x93NUMPY\x01\0v\0" + bytes(99), "NumPy array"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG image"),
    "JPEG": (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(99), "JPEG image"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "PDF document"),
}


@pytest.mark.parametrize("ending", ["safetensors", "pth", "bin", "ckpt"])
@pytest.mark.parametrize("kind", ANY_ENDING)
def test_what_was_saved_in_place_of_weights_is_named(tmp_path, kind, ending):
    content, words = ANY_ENDING[kind]
    path = tmp_path / f"x.{ending}"
    path.write_bytes(content)
    with pytest.raises(bc.CheckpointError, match=words) as error:
        read_file(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_formats_under_the_other_ending_are_named(tmp_path):
    (tmp_path / "x.pth").write_bytes(save({"a": torch.ones(3)}))
    with pytest.raises(bc.CheckpointError, match=r"safetensors file under another ending. Rename it to x\.safetensors"):
        read_file(tmp_path / "x.pth")
    (tmp_path / "x.safetensors").write_bytes(torch_file())
    with pytest.raises(bc.CheckpointError, match="zip archive, perhaps a"):
        read_file(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(torch_file(_use_new_zipfile_serialization=False))
    with pytest.raises(bc.CheckpointError, match="pickle, perhaps a"):
        read_file(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": null}',
        b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0]}}',
        b'{"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {"a": 1}}',
    ],
)
def test_headers_that_make_no_sense_are_refused(tmp_path, header):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(bc.CheckpointError, match=r"truncated|corrupted"):
        read_file(tmp_path / "x.safetensors")


def test_length_of_the_header_that_lies_is_refused(tmp_path):
    whole = save({"a": torch.ones(3)})
    for length in (0, 1, 10**6, 2**31, 2**63, 2**64 - 1):
        (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", length) + whole[8:])
        with pytest.raises(bc.CheckpointError):
            read_file(tmp_path / "x.safetensors")


def test_names_of_tensors_are_shown_escaped(tmp_path):
    header = json.dumps({"a\n\x1b[31mdone\x1b[0m": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(bc.CheckpointError) as error:
        bc.load_model(tmp_path / "x.safetensors")
    assert "a\\n\\x1b[31mdone" in str(error.value) and "\x1b" not in str(error.value) and "\n" not in str(error.value)
