from __future__ import annotations

import pytest

from birefnet_core import ConfigError
from birefnet_core.losses import LossWeights, loss_preset, region_fine_tuning


def test_region_fine_tuning_leaves_iou_alone_in_the_last_epochs():
    weights = loss_preset("dis5k")
    schedule = [region_fine_tuning(weights, epoch, epochs=600, last=20) for epoch in range(600)]
    assert schedule[:580] == [weights] * 580
    assert schedule[580:] == [LossWeights(iou=0.5)] * 20


def test_region_fine_tuning_is_the_same_whatever_came_before():
    weights = loss_preset("dis5k").from_published(4)
    resumed = region_fine_tuning(weights, 149, epochs=150)
    assert resumed == region_fine_tuning(weights, 130, epochs=150) == LossWeights(iou=2)
    assert weights == loss_preset("dis5k").from_published(4)


def test_region_fine_tuning_of_no_or_all_epochs():
    weights = loss_preset("matting")
    assert [region_fine_tuning(weights, e, epochs=3, last=0) for e in range(3)] == [weights] * 3
    assert region_fine_tuning(loss_preset("cod"), 0, epochs=3, last=3) == LossWeights(iou=0.5)


def test_region_fine_tuning_rejects_a_tail_without_iou_from_the_first_epoch():
    with pytest.raises(ConfigError, match="iou=0"):
        region_fine_tuning(loss_preset("matting"), 0, epochs=100)


@pytest.mark.parametrize(
    ("epoch", "epochs", "last", "name"),
    [(-1, 10, 2, "epoch="), (10, 10, 2, "epoch="), (0, 0, 0, "epochs="), (0, 10, 11, "last="), (0, 10, -1, "last=")],
)
def test_region_fine_tuning_rejects_epochs_out_of_range(epoch, epochs, last, name):
    with pytest.raises(ConfigError, match=name):
        region_fine_tuning(loss_preset("dis5k"), epoch, epochs=epochs, last=last)
