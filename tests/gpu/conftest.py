"""Tests on a CUDA device: python -m pytest -m gpu tests/gpu; without one, see tests/emulated_cuda."""

import pytest
import torch

import birefnet_core as bc
from birefnet_core.inference import warm_up
from tests import emulated_cuda

if emulated_cuda.active():
    warm_up.SIDES = (16, 8)  # nothing is compiled


@pytest.fixture
def real_cuda():
    """For tests of what the emulated device has not."""
    if emulated_cuda.active():
        pytest.skip("needs a real CUDA device")


@pytest.fixture(autouse=True)
def cuda():
    """The device, without TF32 and with its cache emptied."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    torch.cuda.empty_cache()
    yield torch.device("cuda")
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="session")
def small(filled):
    """Makes a small network on the device."""
    return lambda: bc.model_from_state_dict(filled("pvt_v2_b0")).to("cuda")


@pytest.fixture
def frames():
    """Images B, H, W, 3 in the CPU's memory."""
    return torch.rand(5, 120, 160, 3, generator=torch.Generator().manual_seed(0))
