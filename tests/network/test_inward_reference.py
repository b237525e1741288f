"""The inward reference at full resolution, merged with the head."""

import pytest
import torch
from torch import nn

from birefnet_core.network import inward_reference
from birefnet_core.network.inward_reference import InwardReference
from birefnet_core.ops import execution


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 12)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_the_projected_reference_is_that_of_the_three_convolutions_up_to_the_borders(size, dtype):
    inward, head = InwardReference(1, 6).double(), nn.Conv2d(6, 1, 1, bias=False).double()
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = head(inward(image))
    found = inward.to(dtype).projected(image.to(dtype), head.to(dtype).weight)
    assert found.dtype == dtype
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3}[dtype]
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("sizes", [{}, {"map": 1}])
@torch.no_grad()
def test_channels_of_zeros_beside_those_of_half_precision_change_nothing(sizes, monkeypatch):
    """As on a GPU, where each of the two convolutions reads and writes multiples of eight."""
    monkeypatch.setattr(inward_reference, "LEAST_ROWS", 3)
    inward, head = InwardReference(1, 6).half(), nn.Conv2d(6, 1, 1, bias=False).half()
    image = torch.randn(2, 3, 10, 7).half()
    expected = inward.projected(image, head.weight)
    shapes, convolve = [], torch.nn.functional.conv2d
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    monkeypatch.setattr(
        torch.nn.functional,
        "conv2d",
        lambda x, weight, *rest, **options: shapes.append(tuple(weight.shape)) or convolve(x, weight, *rest, **options),
    )
    with execution.use_chunk_sizes(**sizes):
        found = inward.projected(image, head.weight)
    assert set(shapes) == {(16, 8, 3, 3), (8, 16, 3, 3)}
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=5e-3)


@torch.no_grad()
def test_chunks_of_rows_give_the_same(monkeypatch):
    monkeypatch.setattr(inward_reference, "LEAST_ROWS", 3)
    inward, head = InwardReference(1, 6), nn.Conv2d(6, 1, 1, bias=False)
    image = torch.randn(2, 3, 10, 7)
    with execution.use_chunk_sizes(map=1):
        found = inward.projected(image, head.weight)
    torch.testing.assert_close(found, head(inward(image)), atol=1e-5, rtol=1e-5)


def test_every_parameter_gets_its_gradient():
    inward, head = InwardReference(1, 6).double(), nn.Conv2d(6, 1, 1, bias=False).double()
    image = torch.randn(1, 3, 5, 6, dtype=torch.float64)
    parameters = [*inward.parameters(), head.weight]
    expected = torch.autograd.grad(head(inward(image)).square().sum(), parameters)
    found = torch.autograd.grad(inward.projected(image, head.weight).square().sum(), parameters)
    torch.testing.assert_close(found, expected)
