"""Crop, work, stitch: what nobody worked on is the original to the bit."""

import pytest
import torch

from birefnet_core.errors import ConfigError, ImageError
from birefnet_core.masks import CropOptions, crop_for_inpainting, stitch_back


def random_images(frames=1, height=90, width=130, channels=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(frames)
    return torch.rand(frames, height, width, channels, generator=generator).to(dtype)


def masks_at(*boxes, height=90, width=130):
    masks = torch.zeros(len(boxes), height, width)
    for mask, (x, y, w, h) in zip(masks, boxes, strict=True):
        mask[y : y + h, x : x + w] = 1
    return masks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("blend", [0, 7, 300])
def test_a_crop_nobody_changed_gives_the_original_to_the_bit(dtype, channels, blend):
    images = random_images(2, channels=channels, dtype=dtype)
    crops, masks, record = crop_for_inpainting(images, masks_at((30, 20, 25, 31), (60, 40, 20, 20)))
    assert crops.shape[1] % 8 == 0 and crops.shape[2] % 8 == 0 and crops.shape[:3] == masks.shape
    for mask in (None, masks):
        stitched = stitch_back(record, crops[..., :3], mask, blend)
        assert stitched.dtype == dtype and torch.equal(stitched, images)


@pytest.mark.parametrize("options", [{}, {"size": 128}, {"square": True}, {"follow": True}, {"padding": 0.0}])
@pytest.mark.parametrize("blend", [0, 10])
def test_outside_the_crop_every_pixel_stays(options, blend):
    images = random_images(3)
    boxes = (30, 20, 25, 31), (60, 40, 20, 20), (50, 30, 8, 8)
    crops, _, record = crop_for_inpainting(images, masks_at(*boxes), CropOptions(**options))
    stitched = stitch_back(record, torch.zeros_like(crops), blend=blend)
    for image, new, (left, top, right, bottom), box in zip(images, stitched, record.boxes, boxes, strict=True):
        outside = torch.ones(90, 130, dtype=torch.bool)
        outside[top:bottom, left:right] = False
        assert torch.equal(new[outside], image[outside])
        if blend == 0:
            assert not new[top:bottom, left:right].any()
        assert left <= box[0] and top <= box[1] and right >= box[0] + box[2] and bottom >= box[1] + box[3]


def test_boxes_are_padded_multiples_around_the_subject():
    images, masks = random_images(), masks_at((50, 40, 20, 10))
    crops, crop_masks, record = crop_for_inpainting(images, masks, CropOptions(padding=0.25))
    assert record.boxes == ((44, 33, 76, 57),)  # 20 + 2 x 5 -> 32, 10 + 2 x 5 -> 24, about the middle 60, 45
    assert torch.equal(crops, images[:, 33:57, 44:76]) and torch.equal(crop_masks, masks[:, 33:57, 44:76])
    _, _, record = crop_for_inpainting(images, masks, CropOptions(padding=0.25, square=True, multiple=1))
    assert record.boxes == ((45, 30, 75, 60),)


def test_windows_that_follow_have_one_size_and_hold_their_subject():
    images, masks = random_images(3), masks_at((0, 0, 20, 10), (100, 70, 30, 20), (0, 0, 0, 0))
    crops, crop_masks, record = crop_for_inpainting(images, masks, CropOptions(padding=0.0, follow=True))
    assert crops.shape == (3, 24, 32, 3)
    assert record.boxes[0] == (0, 0, 32, 24) and record.boxes[1] == (98, 66, 130, 90)
    assert crop_masks[0].sum() == 200 and crop_masks[1].sum() == 600


def test_a_size_is_that_of_the_longer_side():
    crops, masks, record = crop_for_inpainting(random_images(), masks_at((50, 40, 20, 10)), CropOptions(size=256))
    assert crops.shape == (1, 192, 256, 3) and masks.shape == (1, 192, 256)
    stitched = stitch_back(record, crops)
    left, top, right, bottom = record.boxes[0]
    assert (stitched - random_images())[:, top:bottom, left:right].abs().mean() < 0.1


@pytest.mark.parametrize(("height", "width"), [(5, 7), (1, 1), (8, 100), (83, 9)])
def test_images_without_room_for_a_multiple_are_resized(height, width):
    images, masks = random_images(1, height, width), torch.ones(1, height, width)
    crops, crop_masks, record = crop_for_inpainting(images, masks)
    assert crops.shape[1] % 8 == 0 and crops.shape[2] % 8 == 0 and crop_masks.shape == crops.shape[:3]
    assert record.boxes == ((0, 0, width, height),) and stitch_back(record, crops).shape == images.shape


def test_without_subject_the_whole_image_is_taken():
    crops, _, record = crop_for_inpainting(random_images(1, 88, 128), torch.zeros(1, 88, 128))
    assert crops.shape == (1, 88, 128, 3) and record.boxes == ((0, 0, 128, 88),)


def test_a_mask_decides_what_is_taken():
    images, masks = torch.zeros(1, 96, 128, 3), masks_at((50, 40, 20, 16), height=96, width=128)
    crops, crop_masks, record = crop_for_inpainting(images, masks, CropOptions(padding=1.0))
    hard = stitch_back(record, torch.ones_like(crops), crop_masks)[0, ..., 0]
    assert torch.equal(hard, masks[0])
    soft = stitch_back(record, torch.ones_like(crops), crop_masks, blend=6)[0, ..., 0]
    assert (soft[masks[0] > 0] > 0.999).all() and 0 < soft[48, 48] < 1
    assert not soft[:33].any() and not soft[:, :43].any() and not soft[63:].any() and not soft[:, 77:].any()


WHOLE = masks_at((50, 40, 24, 16), (20, 80, 24, 16), height=128, width=128)


@pytest.mark.parametrize("options", [{}, {"size": 128, "square": True}, {"follow": True, "padding": 1.0}])
@pytest.mark.parametrize("side", [128, 64])
def test_the_mask_that_was_cropped_by_means_the_same_as_its_crop(options, side):
    given = WHOLE[:, None, :: 128 // side, :: 128 // side].bool()  # as other programs give them
    crops, crop_masks, record = crop_for_inpainting(torch.zeros(2, 128, 128, 3), given, CropOptions(**options))
    by_crop, by_whole = (stitch_back(record, torch.ones_like(crops), masks)[..., 0] for masks in (crop_masks, given))
    assert (by_whole - by_crop).abs().mean() < 0.002
    assert torch.equal(by_whole > 0.5, WHOLE > 0)


@pytest.mark.parametrize("follow", [True, False])
def test_another_mask_of_the_images_size_is_cut_as_the_crops_were(follow):
    _, _, record = crop_for_inpainting(torch.zeros(2, 128, 128, 3), WHOLE, CropOptions(follow=follow))
    other = masks_at((55, 45, 8, 8), (25, 85, 8, 8), height=128, width=128)
    torch.testing.assert_close(stitch_back(record, torch.ones(2, 40, 40, 3), other)[..., 0], other)


def test_a_mask_of_the_size_of_the_crop_is_the_crop_s():
    images, whole = torch.zeros(1, 128, 128, 3), masks_at((50, 40, 24, 16), height=128, width=128)
    _, _, record = crop_for_inpainting(images, whole, CropOptions(padding=0.0))
    left, top, right, bottom = record.boxes[0]
    half = torch.zeros(1, 128, 128)
    half[:, :, 64:] = 1  # of a crop that was made four times and more as large
    stitched = stitch_back(record, torch.ones(1, 128, 128, 3), half)[0, ..., 0]
    middle = (left + right) // 2
    assert stitched[top:bottom, middle + 1 : right].min() > 0.99 and not stitched[top:bottom, left : middle - 1].any()


def test_a_crop_fades_in_from_its_border_but_not_from_the_images():
    images, masks = torch.zeros(1, 96, 128, 3), masks_at((0, 40, 32, 32), height=96, width=128)
    crops, _, record = crop_for_inpainting(images, masks, CropOptions(padding=0.0))
    stitched = stitch_back(record, torch.ones_like(crops), blend=8)[0, ..., 0]
    assert record.boxes == ((0, 40, 32, 72),)
    assert (stitched[48:64, :24] == 1).all() and (stitched[56, 24:32].diff() < 0).all() and stitched[56, 31] < 0.05


def test_alpha_of_a_crop_lets_the_original_through_and_that_of_an_image_stays():
    images = random_images(1, channels=4)
    crops, _, record = crop_for_inpainting(images, masks_at((30, 20, 24, 24)), CropOptions(padding=0.0))
    assert crops.shape[-1] == 4
    crops[..., :3], crops[..., 3] = 1.0, 0.0
    assert torch.equal(stitch_back(record, crops), images)
    stitched = stitch_back(record, torch.ones_like(crops[..., :3]))
    assert torch.equal(stitched[..., 3], images[..., 3]) and (stitched[:, 20:44, 30:54, :3] == 1).all()


def test_several_results_go_into_one_picture_and_grey_ones_too():
    _, _, record = crop_for_inpainting(random_images(), masks_at((30, 20, 24, 24)))
    stitched = stitch_back(record, torch.rand(4, 40, 40, 1))
    assert stitched.shape == (4, 90, 130, 3)
    assert torch.equal(stitched[:, :5], random_images()[:, :5].expand(4, -1, -1, -1))
    grey = random_images(channels=1)
    crops, _, record = crop_for_inpainting(grey, masks_at((30, 20, 24, 24)))
    assert torch.equal(stitch_back(record, crops), grey.expand(-1, -1, -1, 3))


@pytest.mark.parametrize(
    "options", [{"padding": -1}, {"padding": float("nan")}, {"padding": float("inf")}, {"size": -8}, {"multiple": 0}]
)
def test_other_options_are_refused(options):
    with pytest.raises(ConfigError):
        CropOptions(**options)


@pytest.mark.parametrize(
    ("crops", "masks", "says"),
    [
        (torch.rand(2, 8, 8, 3), None, "3 frames and crops has 2"),
        (torch.rand(0, 8, 8, 3), None, "0 frames"),
        (torch.rand(3, 8, 8, 2), None, "2 channels"),
        (torch.full((3, 8, 8, 3), float("nan")), None, "NaN"),
        (torch.rand(3, 8, 8, 3), torch.rand(2, 8, 8), "2 masks for 3 crops"),
    ],
)
def test_crops_that_do_not_fit_are_refused(crops, masks, says):
    _, _, record = crop_for_inpainting(random_images(3), masks_at(*[(30, 20, 24, 24)] * 3))
    with pytest.raises(ImageError, match=says):
        stitch_back(record, crops, masks)


def test_a_negative_blend_is_refused():
    crops, _, record = crop_for_inpainting(random_images(), masks_at((30, 20, 24, 24)))
    with pytest.raises(ConfigError, match="blend"):
        stitch_back(record, crops, blend=-1)


@pytest.mark.parametrize("padding", [1e3, 1e300, 1.7e308])
def test_padding_without_end_is_the_whole_image(padding):
    images, masks = torch.rand(1, 20, 28, 3), torch.zeros(1, 20, 28)
    masks[:, 5:9, 5:11] = 1
    crops, _, record = crop_for_inpainting(images, masks, CropOptions(padding=padding, multiple=1))
    assert torch.equal(crops, images)
    assert record.boxes == ((0, 0, 28, 20),)
