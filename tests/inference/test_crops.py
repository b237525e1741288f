"""Cut out around a region, segmented by itself, put back at native resolution."""

import pytest
import torch

import birefnet_core as bc
from birefnet_core.inference.crops import Box, crop_boxes


def mask_of(height, width, *boxes):
    masks = torch.zeros(len(boxes), height, width)
    for mask, (x, y, w, h) in zip(masks, boxes, strict=True):
        mask[y : y + h, x : x + w] = 1
    return masks


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        (0, (40, 30, 90, 50)),
        (0.1, (32, 22, 98, 58)),  # at least 8 pixels
        (0.2, (30, 20, 100, 60)),  # of the longer side, on both axes
        (1, (0, 0, 140, 100)),
        (50.0, (0, 0, 200, 120)),
    ],
)
def test_margins_widen_the_box_up_to_the_border(margin, expected):
    assert crop_boxes((40, 30, 50, 20), margin, 1, 120, 200) == [Box(*expected)]


SAME = {
    "box": (40, 30, 50, 20),
    "box of floats": [40.4, 30.5, 49.5, 19.3],
    "tensor": torch.tensor([40, 30, 50, 20]),
    "tensor of boxes": torch.tensor([[40.0, 30, 50, 20]]),
    "list of boxes": [(40, 30, 50, 20)],
    "list of tensors": [torch.tensor([40, 30, 50, 20])],
    "mapping": {"x": 40, "y": 30, "width": 50, "height": 20},
    "list of mappings": [{"x": 40, "y": 30, "width": 50, "height": 20, "label": "cat"}],
    "mask": mask_of(120, 200, (40, 30, 50, 20)),
    "mask of bits": mask_of(120, 200, (40, 30, 50, 20)).bool(),
    "mask in half precision": mask_of(120, 200, (40, 30, 50, 20)).half(),
    "small mask": mask_of(12, 20, (4, 3, 5, 2)),
}


@pytest.mark.parametrize("kind", SAME)
def test_a_region_may_be_a_mask_or_a_box(kind):
    assert crop_boxes(SAME[kind], 0, 2, 120, 200) == [Box(40, 30, 90, 50)] * 2


def test_boxes_are_cut_at_the_border():
    assert crop_boxes((-10, 100, 30, 900), 0, 1, 120, 200) == [Box(0, 100, 20, 120)]


def test_outside_the_region_the_mask_is_0(oracle, picture):
    images = picture(120, 200, 30, batch=2)
    images[:, 5:15, 5:15] = 0  # another object, which the region leaves out
    boxes = [(60, 20, 80, 80), (80, 40, 30, 10)]
    masks = bc.Segmenter(oracle())(images, 64, region=mask_of(120, 200, *boxes))
    for mask, box in zip(masks, crop_boxes(boxes, 0.1, 2, 120, 200), strict=True):
        inside = torch.zeros_like(mask)
        box.cut(inside).fill_(1)
        assert mask[inside == 0].count_nonzero() == 0
        assert box.cut(mask).max() > 0.9


def test_the_crop_is_segmented_at_the_network_size(oracle, picture):
    images, network = picture(120, 200, 30), oracle()
    masks = bc.Segmenter(network)(images, 64, region=(60, 20, 80, 80), margin=0)
    expected = bc.Segmenter(network)(images[:, 20:100, 60:140], 64)
    assert torch.equal(masks[:, 20:100, 60:140], expected)
    assert network.inputs == [(64, 64)] * 2


