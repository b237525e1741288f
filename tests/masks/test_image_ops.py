"""Bad inputs get a message that says what was found, what was expected and what to do."""

import numpy as np
import pytest
import torch
from PIL import Image

from birefnet_core.errors import ImageError
from birefnet_core.image_ops import (
    check_images,
    check_masks,
    check_same_device,
    mask_batch,
    pair,
    pair_batches,
    resize,
    resize_images,
    resize_masks,
)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 4, 4, 3), np.float32), "ndarray.*torch.as_tensor"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.uint8), "uint8.*divide bytes by 255"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.int64), "int64.*float"),
        (torch.zeros(4, 4, 3), "4 x 4 x 3.*batch dimension"),
        (torch.zeros(4), "shape 4,"),
        (torch.zeros(1, 4, 4, 4), "4 channels.*alpha"),
        (torch.zeros(1, 4, 4, 1), "1 channels.*grey"),
        (torch.zeros(1, 3, 4, 4)[..., :2], "2 channels.*channels come last"),
        (torch.zeros(0, 4, 4, 3), "0 frames"),
        (torch.zeros(1, 0, 4, 3), "no pixels"),
        (torch.full((1, 4, 4, 3), float("nan")), "NaN"),
        (torch.full((1, 4, 4, 3), float("inf")), "infinite"),
        (torch.full((1, 4, 4, 3), 255.0), "from 255 to 255.*divide"),
        (torch.linspace(-1, 1, 48, dtype=torch.float16).view(1, 4, 4, 3), "from -1 to 1.*add 1 and halve"),
    ],
)
def test_bad_images_are_explained(images, message):
    with pytest.raises(ImageError, match=message):
        check_images(images)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (None, "NoneType"),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), "uint8.*divide bytes by 255"),
        (torch.zeros(1, 4, 4, 3), "shape 1 x 4 x 4 x 3, expected masks B, H, W"),
        (torch.zeros(1, 3, 4, 4), "of several channels, pass one"),
        (torch.zeros(1, 1, 4, 4, 1), "1 x 1 x 4 x 4 x 1"),
        (torch.zeros(()), r"shape \(\)"),
        (torch.zeros(0, 4, 4), "0 frames"),
        (torch.zeros(2, 4, 0), "no pixels"),
        (torch.tensor([[[0.0, float("nan")]]]), "NaN"),
        (torch.tensor([[[-7.0, 3.0]]]), "from -7 to 3.*sigmoid"),
    ],
)
def test_bad_masks_are_explained(masks, message):
    with pytest.raises(ImageError, match=message):
        check_masks(masks)


@pytest.mark.parametrize("shape", [(5, 6), (1, 1, 5, 6), (1, 5, 6, 1), (1, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bool])
def test_masks_of_other_programs_become_a_batch(shape, dtype):
    values = (torch.arange(30) % 3 == 0).to(dtype)
    assert check_masks(values.reshape(shape)).equal(values.float().reshape(1, 5, 6))


@pytest.mark.parametrize("shape", [(2, 1, 5, 6), (2, 5, 6, 1)])
def test_a_channel_is_dropped_from_a_batch(shape):
    values = torch.rand(2, 5, 6)
    assert check_masks(values.reshape(shape)).equal(values)


def test_one_nan_among_many_is_found():
    images = torch.rand(2, 33, 17, 3)
    images[1, 20, 3, 1] = float("nan")
    with pytest.raises(ImageError, match="NaN"):
        check_images(images)


def test_overshoot_is_clamped_without_touching_the_input():
    masks = torch.tensor([[[-0.1, 0.5, 1.1]]])
    assert check_masks(masks).tolist() == [[[0.0, 0.5, 1.0]]]
    assert masks.min() < 0
    sharpened = torch.zeros(1, 8, 8)
    sharpened[0, 4, 4] = -0.9  # far, in a single pixel
    assert not check_masks(sharpened).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_type_becomes_float32(dtype):
    assert check_masks(torch.ones(1, 2, 2, dtype=dtype)).dtype == torch.float32


def test_a_batch_of_one_is_repeated():
    images, masks = pair_batches(torch.rand(1, 2, 2, 3), torch.rand(4, 2, 2))
    assert images.shape[0] == masks.shape[0] == 4
    images, masks = pair_batches(torch.rand(4, 2, 2, 3), torch.rand(1, 2, 2))
    assert images.shape[0] == masks.shape[0] == 4


def test_other_numbers_of_frames_do_not_pair():
    with pytest.raises(ImageError, match="images has 2 frames and masks has 3"):
        pair_batches(torch.rand(2, 2, 2, 3), torch.rand(3, 2, 2))


def test_pair_resizes_the_mask_to_the_image():
    images, masks = pair(torch.rand(2, 9, 7, 3), torch.ones(1, 4, 4))
    assert images.shape == (2, 9, 7, 3)
    assert masks.shape == (2, 9, 7)
    torch.testing.assert_close(masks, torch.ones(2, 9, 7))


def test_tensors_on_two_devices_are_explained():
    with pytest.raises(ImageError, match="images is on cpu and masks on meta"):
        check_same_device(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, device="meta"))


@pytest.mark.parametrize("size", [(40, 60), (13, 11), (40, 21), (1, 1), (40, 1), (1, 40), (11, 1)])
def test_resize_equals_pil_within_a_byte(size, generator):
    bytes_ = torch.randint(0, 256, (24, 31), generator=generator, dtype=torch.uint8)
    expected = np.asarray(Image.fromarray(bytes_.numpy()).resize(size[::-1], Image.Resampling.BICUBIC))
    ours = resize_masks(bytes_[None].float() / 255, size)[0] * 255
    # PIL rounds to bytes between the two directions as well.
    assert (ours - torch.from_numpy(expected.copy()).float()).abs().max() < 1.5


@pytest.mark.parametrize("width", [1, 8])
def test_results_one_pixel_wide_are_those_one_pixel_high_turned(width, generator):
    x = torch.rand(2, 3, 16, width, generator=generator)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=layout)
        assert torch.equal(resize(given, (9, 1), antialias=True).mT, resize(x.mT, (1, 9), antialias=True))
        colours = resize_images(given.permute(0, 2, 3, 1), (40, 1))
        torch.testing.assert_close(colours[..., 1], resize_masks(x[:, 1], (40, 1)))


def test_resize_to_the_same_size_returns_the_tensor():
    masks = torch.rand(1, 5, 6)
    assert resize_masks(masks, (5, 6)).data_ptr() == masks.data_ptr()


def test_images_resize_as_their_channels_do(generator):
    images = torch.rand(2, 9, 8, 3, generator=generator)
    resized = resize_images(images, (5, 13))
    for channel in range(3):
        torch.testing.assert_close(resized[..., channel], resize_masks(images[..., channel], (5, 13)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.zeros(1, 9, 9, device="meta"), "meta"),
        (torch.zeros(1, 9, 9).to_sparse(), "sparse"),
        (torch.zeros(9, 9).to_sparse_csr(), "sparse"),
        (torch.nested.nested_tensor([torch.zeros(9, 9), torch.zeros(5, 9)]), "nested"),
        (torch.zeros(1, 9, 9, dtype=torch.complex64), "complex"),
    ],
)
def test_masks_without_dense_values_are_named(tensor, kind):
    for check in (check_masks, mask_batch):
        with pytest.raises(ImageError, match=f"masks is a {kind} tensor"):
            check(tensor)
