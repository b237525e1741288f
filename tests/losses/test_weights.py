from __future__ import annotations

import dataclasses

import pytest

from birefnet_core import ConfigError
from birefnet_core.losses import LOSS_PRESETS, LossWeights, loss_preset


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "30", None, True])
def test_loss_weights_reject_what_is_no_weight(value):
    with pytest.raises(ConfigError, match="loss weight bce="):
        LossWeights(bce=value, iou=1)


def test_loss_weights_reject_nothing_to_learn():
    with pytest.raises(ConfigError, match="all loss weights are 0"):
        LossWeights()


def test_loss_weights_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LossWeights(bce=1).bce = 2


def test_loss_weights_survive_a_dict():
    weights = LossWeights(bce=30, ssim=10)
    assert LossWeights.from_dict(weights.to_dict()) == weights
    assert LossWeights.from_dict({"bce": 30, "ssim": 10}) == weights


def test_loss_weights_name_the_term_that_is_not_known():
    with pytest.raises(ConfigError, match=r"'sim' is not known.*Did you mean 'ssim'"):
        LossWeights.from_dict({"sim": 10})
    with pytest.raises(ConfigError, match="not known"):
        LossWeights(bce=1).replace(contour=1)


def test_loss_presets_hold_the_published_weights():
    shared = {"mse": 0, "structure": 0, "ce": 5, "gradient": 1}
    assert loss_preset("dis5k").to_dict() == {"bce": 30, "iou": 0.5, "ssim": 10, "mae": 0, **shared}
    assert loss_preset("general").to_dict() == {"bce": 30, "iou": 0.5, "ssim": 10, "mae": 100, **shared}
    assert loss_preset("matting").to_dict() == {"bce": 30, "iou": 0, "ssim": 10, "mae": 100, **shared}
    assert LOSS_PRESETS["hrsod"] == LOSS_PRESETS["cod"] == loss_preset("dis5k")


def test_loss_preset_suggests_a_known_name():
    with pytest.raises(ConfigError, match="Did you mean 'matting'"):
        loss_preset("mating")


def test_from_published_scales_iou_and_ssim_only():
    weights = loss_preset("general")
    assert weights.from_published(4) == weights.replace(iou=2, ssim=5)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, "4"])
def test_from_published_rejects_what_is_no_batch_size(batch_size):
    with pytest.raises(ConfigError, match="batch_size"):
        loss_preset("dis5k").from_published(batch_size)
