"""The deformable convolution's backward pass by hand, against torchvision's operator and finite differences."""

import pytest
import torch

import birefnet_core as bc
from birefnet_core.network import deform_routes, deform_training

torchvision_only = pytest.mark.skipif(
    deform_routes.torchvision_operator() is None, reason="this torchvision has no compiled operator"
)


def make_inputs(
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
    """x, offset, mask, weight with gradients wanted, and the keywords of the call."""
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


def run(tensors, route, options, budget=None):
    """Result and gradients, of a loss that weighs every output differently."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    x, offset, weight = leaves["x"], leaves["offset"], leaves["weight"]
    y = bc.deform_conv2d(
        x, offset, weight, mask=leaves.get("mask"), route=route, column_budget=budget, **options
    )
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y))
    return {"y": y.detach(), **{name: leaf.grad for name, leaf in leaves.items()}}


def assert_close(found, expected, tolerance=1e-4):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().item() or 1.0
        assert (found[name] - value).abs().max().item() <= tolerance * scale, name


CASES = {
    "plain": {},
    "one image, one channel": {"batch": 1, "channels": 1, "out": 1},
    "one point": {"size": 1, "padding": (0, 0)},
    "large kernel": {"size": 7, "padding": (3, 3)},
    "tall": {"height": 17, "width": 3},
    "stride": {"stride": (2, 3)},
    "padding beyond the kernel": {"padding": (4, 0)},
    "dilation": {"dilation": (2, 3), "padding": (2, 3)},
    "all at once": {"stride": (3, 2), "dilation": (1, 2), "padding": (0, 3), "size": 5, "height": 16},
    "far outside": {"spread": 50.0},
    "nothing inside": {"spread": 1e6},
    "offsets of zero": {"spread": 0.0},  # samples exactly on cells and on the border
}


@torchvision_only
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_equal_torchvision_s(case, masked):
    tensors, options = make_inputs(**case)
    if not masked:
        del tensors["mask"]
    assert_close(run(tensors, "bag", options), run(tensors, "torchvision", options))


@torchvision_only
def test_gradients_equal_torchvision_s_where_samples_are_on_the_border():
    """Rows and columns -1, 0, last, last + 1, where a neighbour begins or ceases to be in the map."""
    tensors, options = make_inputs(size=1, padding=(0, 0), batch=1, height=6, width=6)
    with torch.no_grad():
        places = torch.tensor([-1.0, -1 + 1e-3, -1e-3, 5.0, 5 + 1e-3, 6.0])
        grid = torch.arange(6.0)
        tensors["offset"][0, 0] = (places - grid)[:, None]
        tensors["offset"][0, 1] = places - grid
    assert_close(run(tensors, "bag", options), run(tensors, "torchvision", options))


@pytest.mark.parametrize("budget", [1, 60, 700, 10**9])
def test_size_of_the_pieces_changes_no_gradient(budget):
    """Pieces of a single position, of parts of rows, across images, and one for all."""
    tensors, options = make_inputs(dtype=torch.float64)
    assert_close(run(tensors, "bag", options, budget), run(tensors, "pure", options), tolerance=1e-12)


def test_gradients_are_those_of_finite_differences():
    tensors, options = make_inputs(batch=2, height=4, width=5, channels=2, out=2, dtype=torch.float64)

    def convolve(x, offset, mask, weight):
        return bc.deform_conv2d(x, offset, weight, mask=mask, route="bag", column_budget=50, **options)

    assert torch.autograd.gradcheck(convolve, tuple(tensors.values()))


def test_same_inputs_give_the_same_bits():
    tensors, options = make_inputs(height=24, width=40, channels=16, spread=4.0)
    first, second = (run(tensors, "bag", options, budget=9 * 16 * 100) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_rounds_products_only(dtype):
    """Gradients stay within the rounding of one matrix product; positions and sums are in float32."""
    tensors, options = make_inputs(channels=16, out=8, spread=30.0, height=40, width=40)
    expected = run(tensors, "bag", options)
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    with torch.autocast("cpu", dtype=dtype):
        y = bc.deform_conv2d(leaves["x"], leaves["offset"], leaves["weight"], mask=leaves["mask"], **options)
    y.backward(torch.linspace(-1, 1, y.numel()).view_as(y).to(y.dtype))
    found = {"y": y.detach().float(), **{name: leaf.grad for name, leaf in leaves.items()}}
    assert all(found[name].dtype == torch.float32 for name in leaves)
    assert_close(found, expected, tolerance=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("wanted", ["x", "offset", "mask", "weight"])
def test_one_gradient_alone_can_be_wanted(wanted):
    tensors, options = make_inputs()
    expected = run(tensors, "pure", options)[wanted]
    leaves = {name: tensor.detach().requires_grad_(name == wanted) for name, tensor in tensors.items()}
    y = bc.deform_conv2d(leaves["x"], leaves["offset"], leaves["weight"], mask=leaves["mask"], route="bag", **options)
    y.backward(torch.linspace(-1, 1, y.numel()).view_as(y))
    assert [name for name, leaf in leaves.items() if leaf.grad is not None] == [wanted]
    torch.testing.assert_close(leaves[wanted].grad, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_sample_at_no_place_spoils_its_own_output_only(value):
    """A training meets it as a loss that is not finite, not as a crash or as memory of others."""
    tensors, options = make_inputs(batch=2)
    with torch.no_grad():
        tensors["offset"][1, 4, 2, 3] = value
    result = run(tensors, "bag", options)
    clean, bad = result["y"][0], result["y"][1, :, 2, 3]
    assert clean.isfinite().all()
    if value != value:
        assert bad.isnan().all()
    assert result["x"][0].isfinite().all()
    finite = result["offset"].isfinite().all(dim=1)
    finite[1, 2, 3] = True
    assert finite.all()


def test_second_derivatives_are_refused():
    tensors, options = make_inputs(dtype=torch.float64)
    x, mask = tensors["x"], tensors["mask"]
    y = bc.deform_conv2d(x, tensors["offset"], tensors["weight"], mask=mask, route="bag", **options)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_pieces_cover_every_position_once():
    tensors, _ = make_inputs(size=7, padding=(3, 3))
    geometry = deform_routes.Geometry((1, 1), (3, 3), (1, 1), 49 * 5 * 10)
    samples = deform_training.Samples(tensors["x"], tensors["offset"], tensors["mask"], tensors["weight"], geometry)
    places = [place for piece in samples.pieces() for place in range(piece.start, piece.stop)]
    assert places == list(range(3 * 9 * 13))
    assert max(piece.stop - piece.start for piece in samples.pieces()) <= 10
