"""Recorded pairs and values, and small random pairs."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birefnet_core.metrics import Pair

RECORDED = Path(__file__).parents[1] / "fixtures" / "reference" / "metrics"
NAMES = tuple(path.stem for path in sorted((RECORDED / "gt").iterdir()))


@pytest.fixture(scope="session")
def recorded():
    """What published code gave: by pair and for the set."""
    return json.loads((RECORDED / "metrics.json").read_text())


@pytest.fixture(scope="session")
def recorded_curves():
    with np.load(RECORDED / "curves.npz") as curves:
        return dict(curves)


@pytest.fixture(scope="session")
def recorded_folders():
    """Predictions and ground truths."""
    return RECORDED / "pred", RECORDED / "gt"


@pytest.fixture(params=NAMES)
def recorded_pair(request, recorded, recorded_curves):
    """(pair, official values, official curves) of one recorded pair."""
    name = request.param
    prediction, truth = (np.array(Image.open(RECORDED / kind / f"{name}.png")) for kind in ("pred", "gt"))
    start = f"{name}/official_"
    curves = {key.removeprefix(start): curve for key, curve in recorded_curves.items() if key.startswith(start)}
    return Pair(prediction, truth), recorded["pairs"][name]["official"], curves


def _random_mask(rng, shape, kind):
    """uint8 mask: "soft", "binary", "smooth" (coherent regions, soft rims), "grey" (constant), "empty" or "full"."""
    if kind in ("empty", "full", "grey"):
        return np.full(shape, {"empty": 0, "full": 255, "grey": int(rng.integers(1, 255))}[kind], np.uint8)
    if kind == "soft":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if kind == "binary":
        return np.where(rng.random(shape) < rng.choice([0.02, 0.3, 0.7]), 255, 0).astype(np.uint8)
    coarse = rng.integers(0, 256, (shape[0] // 6 + 2, shape[1] // 6 + 2), dtype=np.uint8)
    fine = np.array(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC), np.float64)
    return np.clip((fine - 128) * 4 + 128, 0, 255).astype(np.uint8)


def _save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture(scope="session")
def random_mask():
    """A function of (generator, shape, kind); see ``_random_mask`` for the kinds."""
    return _random_mask


@pytest.fixture(scope="session")
def save():
    """A function of (path, array) that writes an image and returns its path."""
    return _save


@pytest.fixture
def folders(tmp_path):
    """Five small pairs on disk: (predictions, ground truths)."""
    rng = np.random.default_rng(0)
    for number in range(5):
        truth = np.where(_random_mask(rng, (40, 50), "smooth") > 128, 255, 0).astype(np.uint8)
        noise = rng.integers(-60, 60, truth.shape)
        prediction = np.clip(np.roll(truth, number, axis=1).astype(int) + noise, 0, 255).astype(np.uint8)
        _save(tmp_path / "masks" / f"{number}.png", prediction)
        _save(tmp_path / "truth" / f"{number}.png", truth)
    return tmp_path / "masks", tmp_path / "truth"
