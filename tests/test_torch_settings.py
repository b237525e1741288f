"""What another program set in torch changes no result of ours: default type and device, autocast, gradients."""

import contextlib

import pytest
import torch

import birefnet_core as bc
from birefnet_core import masks, metrics, transfer

from .conftest import SMALLEST

RANDOM = torch.Generator().manual_seed(0)
IMAGES, CUTOUTS = torch.rand(2, 40, 56, 3, generator=RANDOM), torch.rand(2, 40, 56, 4, generator=RANDOM)
MASKS = torch.zeros(2, 40, 56)
MASKS[0, 10:30, 10:40], MASKS[1, 5:20, 20:50], MASKS[0, 2:4, 2:4] = 1, 0.7, 1
CROPS, _, RECORD = masks.crop_for_inpainting(IMAGES, MASKS)
EVERYTHING = masks.RefineOptions(
    temporal_radius=1, black_point=0.1, white_point=0.9, keep_largest=True, min_island_area=5, max_hole_area=5, grow=3,
    smooth_edge=2, guided_radius=4, feather=3, invert=True,
)  # fmt: skip
CODED = transfer.from_sdr(IMAGES, "pq", 9)


def cut_out(images, backgrounds=None, **options):
    return masks.cut_out(images, MASKS, masks.CutoutOptions(**options), backgrounds)


@pytest.fixture(scope="module")
def segment():
    torch.manual_seed(0)
    config = bc.BiRefNetConfig(**SMALLEST)
    return bc.Segmenter(bc.BiRefNet(config))


CALLS = {
    "segment": lambda segment: segment(IMAGES, 64),
    "segment a region": lambda segment: segment(CUTOUTS, 64, region=MASKS, falloff=0.2),
    "segment in tiles": lambda segment: segment(IMAGES, 32, tiled=True, flip=True),
    "fuse": lambda segment: bc.fuse_for_inference(segment.model).state_dict().values(),
    "load": lambda segment: bc.load_model("demo", device="cpu").state_dict().values(),
    "estimate_foreground": lambda segment: bc.estimate_foreground(IMAGES, MASKS),
    "blur_fusion": lambda segment: bc.estimate_foreground(IMAGES, MASKS, "blur_fusion"),
    "make_trimap": lambda segment: masks.make_trimap(MASKS, 3, 3),
    "compare_masks": lambda segment: masks.compare_masks(MASKS, MASKS.flip(0)),
    "remove_spill": lambda segment: masks.remove_spill(
        IMAGES, "#00ff00", masks=MASKS, edge_width=4, keep_brightness=0.5
    ),
    "remove_spill of grey": lambda segment: masks.remove_spill(IMAGES, "#808080"),
    "cut_out": lambda segment: cut_out(IMAGES),
    "cut_out over a color": lambda segment: cut_out(CUTOUTS, output="color", crop_padding=2, colors="blur_fusion"),
    "cut_out over an image": lambda segment: cut_out(IMAGES, CUTOUTS[:1, :20], output="image", fit="fit"),
    "over_checkerboard": lambda segment: masks.over_checkerboard(IMAGES, MASKS),
    "refine_mask": lambda segment: masks.refine_mask(MASKS, EVERYTHING, IMAGES),
    "refine_mask, hard": lambda segment: masks.refine_mask(
        MASKS, masks.RefineOptions(threshold=0.5, grow=-3, grow_element="square")
    ),
    "keep_marked": lambda segment: masks.keep_marked(MASKS, masks.point_marks([(12, 12)], 40, 56)),
    "crop_for_inpainting": lambda segment: masks.crop_for_inpainting(
        IMAGES, MASKS, masks.CropOptions(follow=True, size=64)
    )[:2],
    "stitch_back": lambda segment: masks.stitch_back(RECORD, CROPS * 0.5, MASKS, 8),
    "crop_to_subject": lambda segment: masks.crop_to_subject(IMAGES, MASKS, per_image=True),
    "score_masks": lambda segment: metrics.score_masks(MASKS, MASKS.flip(0), ["Sm", "wF", "Grad", "haze"]).values(),
    "from_sdr": lambda segment: transfer.from_sdr(IMAGES, "pq", 9),
    "to_sdr": lambda segment: transfer.to_sdr(CODED, "pq", 9),
    "to_linear": lambda segment: transfer.to_linear(CODED, "hlg"),
}


OF_THE_NETWORK = (
    "segment",
    "segment a region",
    "segment in tiles",
)  # autocast is for networks: a training validates so


@contextlib.contextmanager
def default_type(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS = {
    "default float64": lambda: default_type(torch.float64),
    "default bfloat16": lambda: default_type(torch.bfloat16),
    "default meta": lambda: default_device("meta"),  # no tensor of it has values
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic": deterministic,
}


@pytest.mark.parametrize("name", CALLS)
def test_settings_of_other_programs_change_nothing(name, segment):
    expected = listed(CALLS[name](segment))
    for setting, enter in SETTINGS.items():
        if setting == "autocast" and name in OF_THE_NETWORK:
            continue
        with enter():
            found = listed(CALLS[name](segment))
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            if not isinstance(other, torch.Tensor):
                assert one == other, setting
                continue
            assert (one.dtype, one.device, one.requires_grad) == (other.dtype, other.device, other.requires_grad), (
                setting
            )
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6, equal_nan=True, msg=setting)


def listed(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)


def test_a_network_runs_in_autocast(segment):
    expected = segment(IMAGES, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = segment(IMAGES, 64)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.01


def test_points_and_paint_lie_on_the_cpu():
    with default_device("meta"):
        assert masks.point_marks([(3, 2)], 9, 9).sum() == 5


@pytest.mark.parametrize("call", [transfer.to_sdr, transfer.from_sdr])
def test_an_unknown_transfer_function_is_told(call):
    with pytest.raises(bc.ConfigError, match=r"'gamma', expected one of sdr, pq, hlg"):
        call(IMAGES, "gamma", 1)
    with pytest.raises(bc.ConfigError, match="'gamma'"):
        transfer.to_linear(IMAGES, "gamma")
