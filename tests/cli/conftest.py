"""The fixtures of commands: a network that is read once, or none."""

import pytest

from birefnet_core.checkpoints import load_model
from birefnet_core.cli import segment, video
from birefnet_core.network.fuse import fuse_for_inference

from .stub_segmenter import Brightness


@pytest.fixture(scope="session")
def _read():
    """Fused networks by what they were read with."""
    return {}


@pytest.fixture(autouse=True)
def small_network_is_read_once(request, _read):
    """Reading and fusing the network of ``model_file`` takes longer than what most tests of commands do with it."""
    if "model_file" not in request.fixturenames:
        yield
        return
    file = str(request.getfixturevalue("model_file"))

    def load(source, **options):
        if source != file:
            return load_model(source, **options)
        key = tuple(sorted(options.items()))
        if key not in _read:
            _read[key] = fuse_for_inference(load_model(source, **options))
        return _read[key]

    with pytest.MonkeyPatch.context() as patch:
        for command in (segment, video):
            patch.setattr(command, "load_model", load)
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
