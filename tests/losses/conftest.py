"""What the tests of the losses share: recorded values, and the inputs that break careless formulas."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from ..conftest import FIXTURES

# Per image: logits and label that meet every corner of a sigmoid, a logarithm and a quotient.
SATURATED = (-6e4, -300.0, -100.0, -89.0, -20.0, 0.0, 20.0, 89.0, 100.0, 300.0, 6e4)  # 6e4 still fits float16
HARD_CASES = [(logit, label) for logit in SATURATED for label in (0.0, 1.0)]


@pytest.fixture(autouse=True)
def one_thread():
    """These maps are too small to share: on a busy machine waiting for a second thread takes most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def recorded(reference) -> SimpleNamespace:
    """``losses.npz`` as tensors, with ``maps`` (four logit maps, coarse to fine), and ``losses.json`` as ``values``."""
    tensors = {name: torch.from_numpy(array) for name, array in reference("losses").arrays.items()}
    values = json.loads((FIXTURES / "reference" / "losses.json").read_text())
    maps = [tensors[f"pred_{i}"] for i in range(4)]
    return SimpleNamespace(maps=maps, values=values, **tensors)


@pytest.fixture(scope="session")
def recorded_scales(recorded):
    """Calls a term on each of the four recorded maps, resized to the label."""
    from birefnet_core.image_ops import resize

    def run(term, **options) -> list[float]:
        size = recorded.gt.shape[-2:]
        return [term(resize(x, size, align_corners=True), recorded.gt, **options).item() for x in recorded.maps]

    return run


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Small float64 logits that require a gradient, and a soft label with hard parts."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 1, 6, 7, generator=generator, dtype=torch.float64)
    label = torch.rand(2, 1, 6, 7, generator=generator, dtype=torch.float64)
    label[:, :, :2] = label[:, :, :2].round()
    return logits.requires_grad_(), label


@pytest.fixture
def assert_finite():
    """Runs a term on the hard cases, with float16, bfloat16 and float32 logits, plain and under autocast."""

    def check(term) -> None:
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            for logit, label in HARD_CASES:
                logits = torch.full((2, 1, 13, 17), logit, dtype=dtype, requires_grad=True)
                target = torch.full((2, 1, 13, 17), label)
                plain = term(logits, target)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    value = term(logits, target)
                value.backward()
                assert value.dtype == torch.float32
                assert value.item() == plain.item(), "autocast must not change the value"
                assert value.isfinite(), (dtype, logit, label)
                assert logits.grad.isfinite().all(), (dtype, logit, label)

    return check


@pytest.fixture
def assert_rejects_mismatch():
    """A term refuses what would broadcast or what is no map, with an error that names the shapes."""
    from birefnet_core import ImageError

    def check(term) -> None:
        logits = torch.zeros(2, 1, 8, 8)
        for label in (torch.zeros(1, 1, 8, 8), torch.zeros(2, 1, 8, 1), torch.zeros(2, 1, 4, 4)):
            with pytest.raises(ImageError, match="same shape"):
                term(logits, label)
        for label in (torch.zeros(2, 8, 8), torch.zeros(2, 3, 8, 8), torch.zeros(0, 1, 8, 8)):
            with pytest.raises(ImageError, match="B, 1, H, W"):
                term(logits, label)
        with pytest.raises(ImageError, match="255"):
            term(logits, torch.zeros(2, 1, 8, 8, dtype=torch.uint8))

    return check
