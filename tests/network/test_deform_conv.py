"""Deformable convolution: recorded values, and agreement of the routes."""

import pytest
import torch

import birefnet_core as bc
from birefnet_core.network import deform_routes

ROUTES = sorted(deform_routes.ROUTES)
KERNELS = ("k1", "k3", "k7")


def recorded_inputs(recorded, kernel):
    names = ("x", "offset", "mask", "weight")
    return [torch.from_numpy(recorded.arrays[f"{kernel}_{name}"]).requires_grad_() for name in names]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_route_equals_recorded_values(kernel, route, reference):
    recorded = reference("deform_conv")
    x, offset, mask, weight = recorded_inputs(recorded, kernel)
    padding = recorded.meta[kernel]["padding"]
    bias = torch.from_numpy(recorded.arrays[f"{kernel}_bias"])

    y = bc.deform_conv2d(x, offset, weight, mask=mask, padding=padding, route=route)
    biased = bc.deform_conv2d(x, offset, weight, mask=mask, bias=bias, padding=padding, route=route)
    unmasked = bc.deform_conv2d(x, offset, weight, padding=padding, route=route)
    for found, name in ((y, "y"), (biased, "y_bias"), (unmasked, "y_nomask")):
        expected = torch.from_numpy(recorded.arrays[f"{kernel}_{name}"])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())

    y.backward(torch.from_numpy(recorded.arrays[f"{kernel}_gy"]))
    for tensor, name in ((x, "x"), (offset, "offset"), (mask, "mask"), (weight, "weight")):
        expected = torch.from_numpy(recorded.arrays[f"{kernel}_grad_{name}"])
        torch.testing.assert_close(tensor.grad, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_routes_agree_far_outside_and_in_chunks(size, stride):
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(2, 4, 9, 13, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, 4, size, size, generator=generator, dtype=torch.float64)
    options = {"padding": size // 2, "stride": stride}
    rows, columns = -(-9 // stride), -(-13 // stride)
    offset = 8 * torch.randn(2, 2 * size**2, rows, columns, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, size**2, rows, columns, generator=generator, dtype=torch.float64)
    whole = bc.deform_conv2d(x, offset, weight, mask=mask, route="torchvision", **options)
    for budget in (1, 600, 4 * size**2 * columns * 2 * 3):  # a row at a time; some; three rows
        for route in ROUTES:
            options["route"], options["column_budget"] = route, budget
            torch.testing.assert_close(bc.deform_conv2d(x, offset, weight, mask=mask, **options), whole)
            some, factors = offset[:, :, 1:4], mask[:, :, 1:4]
            part = bc.deform_conv2d(x, some, weight, mask=factors, top=1, **options)
            torch.testing.assert_close(part, whole[:, :, 1:4])


def test_rows_at_once_are_as_many_as_a_stride_can_give():
    for last in range(60):
        attainable = {last // stride + 1 for stride in range(1, last + 2)}
        for budget in range(70):
            assert deform_routes.rows_at_once(last, budget) == max(n for n in attainable if n <= max(1, budget))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("route", ROUTES)
def test_half_precision_keeps_sampling_positions(route, dtype):
    """Positions past 256 have no fraction in float16; a route that computed them in it would be far off."""
    x = torch.linspace(0, 1, 1024).expand(1, 1, 2, 1024).to(dtype)
    offset = torch.full((1, 2, 2, 1024), 0.5)
    offset[:, 0] = 0
    y = bc.deform_conv2d(x, offset.to(dtype), torch.ones(1, 1, 1, 1, dtype=dtype), route=route)
    expected = bc.deform_conv2d(x.float(), offset, torch.ones(1, 1, 1, 1), route=route)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


def test_shapes_and_routes_that_do_not_fit_are_refused():
    x, weight = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 3, 3)
    with pytest.raises(bc.ConfigError, match="route"):
        bc.deform_conv2d(x, torch.zeros(1, 18, 4, 4), weight, padding=1, route="fast")
    with pytest.raises(bc.ConfigError, match="18 offset"):
        bc.deform_conv2d(x, torch.zeros(1, 9, 4, 4), weight, padding=1)
    with pytest.raises(bc.ConfigError, match="channels"):
        bc.deform_conv2d(x[:, :1], torch.zeros(1, 18, 4, 4), weight, padding=1)
