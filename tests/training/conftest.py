"""Synthetic data sets, and a network small enough to train in a test."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance

from birefnet_core.training import Recipe

# The smallest network that has all kinds of losses: most of what a training of a few steps does is to save it.
TINY = {
    "reconstruction_block": "residual", "image_pyramid": "none", "inward_reference": False, "context_fusion": 0,
}  # fmt: skip
TINY_FLAGS = ["--backbone", "pvt_v2_b0", "--network", *(f"{name}={value}".lower() for name, value in TINY.items())]


@pytest.fixture(scope="module", autouse=True)
def nothing_waits_for_the_disk():
    """What a test has written need not survive a loss of power, and each training writes much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def draw_shape(seed: int, side: int = 96) -> tuple[Image.Image, Image.Image]:
    """A bright ellipse or rectangle on a dark cloudy ground, and its mask."""
    random = np.random.RandomState(seed)
    image = Image.fromarray((random.rand(8, 8, 3) * 120).astype("uint8")).resize((side, side))
    mask = Image.new("L", (side, side))
    left, top = random.randint(side // 10, side // 2, 2)
    width, height = random.randint(side // 5, side // 2, 2)
    box = (int(left), int(top), int(left + width), int(top + height))
    colour = tuple(int(value) for value in random.randint(150, 255, 3))
    kind = "ellipse" if seed % 2 else "rectangle"
    getattr(ImageDraw.Draw(image), kind)(box, fill=colour)
    getattr(ImageDraw.Draw(mask), kind)(box, fill=255)
    return image, mask


def write_shapes(
    folder: Path,
    count: int,
    first: int = 0,
    names: tuple[str, str] = ("im", "gt"),
    side: int = 96,
    contrast: float = 1.0,
) -> Path:
    """A data set of shapes, faded where the contrast is below 1."""
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        image, mask = draw_shape(seed, side)
        image = ImageEnhance.Contrast(image).enhance(contrast) if contrast != 1 else image
        image.save(folder / names[0] / f"shape{seed:02d}.png")
        mask.save(folder / names[1] / f"shape{seed:02d}.png")
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """Six shapes."""
    return write_shapes(tmp_path_factory.mktemp("shapes"), 6)


@pytest.fixture
def tiny_recipe():
    """Makes a recipe of three steps an epoch on five pairs, with one held out."""

    def make(**changes) -> Recipe:
        values = {
            "backbone": "pvt_v2_b0", "network": TINY, "size": (64, 64), "epochs": 2, "batch_size": 2, "workers": 0,
            "log_steps": 1, "sheet": 0, "lr": 1e-3, "seed": 3,
        }  # fmt: skip
        if changes.get("init"):
            del values["network"], values["backbone"]
        return Recipe(**{**values, **changes})

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A whole small network on disk, random."""
    import birefnet_core as bc

    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b0", **TINY))
    return bc.save_checkpoint(model, path, training_size=(64, 64))


@pytest.fixture(scope="session")
def processes_of():
    """Makes processes from one that has imported the package already, which takes longer than all else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["birefnet_core.training.loop", "timm"])
    return context.Process


def read_state(folder: Path) -> dict:
    """The state in a folder that a test made, without the checks of files from elsewhere, which take longer."""
    return torch.load(folder / "last.pt", weights_only=False)


def assert_same(found: object, expected: object, where: str = "") -> None:
    """Equality of nested states, tensors bit by bit."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_same(found[key], value, f"{where}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    else:
        assert found == expected, where
