"""Names that no file system has, wherever a command or a function takes one."""

from pathlib import Path

import pytest

import birefnet_core as bc
from birefnet_core.cli.main import main
from birefnet_core.training import Recipe, TrainingData, load_datasets
from birefnet_core.training.run_folder import RunFolder

LONG = "9" * 400

COMMANDS = [
    ["segment", LONG, "-o", "out"],
    ["segment", "photo.png", "-o", LONG],
    ["segment", "photo.png", "-o", "out", "--model", LONG],
    ["evaluate", "--pred", LONG, "--gt", "."],
    ["evaluate", "--pred", ".", "--gt", LONG],
    ["evaluate", "--pred", f"a={LONG}", "--gt", "."],
    ["evaluate", "--pred", ".", "--gt", ".", "--json", LONG],
    ["export", "--model", LONG, "--onnx", "x.onnx"],
    ["export", "--model", "demo", "--onnx", LONG],
    ["train", "--data", LONG, "--backbone", "resnet10", "--dry-run"],
    ["train", "--images", LONG, "--masks", LONG, "--backbone", "resnet10", "--dry-run"],
    ["train", "--data", ".", "--backgrounds", LONG, "--backbone", "resnet10", "--dry-run"],
    ["train", "--recipe", f"{LONG}.toml", "--print-recipe"],
    ["train", "--resume", "--out", LONG, "--print-recipe", "--backbone", "resnet10"],
    ["train", "--compare", LONG, LONG],
    ["ablation", "--data", LONG, "--out", "out"],
    ["ablation", "--data", ".", "--out", LONG],
]
VIDEO = [
    ["video", LONG, "-o", "out.mov"],
    ["video", "clip.mp4", "-o", f"{LONG}.mov"],
    ["video", "clip.mp4", "-o", "out.mp4", "--background", LONG],
]


def assert_no_traceback(arguments):
    try:
        code = main(arguments)  # anything but the pack's own errors comes through
    except SystemExit as stop:
        code = stop.code
    return code


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"))
def test_a_name_that_is_too_long_ends_no_command_with_a_traceback(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"")
    allowed = (0, 1, 2) if "--print-recipe" in arguments else (1, 2)
    assert assert_no_traceback(arguments) in allowed


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments).replace(LONG, "USER"))
def test_nor_does_the_home_folder_of_nobody(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"")
    allowed = (0, 1, 2) if "--print-recipe" in arguments else (1, 2)
    assert assert_no_traceback([text.replace(LONG, "~nobody of this name/x") for text in arguments]) in allowed


@pytest.mark.parametrize("arguments", VIDEO, ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"))
def test_nor_the_video_command(tmp_path, monkeypatch, arguments):
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(bytes(99))
    assert assert_no_traceback([*arguments, "--model", "demo"]) in (1, 2)


@pytest.mark.parametrize("name", [LONG, "a\0b", "a\0b.safetensors", "a\0b.mp4"])
def test_functions_name_what_they_cannot_find(name, tmp_path):
    with pytest.raises(bc.CheckpointError):
        bc.load_model(name)
    with pytest.raises(bc.CheckpointError):
        bc.load_file(name)
    with pytest.raises(bc.DatasetError):
        load_datasets(Recipe(), TrainingData(sets=(Path(name),)))
    with pytest.raises(bc.ConfigError):
        RunFolder(tmp_path / name).prepare_output_dir(resume=False)


@pytest.mark.parametrize("name", [LONG, "a\0b.mp4"])
def test_clips_too(name):
    pytest.importorskip("av")
    from birefnet_core.video import Clip

    with pytest.raises(bc.VideoError):
        Clip(name)
