"""The images for the example workflows in ComfyUI's input folder."""

import importlib
import shutil
from pathlib import Path

import pytest

from tools import example_workflows

ROOT = Path(__file__).resolve().parents[2]
IMAGES = (example_workflows.EXAMPLE, example_workflows.SECOND, example_workflows.THIRD)


@pytest.fixture
def copy(comfy):
    return importlib.import_module(f"{comfy.nodes.__name__}.example_inputs").copy_example_images


@pytest.fixture
def folder(copy, tmp_path, monkeypatch):
    paths = copy.__globals__["folder_paths"]
    monkeypatch.setattr(paths, "get_input_directory", lambda: str(tmp_path / "input"))
    return tmp_path / "input" / example_workflows.FOLDER


def test_the_images_the_examples_open_are_copied_once(copy, folder):
    copy()
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "1_portrait.jpg"
    assert sorted(name[2:] for name in names) == sorted(path.name for path in ROOT.glob("examples/*.jpg"))
    files = [folder.parent / name for name in IMAGES]
    assert all(path.is_file() and path.name > "example.png" for path in files)
    shutil.rmtree(folder)
    folder.mkdir()
    files[0].unlink()
    copy()
    assert not list(folder.iterdir()) and not files[0].exists()


def test_an_input_folder_that_cannot_be_written_to_is_no_error(copy, folder, caplog):
    folder.parent.write_text("a file in its place")
    with caplog.at_level("INFO"):
        copy()
    assert "no example images" in caplog.text


@pytest.mark.parametrize("after", [0, 2, 5])
def test_a_full_disk_leaves_no_half_image_and_the_rest_comes_at_the_next_start(copy, folder, monkeypatch, after):
    whole, copied = shutil.copyfile, []

    def copy_some(source, target):
        copied.append(target)
        if len(copied) > after:
            Path(target).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        whole(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy_some)
    copy()
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted(IMAGES[:after])
    monkeypatch.setattr(shutil, "copyfile", whole)
    copy()
    assert {path.name for path in folder.parent.iterdir()} == {*IMAGES, folder.name}
    names = {path.name: path.read_bytes() for path in ROOT.glob("examples/*.jpg")}
    assert {path.name[2:]: path.read_bytes() for path in folder.iterdir()} == names
