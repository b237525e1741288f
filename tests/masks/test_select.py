"""Marks choose connected components."""

import json

import pytest
import torch

from birefnet_core.errors import ImageError
from birefnet_core.masks import keep_marked, point_marks


@pytest.fixture
def two():
    """Two subjects with soft edges, and haze between."""
    mask = torch.full((1, 40, 60), 0.02)
    mask[:, 5:20, 5:20] = 0.3
    mask[:, 8:18, 8:18] = 1
    mask[:, 10:30, 40:55] = 0.9
    return mask


def marked(*points, height=40, width=60):
    marks = torch.zeros(1, height, width)
    for x, y in points:
        marks[:, y, x] = 1
    return marks


def test_only_subjects_with_a_mark_stay(two):
    kept = keep_marked(two, marked((10, 10)))
    assert torch.equal(kept[:, 5:20, 5:20], two[:, 5:20, 5:20])
    assert not kept[:, 10:30, 40:55].any()
    kept = keep_marked(two, marked((10, 10), (45, 20)))
    assert torch.equal(kept[:, 5:20, 5:20], two[:, 5:20, 5:20]) and not kept[:, 35:].any()
    assert torch.equal(kept[:, 10:30, 40:55], two[:, 10:30, 40:55])


def test_without_any_mark_everything_stays(two):
    kept = keep_marked(two, marked())
    assert torch.equal(kept, two) and kept is not two


def test_marks_on_nothing_keep_nothing_and_say_so(two, caplog):
    assert not keep_marked(two, marked((30, 35)))[0, 10:30, 40:55].any()
    assert "The marks meet no subject" in caplog.text


def test_a_dot_counts_whatever_the_size_of_the_marks(two):
    for height, width in ((400, 600), (8, 12), (40, 600)):
        marks = marked((10 * width // 60, 10 * height // 40), height=height, width=width)
        kept = keep_marked(two, marks)
        assert kept[0, 10, 10] == 1 and not kept[0, 10:30, 40:55].any()


def test_images_have_marks_of_their_own_or_share_them(two):
    masks = two.expand(3, -1, -1)
    kept = keep_marked(masks, torch.cat([marked((10, 10)), marked((45, 20)), marked()]))
    assert kept[0, 10, 10] == 1 and kept[0, 20, 45] == 0
    assert kept[1, 10, 10] == 0 and kept[1, 20, 45] == two[0, 20, 45]
    assert not kept[2].any()
    assert torch.equal(keep_marked(masks, marked((10, 10)))[2], kept[0])


@pytest.mark.parametrize("marks", [torch.zeros(2, 9, 9), torch.zeros(0, 9, 9), torch.full((1, 9, 9), float("nan"))])
def test_other_marks_are_refused(two, marks):
    with pytest.raises(ImageError):
        keep_marked(two.expand(3, -1, -1), marks)


@pytest.mark.parametrize(
    "points",
    [
        {"x": 7, "y": 3}, (7, 3), [{"x": 7, "y": 3}], [(7.4, 3.9)], [[{"x": 7, "y": 3}]],
        '[{"x": 7, "y": 3}]', '{"x": 7, "y": 3}', "[[7, 3]]",
    ],
)  # fmt: skip
def test_points_of_every_form_are_discs(points):
    marks = point_marks(points, 10, 20)
    assert marks.shape == (1, 10, 20) and marks.sum() == 5  # a disc of radius 1
    assert marks[0, 3, 7] == 1 and marks[0, 2, 7] == 1 and marks[0, 2, 6] == 0


def test_points_for_each_image_and_none_at_all():
    marks = point_marks([[{"x": 1, "y": 1}], [], [{"x": 5, "y": 5}]], 10, 10)
    assert [int(mark.sum()) for mark in marks] == [5, 0, 5]
    assert not point_marks("", 4, 4).any() and not point_marks([], 4, 4).any() and not point_marks("[]", 4, 4).any()


@pytest.mark.parametrize(
    "points",
    [
        "left",
        7,
        {"x": 1},
        [1, 2, 3],
        [{"x": 1, "y": "a"}],
        json.dumps([[1, 2, 3]]),
        [(float("nan"), 1)],
        None,
        "[" * 9000,
        [(10**400, 1)],
    ],
)
def test_other_points_are_refused(points):
    with pytest.raises(ImageError, match="expected points in pixels"):
        point_marks(points, 10, 10)


@pytest.mark.parametrize("point", [(10, 3), (3, 10), (-1, 3)])
def test_points_outside_are_refused(point):
    with pytest.raises(ImageError, match="outside the image of 10 x 10"):
        point_marks(point, 10, 10)
