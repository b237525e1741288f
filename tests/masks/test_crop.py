"""Crops to the subject on hand-drawn masks."""

import pytest
import torch

from birefnet_core.errors import ConfigError, ImageError
from birefnet_core.masks import crop_to_subject, subject_boxes


def boxed(*boxes: tuple[int, int, int, int], height: int = 12, width: int = 16) -> torch.Tensor:
    """One mask for each box (left, top, right, bottom); an empty box gives an empty mask."""
    masks = torch.zeros(len(boxes), height, width)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return masks


FIRST, SECOND, NONE = (2, 3, 6, 5), (10, 7, 13, 11), (0, 0, 0, 0)


def test_boxes_surround_the_subject():
    assert subject_boxes(boxed(FIRST, SECOND)).tolist() == [list(FIRST), list(SECOND)]
    assert subject_boxes(boxed(FIRST), padding=2).tolist() == [[0, 1, 8, 7]]
    assert subject_boxes(boxed(SECOND), padding=100).tolist() == [[0, 0, 16, 12]]


def test_a_frame_without_subject_keeps_the_whole_picture():
    assert subject_boxes(boxed(NONE)).tolist() == [[0, 0, 16, 12]]


def test_the_threshold_is_exclusive():
    masks = boxed(FIRST) * 0.5
    masks[0, 0, 0] = 0.2
    assert subject_boxes(masks, threshold=0.2).tolist() == [list(FIRST)]
    assert subject_boxes(masks, threshold=0.1).tolist() == [[0, 0, 6, 5]]


def test_a_video_is_cropped_to_one_box(generator):
    images, masks = torch.rand(3, 12, 16, 3, generator=generator), boxed(FIRST, NONE, SECOND)
    crops, cropped_masks, boxes = crop_to_subject(images, masks, padding=1)
    assert boxes.tolist() == [[1, 2, 14, 12]] * 3
    assert torch.equal(crops, images[:, 2:12, 1:14])
    assert torch.equal(cropped_masks, masks[:, 2:12, 1:14])


def test_windows_of_one_size_follow_each_subject(generator):
    images, masks = torch.rand(2, 12, 16, 3, generator=generator), boxed(FIRST, SECOND)
    crops, _, boxes = crop_to_subject(images, masks, per_image=True)
    assert boxes.tolist() == [[2, 2, 6, 6], [9, 7, 13, 11]]
    assert torch.equal(crops, torch.stack([images[0, 2:6, 2:6], images[1, 7:11, 9:13]]))


def test_windows_stay_inside_the_picture():
    boxes = crop_to_subject(
        torch.rand(3, 12, 16, 3), boxed((0, 0, 1, 1), (15, 11, 16, 12), (3, 2, 9, 8)), per_image=True
    )[2]
    assert boxes.tolist() == [[0, 0, 6, 6], [10, 6, 16, 12], [3, 2, 9, 8]]


def test_no_subject_at_all_keeps_everything(generator):
    images, masks = torch.rand(2, 5, 4, 3, generator=generator), torch.zeros(2, 5, 4)
    for per_image in (False, True):
        crops, _, boxes = crop_to_subject(images, masks, per_image=per_image)
        assert torch.equal(crops, images)
        assert boxes.tolist() == [[0, 0, 4, 5]] * 2


def test_one_image_is_cropped_by_many_masks(generator):
    image = torch.rand(1, 12, 16, 3, generator=generator)
    crops = crop_to_subject(image, boxed(FIRST, SECOND), per_image=True)[0]
    assert crops.shape == (2, 4, 4, 3)


def test_one_pixel_pictures_pass():
    crops, masks, _ = crop_to_subject(torch.ones(1, 1, 1, 3), torch.ones(1, 1, 1), padding=3)
    assert (crops.shape, masks.shape) == ((1, 1, 1, 3), (1, 1, 1))


def test_wrong_arguments_are_explained():
    with pytest.raises(ConfigError, match="padding is -1"):
        subject_boxes(torch.zeros(1, 2, 2), padding=-1)
    with pytest.raises(ImageError, match="2 frames and masks has 3"):
        crop_to_subject(torch.zeros(2, 4, 4, 3), torch.zeros(3, 4, 4))
