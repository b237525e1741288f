"""Images of any size in, masks of the same size out."""

import copy
import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import birefnet_core as bc
from birefnet_core.image_ops import resize


@pytest.fixture(scope="module")
def model(filled):
    return bc.model_from_state_dict(filled("smallest"))


@pytest.fixture(scope="module")
def shared(model):
    return bc.Segmenter(model)


@pytest.fixture
def segment(shared):
    """Of which a test may change the attributes."""
    return copy.copy(shared)


@pytest.mark.parametrize("shape", [(1, 1), (7, 200), (101, 77), (96, 96), (300, 40)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_masks_have_the_size_of_the_images(shape, channels, segment):
    masks = segment(torch.rand(2, *shape, channels), size=64)
    assert masks.shape == (2, *shape)
    assert masks.dtype == torch.float32
    assert masks.min() >= 0 and masks.max() <= 1
    assert not masks.is_inference()  # callers may change it in place


@pytest.mark.parametrize(
    ("size", "height", "width"),
    [
        (None, 1024, 1024),
        (300, 288, 288),
        ((320, 180), 192, 320),
        ("native", 160, 192),
        (1, 64, 64),
    ],
)
def test_sizes_are_rounded_to_multiples_of_32(size, height, width, segment):
    assert segment.network_size(size, 150, 200) == (height, width)


def test_the_training_size_is_the_checkpoints(model, tmp_path):
    path = bc.save_checkpoint(model, tmp_path / "x.safetensors", training_size=(640, 352))
    assert bc.Segmenter(bc.load_file(path)).network_size(None, 9, 9) == (352, 640)


@pytest.mark.parametrize("size", ["big", (1, 2, 3), 0, -5, (32, 0), 3.5, True, (10.5, 20)])
def test_other_sizes_are_refused(size, segment):
    with pytest.raises(bc.ConfigError, match="size="):
        segment(torch.rand(1, 9, 9, 3), size=size)


def test_the_network_gets_resized_images_with_imagenet_statistics(segment, monkeypatch):
    seen = []
    monkeypatch.setattr(segment.model, "forward", lambda x: seen.append(x) or bc.BiRefNetOutput(x[:, :1]))
    images = torch.tensor([0.485, 0.456, 0.406]).expand(1, 50, 80, 3)
    segment(images, size=(96, 64))
    assert seen[0].shape == (1, 3, 64, 96)
    assert seen[0].abs().max() < 1e-5
    segment(images + torch.tensor([0.229, 0.224, 0.225]), size=(96, 64))
    torch.testing.assert_close(seen[1], torch.ones(1, 3, 64, 96), atol=1e-4, rtol=0)


def test_shrinking_is_antialiased():
    stripes = (torch.arange(512) % 2).float().expand(1, 1, 64, 512)
    assert (resize(stripes, (64, 64), antialias=True) - 0.5).abs().max() < 0.02
    assert torch.equal(resize(stripes, (64, 512), antialias=True), stripes)


def test_grey_is_spread(segment):
    grey = torch.rand(1, 40, 40, 1)
    rgb = grey.expand(-1, -1, -1, 3)
    assert torch.equal(segment(grey, 64), segment(rgb, 64))


@pytest.mark.parametrize("options", [{}, {"region": (5, 5, 30, 30)}, {"tiled": True}, {"flip": True}])
def test_what_alpha_hides_does_not_count(segment, options):
    rgb, hidden = torch.rand(1, 80, 90, 3), torch.rand(1, 80, 90, 3)
    alpha = torch.ones(1, 80, 90, 1)
    assert torch.equal(segment(torch.cat([rgb, alpha], -1), 32, **options), segment(rgb, 32, **options))
    alpha[:, 20:60, 30:] = 0.25
    alpha[:, :20] = 0
    seen = alpha * rgb + (1 - alpha) * 0.5
    expected = segment(seen, 32, **options) * alpha[..., 0]
    torch.testing.assert_close(segment(torch.cat([rgb, alpha], -1), 32, **options), expected)
    changed = torch.where(alpha > 0, rgb, hidden)
    assert torch.equal(
        segment(torch.cat([changed, alpha], -1), 32, **options), segment(torch.cat([rgb, alpha], -1), 32, **options)
    )


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_equal_single_images(batch_size, model):
    images = torch.rand(3, 50, 60, 3)
    together = bc.Segmenter(model, batch_size=batch_size)(images, 64)
    alone = torch.cat([bc.Segmenter(model)(image[None], 64) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_other_precision_are_taken(dtype, segment):
    images = torch.rand(1, 50, 60, 3)
    masks = segment(images.to(dtype), 64)
    assert masks.dtype == torch.float32
    torch.testing.assert_close(masks, segment(images.to(dtype).float(), 64))


def test_images_and_the_mode_of_the_model_are_left_alone(model):
    images = torch.rand(1, 30, 30, 3)
    before = images.clone()
    model.train()
    bc.Segmenter(model)(images, 64)
    assert model.training
    model.eval()
    assert torch.equal(images, before)


def test_progress_is_told_and_can_stop_the_run(segment):
    steps = []
    segment(torch.rand(3, 20, 20, 3), 64, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        if done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        segment(torch.rand(3, 20, 20, 3), 64, progress=cancel)


BAD_IMAGES = {
    "list": ([[0.0]], "images is list"),
    "no batch": (torch.rand(9, 9), "pass a batch of images"),
    "no channels": (torch.rand(2, 9, 9), "add a batch dimension"),
    "channels first, one image": (torch.rand(3, 9, 9), r"use images\.permute\(1, 2, 0\)\[None\]"),
    "empty batch": (torch.rand(0, 9, 9, 3), "at least one image"),
    "no pixels": (torch.rand(1, 0, 9, 3), "at least one pixel"),
    "two channels": (torch.rand(1, 9, 9, 2), "has 2 channels"),
    "channels first": (torch.rand(1, 3, 9, 9), "channels come last"),
    "bytes": (torch.zeros(1, 9, 9, 3, dtype=torch.uint8), "divide bytes by 255"),
    "0 to 255": (torch.full((1, 9, 9, 3), 200.0), "divide bytes by 255"),
    "NaN": (torch.full((2, 9, 9, 3), float("nan")), "images\\[0\\] has NaN"),
    "infinite": (torch.full((1, 9, 9, 3), float("inf")), "infinite"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_other_images_are_refused(kind, segment):
    images, words = BAD_IMAGES[kind]
    with pytest.raises(bc.ImageError, match=words):
        segment(images, 64)


def test_values_a_little_outside_are_clipped(segment):
    images = torch.rand(1, 40, 40, 3) * 1.4 - 0.2
    assert torch.equal(segment(images, 64), segment(images.clamp(0, 1), 64))


def test_a_batch_size_below_one_is_refused(model):
    with pytest.raises(bc.ConfigError, match="batch_size"):
        bc.Segmenter(model, batch_size=0)


def test_a_fused_network_is_taken_as_it_is(segment):
    images = torch.rand(1, 40, 40, 3)
    again = bc.Segmenter(segment.model)
    assert again.model is segment.model
    assert torch.equal(again(images, 64), segment(images, 64))


def test_a_network_trained_on_needs_a_new_segmenter(filled):
    model = bc.model_from_state_dict(filled("smallest"))
    images = torch.rand(1, 40, 40, 3)
    before = bc.Segmenter(model)(images, 64)
    with torch.no_grad():
        model.reconstruction.head.bias.add_(3)
    assert (bc.Segmenter(model)(images, 64) > before).all()


def test_the_segmenter_follows_its_network_to_another_precision(model):
    segment, images = bc.Segmenter(model), torch.rand(1, 64, 64, 3)
    expected = segment(images, 64)
    segment.model.to(torch.float64)
    torch.testing.assert_close(segment(images, 64), expected, atol=1e-4, rtol=0)
    segment.model.to(torch.float32)
    assert torch.equal(segment(images, 64), expected)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda segment: pickle.loads(pickle.dumps(segment))])
@pytest.mark.parametrize("options", [{}, {"cuda_graphs": False, "batch_size": 2}, {"compile": True}])
def test_copies_and_pickles_segment_as_well(copied, options, model, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: None)
    segment, images = bc.Segmenter(model, **options), torch.rand(2, 64, 64, 3)
    expected = segment(images, 64)
    again = copied(segment)
    assert torch.equal(again(images, 64), expected)
    assert (type(again._network), again.batch_size) == (type(segment._network), segment.batch_size)
    again.release()


@pytest.mark.parametrize("device", ["nowhere", 7, -1, "", True, 1.5, ["cpu"]])
def test_a_device_that_does_not_exist_is_refused(device, oracle):
    with pytest.raises(bc.ConfigError, match=r"device .* cannot be used here"):
        bc.Segmenter(oracle(), device=device)


@pytest.mark.parametrize("option", ["cuda_graphs", "lean"])
def test_options_of_another_form_are_refused(option, oracle):
    with pytest.raises(bc.ConfigError, match=f"{option}='sometimes'"):
        bc.Segmenter(oracle(), **{option: "sometimes"})


def test_threads_may_share_a_segmenter(segment):
    images = [torch.rand(1, 64, 40 + 8 * i, 3) for i in range(4)]
    expected = [segment(image, 64) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = list(pool.map(lambda image: segment(image, 64), images))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_threads_with_a_segmenter_each_leave_a_model_in_training_mode(filled):
    model = bc.model_from_state_dict(filled("smallest"))
    images = torch.rand(1, 64, 64, 3)
    expected = bc.Segmenter(model)(images, 64)
    model.train()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: bc.Segmenter(model)(images, 64), range(8)))
    assert model.training
    assert all(torch.equal(mask, expected) for mask in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_nan_mask_is_an_error_that_names_checkpoint_and_precision(dtype, filled):
    model = bc.model_from_state_dict(filled("smallest"))
    model.checkpoint = dataclasses.replace(model.checkpoint, name="diverged.pth")
    model.reconstruction.head.weight.data[0, 0] = float("nan")
    with pytest.raises(bc.CheckpointError, match=f"NaN at 64 x 64 with checkpoint diverged.pth in {dtype}") as caught:
        bc.Segmenter(model.to(dtype))(torch.rand(1, 40, 40, 3), 64)
    assert ("use float32 or bfloat16" in str(caught.value)) == (dtype == torch.float16)
