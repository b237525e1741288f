"""The checkpoint that comes with the pack: what it is, and how good its masks are."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import birefnet_core as bc
from birefnet_core.checkpoints.catalogue import list_checkpoints
from birefnet_core.checkpoints.resolve import present_locally, resolve
from birefnet_core.errors import CheckpointError
from birefnet_core.images import write_mask

ROOT = Path(__file__).resolve().parents[2]
ENTRY = {entry.name: entry for entry in list_checkpoints()}["demo"]


def test_it_is_small_and_found_without_network(hub):
    found = resolve("demo")
    assert (found.path, found.entry, found.repo) == (ENTRY.bundled, ENTRY, None)
    assert present_locally(ENTRY) == ENTRY.bundled
    assert ENTRY.bundled.stat().st_size <= 32_000_000
    assert hub.requests == []


def test_it_loads_as_the_catalogue_says(hub):
    loaded = bc.load_model("demo")
    assert loaded.config.backbone == ENTRY.backbone
    assert loaded.checkpoint.training_size == ENTRY.training_size
    assert loaded.checkpoint.licence == ENTRY.licence == "Apache-2.0"
    assert hub.requests == []


def test_it_has_no_revisions():
    with pytest.raises(CheckpointError, match="has no revisions"):
        resolve("demo@main")


def test_a_missing_file_asks_for_a_new_installation(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules[type(ENTRY).__module__], "ASSETS", tmp_path)
    with pytest.raises(CheckpointError, match="Install the pack again"):
        resolve("demo")
    assert present_locally(ENTRY) is None


def test_it_finds_a_disk_before_a_plain_ground():
    y, x = np.mgrid[:256, :256]
    disk = (x - 140) ** 2 + (y - 120) ** 2 < 60**2
    image = np.where(disk[..., None], [0.85, 0.25, 0.2], [0.35, 0.45, 0.55]).astype(np.float32)
    mask = bc.Segmenter(bc.load_model("demo"))(torch.from_numpy(image)[None])[0].numpy()
    assert mask[disk].mean() > 0.9
    assert mask[~disk].mean() < 0.1


@pytest.mark.slow
def test_its_scores_on_fixed_scenes_do_not_fall(tmp_path):
    """Scenes of shapes and painted surfaces alone, which anybody's renderer makes without pictures of others."""
    pytest.importorskip("cv2")
    from tools.synthetic_pairs.scene import scene
    from tools.synthetic_pairs.sources import Sources

    segment = bc.Segmenter(bc.load_model("demo"))
    for number in range(96):
        colours, alpha = scene(np.random.default_rng([7, number]), Sources(), "val", 320)
        mask = segment(torch.from_numpy(colours)[None].float())[0]
        write_mask(tmp_path / "pred" / f"{number:03d}.png", mask)
        write_mask(tmp_path / "gt" / f"{number:03d}.png", torch.from_numpy(alpha))
    scores = bc.evaluate(tmp_path / "pred", tmp_path / "gt", metrics=["Sm", "maxF", "wF"])
    assert scores["Sm"] > 0.815, scores
    assert scores["maxF"] > 0.745, scores
    assert scores["wF"] > 0.71, scores
