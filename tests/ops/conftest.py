"""Inputs of deformable convolutions, and the backends that run here."""

import pytest
import torch

from birefnet_core.ops import deform_backends
from birefnet_core.ops.deform_backends import BACKENDS

RUNNABLE = [name for name in BACKENDS if deform_backends.unavailable(name, torch.device("cpu"), torch.float32) is None]


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", RUNNABLE)


@pytest.fixture
def make_inputs():
    """x, offset, mask, weight with gradients, and the keywords of the call."""

    def make(
        *,
        batch=3,
        height=9,
        width=13,
        channels=5,
        out=4,
        size=3,
        stride=(1, 1),
        padding=(1, 1),
        dilation=(1, 1),
        spread=2.0,
        dtype=torch.float32,
    ):
        generator = torch.Generator().manual_seed(batch * height * width + size)
        rows, columns = (
            (side + 2 * pad - step * (size - 1) - 1) // by + 1
            for side, pad, step, by in zip((height, width), padding, dilation, stride, strict=True)
        )
        shapes = (
            (batch, channels, height, width), (batch, 2 * size**2, rows, columns), (batch, size**2, rows, columns),
            (out, channels, size, size),
        )  # fmt: skip
        x, offset, mask, weight = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
        tensors = {"x": x, "offset": spread * offset, "mask": 2 * mask.sigmoid(), "weight": weight}
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        return {name: tensor.requires_grad_() for name, tensor in tensors.items()}, options

    return make
