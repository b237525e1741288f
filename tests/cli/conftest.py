"""The fixtures of commands: a network that is read once, or none."""

import functools

import pytest

from birefnet_core.checkpoints import load_model
from birefnet_core.cli import segment, video
from birefnet_core.network.fuse import fuse_for_inference

from .stub_segmenter import Brightness


@pytest.fixture(scope="session")
def read_once(model_file):
    """Reads and fuses a network as ``load_model`` does, that of ``model_file`` once."""
    fused = functools.cache(lambda **options: fuse_for_inference(load_model(model_file, **options)))

    def read(source, **options):
        return fused(**options) if source == str(model_file) else load_model(source, **options)

    return read


@pytest.fixture(autouse=True)
def small_network_is_read_once(request):
    """Reading and fusing the network of ``model_file`` takes longer than what most tests of commands do with it."""
    with pytest.MonkeyPatch.context() as patch:
        if "model_file" in request.fixturenames:
            for command in (segment, video):
                patch.setattr(command, "load_model", request.getfixturevalue("read_once"))
        yield


@pytest.fixture
def stub_segmenter(monkeypatch):
    monkeypatch.setattr(segment, "load_model", lambda *args, **options: None)
    monkeypatch.setattr(segment, "Segmenter", Brightness)


@pytest.fixture
def folder(stub_segmenter, tmp_path, monkeypatch):
    """The folder "in" of the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return tmp_path / "in"
