"""Names that no file can have end in a sentence, as the error that each function documents."""

import os
from pathlib import Path

import pytest
import torch

import birefnet_core as bc
from birefnet_core import checkpoints, images, training
from birefnet_core.checkpoints.hub import HubFile, download
from birefnet_core.export import export_onnx
from birefnet_core.files import atomic_folder, atomic_path, first_free, possible
from birefnet_core.image_reading import read_image_file
from birefnet_core.metrics.cache import Cache
from birefnet_core.training.compare import compare_runs
from birefnet_core.training.run_folder import RunFolder

NAMES = ["a\0b{}", "a\0b/c{}", "a\ud800b{}", "\0{}"]


@pytest.fixture(scope="module")
def model():
    return bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b0"))


def _download(path, **place):
    download(HubFile(repo="owner/name", file="model.safetensors", revision=None, mirror=None, **place))


CALLS = {
    "save_checkpoint": (bc.CheckpointError, ".safetensors", lambda model, path: bc.save_checkpoint(model, path)),
    "load_file": (bc.CheckpointError, ".pth", lambda _, path: bc.load_file(path)),
    "load_model": (bc.CheckpointError, ".safetensors", lambda _, path: bc.load_model(Path(path))),
    "read_adapter": (bc.CheckpointError, ".safetensors", lambda _, path: checkpoints.read_adapter(path)),
    "merge_adapter": (bc.CheckpointError, ".safetensors", lambda model, path: bc.merge_adapter(model, path)),
    "download_dir": (bc.CheckpointError, "", lambda _, path: _download(path, cache_dir=None, folder=Path(path))),
    "cache_dir": (bc.CheckpointError, "", lambda _, path: _download(path, cache_dir=Path(path))),
    "write_mask": (bc.ImageError, ".png", lambda _, path: images.write_mask(path, torch.ones(2, 2))),
    "write_image": (bc.ImageError, ".png", lambda _, path: images.write_image(path, torch.ones(2, 2, 3))),
    "read_image": (bc.ImageError, ".png", lambda _, path: images.read_image(path)),
    "read_image_file": (bc.ImageError, ".png", lambda _, path: read_image_file(path)),
    "list_images": (bc.DatasetError, "", lambda _, path: images.list_images(Path(path))),
    "Segmenter": (bc.ImageError, ".png", lambda model, path: bc.Segmenter(model)(path)),
    "evaluate": (bc.DatasetError, "", lambda _, path: bc.evaluate(path, path)),
    "evaluate, cache": (bc.DatasetError, ".db", lambda _, path: Cache(path)),
    "load_recipe": (bc.ConfigError, ".toml", lambda _, path: training.load_recipe(path)),
    "run's folder": (bc.ConfigError, "", lambda _, path: RunFolder(path).make()),
    "compare_runs": (bc.ConfigError, "", lambda _, path: compare_runs([path, path])),
    "load_datasets": (
        bc.DatasetError, "",
        lambda _, path: training.load_datasets(training.Recipe(), training.TrainingData(sets=(path,))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("call", CALLS)
def test_a_name_that_no_file_can_have_is_told(call, name, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error, ending, function = CALLS[call]
    with pytest.raises(error) as raised:
        function(model, name.format(ending))
    assert "\n" not in str(raised.value).removesuffix("\n") and "\0" not in str(raised.value)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_and_an_onnx_file_of_such_a_name_are_not_written(name, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter = checkpoints.Adapter(factors={}, scale=1.0, config=model.config)
    with pytest.raises(bc.CheckpointError, match="no file can have this name"):
        checkpoints.save_adapter(adapter, name.format(".safetensors"))
    pytest.importorskip("onnxscript")
    if torch.__version__ >= "2.7":
        with pytest.raises(bc.CheckpointError, match="no file can have this name"):
            export_onnx(model, name.format(".onnx"))
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_an_output_and_a_background_of_such_a_name_are_told(name, model):
    pytest.importorskip("av")
    from birefnet_core.video import Clip, Output, segment_video

    bad = Path(name.format(".mp4"))
    segment = bc.Segmenter(model)
    with pytest.raises(bc.VideoError, match="cannot be opened"):
        Clip(bad)
    with pytest.raises(bc.VideoError, match="no file can have this name"):
        segment_video(segment, bad, Output(path=Path("mask.mp4"), kind="mask"))
    with pytest.raises(bc.ConfigError, match="no file can have this name"):
        segment_video(segment, "clip.mp4", Output(path=bad, kind="mask"))
    over = Output(path=Path("over.mp4"), kind="composite", background=bad)
    with pytest.raises(bc.ConfigError, match="no file can have this name"):
        segment_video(segment, "clip.mp4", over)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("write", [atomic_path, atomic_folder, lambda path: first_free([path])])
def test_whatever_writes_a_file_raises_an_oserror(write, name, tmp_path):
    with pytest.raises(OSError, match="no file can have this name"), write(tmp_path / name):
        pass


@pytest.mark.skipif(os.name == "nt", reason="names are texts there")
def test_names_of_any_bytes_are_possible():
    assert possible(os.fsdecode(b"a\xff\xfeb")) == Path(os.fsdecode(b"a\xff\xfeb"))


@pytest.mark.skipif(os.name == "nt", reason="has no such pipes")
def test_a_pipe_is_not_replaced_by_a_checkpoint(model, tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(bc.CheckpointError, match="is a pipe or a device, expected the name of a file"):
        bc.save_checkpoint(model, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").is_fifo()
