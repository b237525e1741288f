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


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda m: m * 255, "values from"),
        (lambda m: m.numpy() * 255, "values from"),
        (lambda m: m * 2 - 1, "add 1 and halve"),
        (lambda m: m * float("nan"), "NaN"),
        (lambda m: (m * 255).byte(), "divide bytes by 255"),
        (lambda m: (m * 255).long(), "int64"),
        (lambda m: (m * 255).long().numpy(), "int64"),
        (lambda m: m.to_sparse(), "sparse"),
        (lambda m: m.to("meta"), "meta"),
        (lambda m: "mask.png", "are str, expected a tensor or an array"),
        (lambda m: None, "are NoneType"),
        (lambda m: m.tolist(), "are list"),
    ],
)
@pytest.mark.parametrize("truths", [False, True])
def test_what_is_no_mask_in_0_to_1_is_refused_not_clipped(make, says, truths):
    good = masks(1)
    with pytest.raises(ImageError, match=says):
        score_masks(good if truths else make(masks(0)), make(masks(0)) if truths else good, ["MAE"])


@pytest.mark.parametrize(
    "make",
    [
        lambda m: m.double(),
        lambda m: m.clone().requires_grad_(),
        lambda m: m.numpy(),
        lambda m: m.numpy().astype(np.float64),
        lambda m: m.numpy()[:, ::-1].copy()[:, ::-1],
        lambda m: m * 1.01 - 0.005,  # overshoot, as of bicubic resizing
    ],
)
def test_masks_of_every_kind_score_the_same(make):
    found, true = masks(0), (masks(1) > 0.5).float()
    found[0, 0, 0], found[0, 0, 1] = 0, 1
    expected = score_masks(found, true, KEYS)
    assert score_masks(make(found), true, KEYS) == pytest.approx(expected, abs=0.01)


def test_bools_and_bytes_of_arrays_score_as_floats():
    found, true = (masks(0) > 0.5).float(), (masks(1) > 0.5).float()
    expected = score_masks(found, true, KEYS)
    assert score_masks(found.bool(), true.bool(), KEYS) == expected
    assert score_masks(found.bool().numpy(), true.numpy() > 0, KEYS) == expected
    assert score_masks((found * 255).byte().numpy(), (true.numpy() * 65535).astype(np.uint16), KEYS) == expected
