"""Scores of masks in memory equal those of files."""

import numpy as np
import pytest
import torch
from PIL import Image

from birefnet_core.errors import ImageError
from birefnet_core.metrics import evaluate_folders, score_masks

KEYS = ["Sm", "maxF", "meanE", "MAE", "BIoU"]


def masks(seed, count=2):
    blocks = torch.rand(count, 1, 6, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(blocks, size=(48, 64), mode="bilinear")[:, 0]


def test_scores_equal_those_of_files(tmp_path):
    found, true = masks(0), (masks(1) > 0.5).float()
    for name, batch in (("pred", found), ("gt", true)):
        (tmp_path / name).mkdir()
        for n, mask in enumerate(batch):
            Image.fromarray(np.rint(mask.numpy() * 255).astype(np.uint8)).save(tmp_path / name / f"{n}.png")
    expected = evaluate_folders(tmp_path / "pred", tmp_path / "gt", metrics=KEYS)
    scores = score_masks(found, true, KEYS)
    assert list(scores) == KEYS
    assert scores == pytest.approx(expected)


def test_one_ground_truth_serves_many_masks():
    found, true = masks(0, 3), (masks(1, 1) > 0.5).float()
    assert score_masks(found, true, ["MAE"]) == pytest.approx(score_masks(found, true.repeat(3, 1, 1), ["MAE"]))


def test_numbers_and_shapes_that_do_not_fit_are_named():
    with pytest.raises(ImageError, match="3 masks and 2 ground truths"):
        score_masks(masks(0, 3), masks(1, 2))
    with pytest.raises(ImageError, match="B, H, W"):
        score_masks(masks(0)[0], masks(1))
