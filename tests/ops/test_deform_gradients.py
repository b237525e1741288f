"""Gradients of the deformable convolution: against torchvision's operator, finite differences and each other."""

import pytest
import torch

import birefnet_core as bc
from birefnet_core.ops import deform_backends, execution

torchvision_only = pytest.mark.skipif(
    deform_backends.unavailable("torchvision", torch.device("cpu"), torch.float32) is not None,
    reason="this torchvision has no compiled operator",
)


def in_chunks_of(elements):
    return execution.use_chunk_sizes(deform_columns=elements, deform_gather=elements)


def run(tensors, backend, options):
    """Result and gradients, of a loss that weighs every output differently."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    y = bc.deform_conv2d(**leaves, backend=backend, **options)
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
def test_gradients_equal_torchvision_s(case, masked, backend, make_inputs):
    tensors, options = make_inputs(**case)
    if not masked:
        del tensors["mask"]
    assert_close(run(tensors, backend, options), run(tensors, "torchvision", options))


@torchvision_only
def test_gradients_equal_torchvision_s_where_samples_are_on_the_border(backend, make_inputs):
    """Rows and columns -1, 0, last, last + 1, where a neighbour begins or ceases to be in the map."""
    tensors, options = make_inputs(size=1, padding=(0, 0), batch=1, height=6, width=6)
    with torch.no_grad():
        places = torch.tensor([-1.0, -1 + 1e-3, -1e-3, 5.0, 5 + 1e-3, 6.0])
        grid = torch.arange(6.0)
        tensors["offset"][0, 0] = (places - grid)[:, None]
        tensors["offset"][0, 1] = places - grid
    assert_close(run(tensors, backend, options), run(tensors, "torchvision", options))


@pytest.mark.parametrize("elements", [1, 700, 8000, 10**9])
def test_size_of_the_chunks_changes_no_gradient(elements, backend, make_inputs):
    """Chunks of one row of one image, of some rows, of all images, and one for all."""
    tensors, options = make_inputs(dtype=torch.float64)
    with in_chunks_of(10**9):
        expected = run(tensors, "gather", options)
    with in_chunks_of(elements):
        assert_close(run(tensors, backend, options), expected, tolerance=1e-12)


def test_gradients_are_those_of_finite_differences(backend, make_inputs):
    tensors, options = make_inputs(
        batch=2, height=2, width=3, channels=2, out=2, size=2, padding=(1, 0), dtype=torch.float64
    )

    def convolve(x, offset, mask, weight):
        with in_chunks_of(20):  # one row, of three
            return bc.deform_conv2d(x, offset, weight, mask=mask, backend=backend, **options)

    assert torch.autograd.gradcheck(convolve, tuple(tensors.values()))


def test_finite_differences_of_stride_dilation_and_epilogue(backend, make_inputs):
    tensors, options = make_inputs(
        batch=1, height=3, width=4, channels=2, out=3, size=2, stride=(2, 1), dilation=(1, 2), padding=(1, 2),
        dtype=torch.float64,
    )  # fmt: skip
    bias = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    projection = torch.tensor([[1.0, 2.0, -1.0], [0.5, -1.0, 3.0]], dtype=torch.float64, requires_grad=True)

    def convolve(x, offset, mask, weight, bias, projection):
        return bc.deform_conv2d(
            x, offset, weight, mask=mask, bias=bias, activation="relu", projection=projection, backend=backend,
            **options,
        )  # fmt: skip

    assert torch.autograd.gradcheck(convolve, (*tensors.values(), bias, projection))


def test_same_inputs_give_the_same_bits(make_inputs):
    tensors, options = make_inputs(height=24, width=40, channels=16, spread=4.0)
    with in_chunks_of(9 * 16 * 100):
        first, second = (run(tensors, "embedding_bag", options) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_rounds_products_only(dtype, make_inputs):
    """Gradients stay within the rounding of one matrix product; positions and sums are in float32."""
    tensors, options = make_inputs(channels=16, out=8, spread=30.0, height=40, width=40)
    expected = run(tensors, "embedding_bag", options)
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    with torch.autocast("cpu", dtype=dtype):
        y = bc.deform_conv2d(**leaves, **options)
    y.backward(torch.linspace(-1, 1, y.numel()).view_as(y).to(y.dtype))
    found = {"y": y.detach().float(), **{name: leaf.grad for name, leaf in leaves.items()}}
    assert all(found[name].dtype == torch.float32 for name in leaves)
    assert_close(found, expected, tolerance=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("wanted", ["x", "offset", "mask", "weight"])
def test_one_gradient_alone_can_be_wanted(wanted, backend, make_inputs):
    tensors, options = make_inputs()
    expected = run(tensors, "gather", options)[wanted]
    leaves = {name: tensor.detach().requires_grad_(name == wanted) for name, tensor in tensors.items()}
    y = bc.deform_conv2d(**leaves, backend=backend, **options)
    y.backward(torch.linspace(-1, 1, y.numel()).view_as(y))
    assert [name for name, leaf in leaves.items() if leaf.grad is not None] == [wanted]
    torch.testing.assert_close(leaves[wanted].grad, expected, rtol=1e-4, atol=1e-4)


def test_second_derivatives_are_refused(make_inputs):
    tensors, options = make_inputs(dtype=torch.float64)
    y = bc.deform_conv2d(**tensors, backend="embedding_bag", **options)
    (gradient,) = torch.autograd.grad(y.square().sum(), tensors["x"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# Values of an offset that are no position, or none that an integer can hold.
NO_POSITIONS = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("channel", [4, 5])  # y and x of a point
@pytest.mark.parametrize("value", NO_POSITIONS)
def test_an_offset_that_is_no_position_spoils_its_own_output_only(value, channel, masked, backend, make_inputs):
    """NaN gives NaN; a sample beyond the map is zero. The same with and without gradients, and no crash."""
    tensors, options = make_inputs(batch=2, height=8, width=12)
    if not masked:
        del tensors["mask"]
    clean = run(tensors, backend, options)
    with torch.no_grad():
        tensors["offset"][1, channel, 2, 3] = 100  # outside
    outside = run(tensors, backend, options)
    with torch.no_grad():
        tensors["offset"][1, channel, 2, 3] = value
    with torch.inference_mode():
        inferred = bc.deform_conv2d(**tensors, backend=backend, **options)
    found = run(tensors, backend, options)
    torch.testing.assert_close(inferred, found["y"], equal_nan=True)
    if value == value:
        assert_close(found, outside)
        return
    bad = torch.zeros_like(found["y"], dtype=torch.bool)
    bad[1, :, 2, 3] = True
    assert torch.equal(found["y"].isnan(), bad)
    torch.testing.assert_close(found["y"][~bad], clean["y"][~bad])
    assert found["weight"].isnan().any()
    assert found["x"].isfinite().all()
    assert found["offset"][0].isfinite().all()


@pytest.mark.parametrize("value", NO_POSITIONS)
def test_offsets_that_are_no_positions_throughout(value, backend, make_inputs):
    tensors, options = make_inputs(batch=2, height=24, width=32, size=7, padding=(3, 3), channels=8)
    with torch.no_grad():
        tensors["offset"].fill_(value)
        inferred = bc.deform_conv2d(**tensors, backend=backend, **options)
    for y in (inferred, run(tensors, backend, options)["y"]):
        assert y.isnan().all() if value != value else (y == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", NO_POSITIONS)
def test_half_precision_offsets_that_are_no_positions(value, dtype, backend, make_inputs):
    tensors, options = make_inputs(batch=1, height=8, width=8)
    tensors = {name: tensor.detach().to(dtype) for name, tensor in tensors.items()}
    tensors["offset"][0, 4, 2, 3] = torch.tensor(value)  # float16 makes infinity of 1e30
    y = bc.deform_conv2d(**tensors, backend=backend, **options)
    assert y.isnan().sum() == (4 if value != value else 0)
