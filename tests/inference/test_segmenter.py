"""Images of any size in, masks of the same size out."""

import pytest
import torch

import birefnet_core as bc
from birefnet_core.image_ops import resize
from birefnet_core.inference.out_of_memory import OutOfMemoryError


@pytest.fixture(scope="module")
def model(filled):
    return bc.model_from_state_dict(filled("pvt_v2_b0"))


@pytest.fixture
def segment(model):
    return bc.Segmenter(model)


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


def test_the_network_sees_imagenet_statistics_and_stretched_images(model, monkeypatch):
    seen = []
    prepared = bc.prepare(model)
    segment = bc.Segmenter(prepared)
    monkeypatch.setattr(prepared, "forward", lambda x: seen.append(x) or bc.BiRefNetOutput(x[:, :1]))
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


def test_alpha_is_dropped_and_grey_is_spread(segment):
    grey = torch.rand(1, 40, 40, 1)
    rgb = grey.expand(-1, -1, -1, 3)
    rgba = torch.cat([rgb, torch.rand(1, 40, 40, 1)], dim=-1)
    expected = segment(rgb, 64)
    assert torch.equal(segment(grey, 64), expected)
    assert torch.equal(segment(rgba, 64), expected)


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
    "no batch": (torch.rand(9, 9, 3), "add a batch dimension"),
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


def test_changed_weights_are_noticed(filled):
    model = bc.model_from_state_dict(filled("pvt_v2_b0"))
    segment, images = bc.Segmenter(model), torch.rand(1, 40, 40, 3)
    before = segment(images, 64)
    assert segment._network() is segment._network()
    with torch.no_grad():
        model.reconstruction.head.bias.add_(3)
    assert (segment(images, 64) > before).all()


class Crowded:
    """A network that runs out of memory until it has been asked for less often enough."""

    def __init__(self, prepared, monkeypatch, fits_after, error=None):
        self.calls, self.fits_after, self.forward = [], fits_after, prepared.forward
        self.error = error or OutOfMemoryError("no room")
        monkeypatch.setattr(prepared, "forward", self)

    def __call__(self, x):
        self.calls.append(len(x))
        if len(self.calls) <= self.fits_after:
            raise self.error
        return self.forward(x)


def test_too_large_a_batch_is_halved(model, monkeypatch):
    images = torch.rand(6, 30, 30, 3)
    prepared = bc.prepare(model)
    expected = bc.Segmenter(prepared)(images, 64)
    crowded = Crowded(prepared, monkeypatch, fits_after=2)
    masks = bc.Segmenter(prepared, batch_size=4)(images, 64)
    assert crowded.calls == [4, 2, 1, 1, 1, 1, 1, 1]
    torch.testing.assert_close(masks, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "words",
    [
        "MPS backend out of memory (MPS allocated: 8.10 GiB, max allowed: 9.07 GiB). Tried to allocate 1.00 GiB.",
        "[enforce fail at alloc_cpu.cpp] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        "[enforce fail at alloc_cpu.cpp] data. DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes.",
    ],
)
def test_devices_that_have_no_error_of_their_own_for_it_are_understood(model, words, monkeypatch):
    prepared = bc.prepare(model)
    crowded = Crowded(prepared, monkeypatch, fits_after=1, error=RuntimeError(words))
    bc.Segmenter(prepared, batch_size=2)(torch.rand(2, 30, 30, 3), 64)
    assert crowded.calls == [2, 1, 1]


def test_other_errors_pass_through(model, monkeypatch):
    prepared = bc.prepare(model)
    Crowded(prepared, monkeypatch, fits_after=1, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        bc.Segmenter(prepared)(torch.rand(1, 30, 30, 3), 64)


def test_a_single_image_is_done_in_smaller_pieces(model, monkeypatch):
    images = torch.rand(1, 30, 30, 3)
    prepared = bc.prepare(model)
    expected = bc.Segmenter(prepared)(images, 64)
    Crowded(prepared, monkeypatch, fits_after=3)
    torch.testing.assert_close(bc.Segmenter(prepared)(images, 64), expected, atol=1e-5, rtol=0)
    assert prepared.memory_level == 3  # one more at each failure


def test_an_image_that_cannot_fit_says_what_to_lower(model, monkeypatch):
    prepared = bc.prepare(model)
    Crowded(prepared, monkeypatch, fits_after=10**9)
    with pytest.raises(bc.MemoryLimitError, match="smaller size"):
        bc.Segmenter(prepared)(torch.rand(1, 30, 30, 3), 64)
