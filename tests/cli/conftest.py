"""The fixtures of `birefnet segment` without a network."""

import pytest

from birefnet_core.cli import segment

from .stub_segmenter import Brightness


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
