"""Files that are read and written are known by what they are on disk."""

import os
import tempfile
from pathlib import Path

import pytest

from birefnet_core.cli.outputs import Inputs, Outputs, prepare_file, prepare_folder
from birefnet_core.errors import ConfigError
from birefnet_core.files import is_stream, stream_conflict


@pytest.fixture
def file(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_text("a")
    return tmp_path / "folder" / "a.png"


def test_an_input_is_known_under_every_name(file, tmp_path):
    inputs = Inputs([file])
    os.link(file, tmp_path / "hard.png")
    (tmp_path / "soft.png").symlink_to(file)
    (tmp_path / "other").symlink_to(file.parent)
    for path in (file, tmp_path / "hard.png", tmp_path / "soft.png", tmp_path / "other" / "a.png"):
        assert path in inputs
    assert file.parent / ".." / "folder" / "a.png" in inputs
    assert file.with_name("b.png") not in inputs
    (tmp_path / "copy.png").write_text("a")
    assert tmp_path / "copy.png" not in inputs


def test_an_input_that_is_not_there_yet_is_known_by_its_path(tmp_path):
    assert tmp_path / "later.png" in Inputs([tmp_path / "later.png"])


def test_an_output_is_known_through_a_linked_folder(file, tmp_path):
    outputs = Outputs()
    outputs.add(file.parent / "new.json", "--json")
    (tmp_path / "other").symlink_to(file.parent)
    assert outputs.purpose_of(tmp_path / "other" / "new.json") == "--json"
    assert outputs.purpose_of(tmp_path / "new.json") is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder", "is a folder"),
        ("folder/a.png", "would replace a file that is read"),
        ("folder/a.png/x.json", "is a file"),
        ("taken.json", "--csv writes the same file"),
        ("/proc/x/y.json", "cannot be"),
        ("y" * 300 + "/x.json", "cannot be created"),
    ],
)
def test_files_that_cannot_be_written_are_told(file, tmp_path, name, words):
    outputs = Outputs()
    outputs.add(tmp_path / "taken.json", "--csv")
    with pytest.raises(ConfigError, match=words):
        prepare_file(tmp_path / name, "--json", Inputs([file]), outputs)


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="has no such folder")
def test_files_in_memory_are_no_devices():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "x.onnx")
        path.write_text("former")
        assert not is_stream(path) and stream_conflict(path) is None
        prepare_file(path, "--onnx", Inputs(), Outputs(), streams=False)


@pytest.mark.skipif(os.name == "nt", reason="has no such pipes and devices")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/null", "pipe", "link"])
def test_pipes_and_devices_are_written_through_or_refused(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    path = tmp_path / name
    prepare_file(path, "--json", Inputs(), Outputs())
    with pytest.raises(ConfigError, match="is a pipe or a device, expected the name of a file; give another name"):
        prepare_file(path, "--onnx", Inputs(), Outputs(), streams=False)


def test_a_new_folder_is_made(tmp_path):
    prepare_folder(tmp_path / "a" / "b", "-o")
    prepare_folder(tmp_path / "a" / "b", "-o")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_link_that_leads_nowhere_is_no_folder(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="cannot be created"):
        prepare_folder(tmp_path / "a", "-o")