@pytest.mark.parametrize("size", [64, "native"])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_equal_single_images(size, batch_size, oracle, picture):
    images = picture(120, 200, 30, batch=4) * torch.rand(4, 1, 1, 3)
    boxes = [(60, 20, 80, 80), (80, 40, 30, 10), (0, 0, 33, 120), (61, 21, 80, 80)]
    together = bc.Segmenter(oracle(), batch_size=batch_size)(images, size, region=boxes)
    alone = [bc.Segmenter(oracle())(image[None], size, region=box) for image, box in zip(images, boxes, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)


def test_native_is_the_size_of_the_crop(oracle, picture):
    network = oracle()
    bc.Segmenter(network)(picture(120, 200, 30), "native", region=(60, 20, 96, 64), margin=0)
    assert network.inputs == [(64, 96)]


def test_a_region_of_one_pixel_is_taken(oracle, picture):
    masks = bc.Segmenter(oracle())(picture(120, 200, 30), 64, region=(100, 60, 1, 1), margin=0)
    assert masks[0, 60, 100] > 0.9
    assert masks.count_nonzero() == 1


BAD_REGIONS = {
    "empty mask": (torch.zeros(1, 9, 9), "region is empty: mark the subject"),
    "all masks empty": (torch.zeros(2, 9, 9), "all 2 regions are empty: mark the subject"),
    "all boxes empty": ([None, None], "all 2 regions are empty"),
    "no masks": (torch.zeros(0, 9, 9), "no pixels"),
    "masks for other images": (mask_of(9, 9, *[(1, 1, 3, 3)] * 3), "found 3 regions for 2 images"),
    "mask of bytes": (torch.ones(1, 9, 9, dtype=torch.uint8), "divide bytes by 255"),
    "mask with NaN": (torch.full((1, 9, 9), float("nan")), "NaN"),
    "mask without batch": (torch.ones(9, 9), r"region\[None\]"),
    "mask with channels": (torch.ones(1, 1, 9, 9), "expected a region mask B, H, W"),
    "box outside": ((30, 3, 5, 5), "outside the image of 20 x 10"),
    "box left of it": ((-9, 3, 5, 5), "outside the image"),
    "box of no width": ((3, 3, 0, 5), "both above 0"),
    "box of NaN": ((3, 3, float("nan"), 5), "finite"),
    "three numbers": ((3, 3, 5), "four numbers"),
    "words": ("left", "found 'left'"),
    "keys missing": ({"x": 3}, "four numbers"),
    "nothing": ([], "expected a region mask or a box"),
    "number": (7, "found 7"),
}


@pytest.mark.parametrize("kind", BAD_REGIONS)
def test_other_regions_are_refused(kind, oracle):
    region, words = BAD_REGIONS[kind]
    with pytest.raises(bc.ImageError, match=words):
        bc.Segmenter(oracle())(torch.rand(2, 10, 20, 3), 64, region=region)


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf"), "wide", None, True])
def test_other_margins_are_refused(margin, oracle):
    with pytest.raises(bc.ConfigError, match="margin="):
        bc.Segmenter(oracle())(torch.rand(1, 10, 20, 3), 64, region=(1, 1, 5, 5), margin=margin)


@pytest.mark.parametrize("region", [mask_of(120, 200, (60, 20, 80, 80), (1, 1, 0, 0)), [(60, 20, 80, 80), None]])
def test_an_image_without_its_region_gets_an_empty_mask_and_a_line_in_the_log(region, oracle, picture, caplog):
    images = picture(120, 200, 30).expand(2, -1, -1, -1)
    masks = bc.Segmenter(oracle())(images, 64, region=region)
    assert torch.equal(masks[:1], bc.Segmenter(oracle())(images[:1], 64, region=(60, 20, 80, 80)))
    assert not masks[1].any()
    (line,) = caplog.messages
    assert "empty" in line and line.endswith(": 1.")


def test_a_mask_fades_to_the_borders_of_its_crop_but_not_to_the_images(oracle, picture):
    image, region = torch.full((1, 100, 100, 3), 1.0), (0, 40, 60, 60)  # touches the left and the lower border
    hard = bc.Segmenter(oracle())(image, 64, region=region, margin=0)[0]
    soft = bc.Segmenter(oracle())(image, 64, region=region, margin=0, falloff=0.1)[0]
    assert torch.equal(soft[46:, :54], hard[46:, :54])  # a tenth of 60 pixels from two borders
    assert torch.equal(soft[99, :54], hard[99, :54]) and torch.equal(soft[46:, 0], hard[46:, 0])
    ratio = (soft / hard)[70, 54:60]
    assert (ratio.diff() < 0).all() and 0 < ratio[-1] < 0.05 < 0.95 < ratio[0] < 1
    assert not soft[:40].any() and not soft[:, 60:].any()


@pytest.mark.parametrize("falloff", [-0.1, 0.6, float("nan"), "soft", None])
def test_other_falloffs_are_refused(falloff, oracle):
    with pytest.raises(bc.ConfigError, match="falloff="):
        bc.Segmenter(oracle())(torch.rand(1, 10, 20, 3), 64, falloff=falloff)
