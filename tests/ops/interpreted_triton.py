"""Cases of the Triton deformable convolution for Triton's interpreter; ``test_triton.py`` runs them.

Not collected by itself: TRITON_INTERPRET=1 must be set before Triton is imported. The interpreter needs about 25 ms for
a step of a program, a point of the kernel, so maps and kernels are small, and most cases have one program for each
image.
"""

import pytest
import torch
from torch import library

import birefnet_core as bc
from birefnet_core.ops import deform_backends
from birefnet_core.ops.deform_conv import add_deform_conv2d

launch = deform_backends.load("triton").launch
TABLES = (launch.FORWARD, launch.SAMPLES, launch.WEIGHT)


@pytest.fixture
def large_tiles(monkeypatch):
    for table in TABLES:
        for row, settings in table.items():
            monkeypatch.setitem(table, row, settings._replace(tile=(16, 16), channels=64, outputs=64))


def run(tensors, backend, options):
    """Result and gradients, of a loss that weighs every output differently."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    y = bc.deform_conv2d(**leaves, backend=backend, **options)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y))
    return {"y": y.detach(), **{name: leaf.grad for name, leaf in leaves.items()}}


def assert_close(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape
        scale = value.abs().max().item() or 1.0
        assert (found[name].to(value.dtype) - value).abs().max().item() <= tolerance * scale, name


CASES = {
    "batch": {"size": 2, "batch": 2, "height": 5, "width": 6},
    "one point": {"size": 1, "padding": (0, 0), "height": 7, "width": 9},
    "stride": {"size": 2, "stride": (2, 3)},
    "dilation": {"size": 2, "dilation": (2, 3), "padding": (2, 3)},
    "all at once": {"stride": (3, 2), "dilation": (1, 2), "padding": (0, 3), "height": 16, "width": 9},
    "far outside": {"size": 2, "spread": 50.0},
    "offsets of zero": {"size": 2, "spread": 0.0},  # samples exactly on pixels and on the border
}
# As many points as the network's largest kernel, and each of the above with those of its usual one.
SLOW_CASES = {
    "7 x 7": {"size": 7, "padding": (3, 3), "channels": 16, "out": 16, "height": 9, "width": 11},
    **{f"{name}, 3 x 3": {**case, "size": 3} for name, case in CASES.items() if case.get("size") == 2},
}


@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(case, id=name) for name, case in CASES.items()),
        *(pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in SLOW_CASES.items()),
    ],
)
def test_result_and_gradients_equal_torchvision_s(case, make_inputs, large_tiles):
    tensors, options = make_inputs(**{"batch": 1, **case})
    if case.get("spread") == 50.0:
        del tensors["mask"]
    double = {name: tensor.double() for name, tensor in tensors.items()}
    assert_close(run(tensors, "triton", options), run(double, "torchvision", options))


def test_result_and_gradients_on_the_border_equal_torchvision_s(make_inputs, large_tiles):
    """Rows and columns -1, 0, last, last + 1, where a neighbour begins or ceases to be in the map."""
    tensors, options = make_inputs(size=1, padding=(0, 0), batch=1, height=6, width=6)
    with torch.no_grad():
        places = torch.tensor([-1.0, -1 + 1e-3, -1e-3, 5.0, 5 + 1e-3, 6.0])
        grid = torch.arange(6.0)
        tensors["offset"][0, 0] = (places - grid)[:, None]
        tensors["offset"][0, 1] = places - grid
    assert_close(run(tensors, "triton", options), run(tensors, "torchvision", options))


@pytest.mark.parametrize("channels, out", [(16, 32), (40, 70), pytest.param(70, 140, marks=pytest.mark.slow)])
def test_tiles_and_blocks_of_the_table(channels, out, make_inputs, monkeypatch):
    """Several tiles, blocks of C and of O, which do not divide them, and several parts of the weights' gradient."""
    for table in TABLES:
        monkeypatch.setitem(table, "float", table["float"]._replace(channels=32, outputs=64))
    tensors, options = make_inputs(batch=1, height=5, width=9, size=1, padding=(0, 0), channels=channels, out=out)
    assert_close(run(tensors, "triton", options), run(tensors, "torchvision", options))


def test_indices_of_64_bits_give_the_same(make_inputs, large_tiles, monkeypatch):
    tensors, options = make_inputs(batch=1, height=5, width=6, size=2)
    expected = run(tensors, "triton", options)
    monkeypatch.setattr(launch, "_is_wide", lambda *tensors: True)
    assert_close(run(tensors, "triton", options), expected)


def test_gradients_are_those_of_finite_differences(make_inputs, large_tiles):
    tensors, options = make_inputs(batch=1, height=4, width=5, size=2, channels=3, out=2)
    generator = torch.Generator().manual_seed(2)
    offset = tensors["offset"].detach()  # 0.2 or more from the pixels, between which samples are bilinear
    tensors["offset"] = offset.floor() + 0.2 + 0.6 * torch.rand(offset.shape, generator=generator)
    found = run(tensors, "triton", options)
    seen = torch.linspace(-1, 1, found["y"].numel()).view_as(found["y"])
    for name, tensor in tensors.items():
        step = 0.05 * torch.randn(tensor.shape, generator=generator).clamp(-2, 2)
        with torch.no_grad():
            up, down = (
                bc.deform_conv2d(**{**tensors, name: tensor + sign * step}, backend="triton", **options)
                for sign in (1, -1)
            )
        difference = ((up - down) * seen).sum() / 2
        torch.testing.assert_close((found[name] * step).sum(), difference, rtol=1e-3, atol=1e-4)


def merged(tensors):
    """Offsets and mask as two views of one map, channels last, as one predicting convolution gives them."""
    both = torch.cat([tensors["offset"], tensors["mask"]], dim=1).detach().to(memory_format=torch.channels_last)
    offset, mask = both.split([tensors["offset"].shape[1], tensors["mask"].shape[1]], dim=1)
    return {"x": tensors["x"].detach(), "offset": offset, "mask": mask, "weight": tensors["weight"].detach()}


@pytest.mark.parametrize(
    ("dtype", "channels_last"),
    [
        (torch.float32, False),
        (torch.float16, True),
        pytest.param(torch.float32, True, marks=pytest.mark.slow),
        pytest.param(torch.float16, False, marks=pytest.mark.slow),
    ],
)
def test_epilogue_equals_the_operations_one_by_one(dtype, channels_last, make_inputs, large_tiles):
    tensors, options = make_inputs(batch=2, height=5, width=6, size=2, channels=6, out=70)
    generator = torch.Generator().manual_seed(1)
    bias, projection = torch.randn(70, generator=generator), torch.randn(9, 70, generator=generator) / 8
    expected = bc.deform_conv2d(**tensors, bias=bias, backend="torchvision", **options).relu()
    expected = torch.einsum("bohw,po->bphw", expected, projection).detach()
    tensors = {name: tensor.to(dtype) for name, tensor in merged(tensors).items()}
    if channels_last:  # weights that need no copy
        tensors["weight"] = tensors["weight"].to(memory_format=torch.channels_last)
    epilogue = {"bias": bias.to(dtype), "activation": "relu", "projection": projection.to(dtype), "backend": "triton"}
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    found = bc.deform_conv2d(**tensors, **epilogue, **options)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert_close({"y": found}, {"y": expected}, tolerance)

    total = torch.randn(expected.shape, generator=generator).to(memory_format=torch.channels_last)
    rows = {name: tensor[:, :, 2:4] if name in ("offset", "mask") else tensor for name, tensor in tensors.items()}
    added = total.clone()
    add_deform_conv2d(added, **rows, **epilogue, padding=options["padding"], first_row=2)
    expected = total.index_add(2, torch.tensor([2, 3]), expected[:, :, 2:4])
    assert_close({"y": added}, {"y": expected}, tolerance)


def test_gradients_through_the_epilogue(make_inputs, large_tiles):
    tensors, options = make_inputs(batch=1, height=4, width=5, size=2)
    tensors |= {"bias": torch.randn(4), "projection": torch.randn(3, 4)}
    options |= {"activation": "relu"}
    assert_close(run(tensors, "triton", options), run(tensors, "torchvision", options))


def test_a_projection_to_many_channels(make_inputs, large_tiles):
    tensors, options = make_inputs(batch=1, height=4, width=5, size=1, padding=(0, 0))
    tensors = {**merged(tensors), "projection": torch.randn(launch.MOST_PROJECTED + 1, 4)}
    found, expected = (bc.deform_conv2d(**tensors, backend=name, **options) for name in ("triton", "gather"))
    assert_close({"y": found}, {"y": expected})


def test_half_precision_sums_and_samples_in_float32(make_inputs, monkeypatch):
    """Rounded are inputs, samples and results, not positions, of which float16 has no fractions past 256."""
    for table in TABLES:
        for row, settings in table.items():
            monkeypatch.setitem(table, row, settings._replace(tile=(2, 1024)))
    tensors, options = make_inputs(batch=1, height=2, width=600, size=1, padding=(0, 0), channels=16, out=16)
    tensors = {name: tensor.detach().half() for name, tensor in tensors.items()}
    double = {name: tensor.double() for name, tensor in tensors.items()}
    assert_close(run(tensors, "triton", options), run(double, "torchvision", options), tolerance=2e-3)


@pytest.mark.parametrize("wanted", ["x", "offset", "mask", "weight"])
def test_one_gradient_alone_can_be_wanted(wanted, make_inputs, large_tiles):
    tensors, options = make_inputs(batch=1, height=4, width=5, size=1, padding=(0, 0))
    expected = run(tensors, "gather", options)[wanted]
    leaves = {name: tensor.detach().requires_grad_(name == wanted) for name, tensor in tensors.items()}
    y = bc.deform_conv2d(**leaves, backend="triton", **options)
    y.backward(torch.linspace(-1, 1, y.numel()).view_as(y))
    assert [name for name, leaf in leaves.items() if leaf.grad is not None] == [wanted]
    torch.testing.assert_close(leaves[wanted].grad, expected, rtol=1e-4, atol=1e-4)


def test_an_offset_that_is_no_position_spoils_its_own_output_only(make_inputs, large_tiles):
    """Each kind of value for y and for x of a point, at places of their own."""
    tensors, options = make_inputs(batch=1, height=4, width=6, size=2)
    spoilt = torch.zeros(tensors["mask"].shape[2:], dtype=torch.bool)
    with torch.no_grad():
        for column, value in enumerate((float("nan"), float("inf"), -1e30), start=1):
            for row, channel in ((1, 4), (2, 5)):  # y and x of point 2
                tensors["offset"][0, channel, row, column] = value
                tensors["mask"][0, 2, row, column] = 0.0
                spoilt[row, column] = value != value
        inferred = bc.deform_conv2d(**tensors, backend="triton", **options)
        expected = bc.deform_conv2d(**tensors, backend="gather", **options)
    torch.testing.assert_close(inferred, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    assert torch.equal(inferred.isnan(), spoilt.expand(inferred.shape))
    found = run(tensors, "triton", options)
    torch.testing.assert_close(found["y"], inferred, equal_nan=True)
    assert found["x"].isfinite().all()
    for name, channels in (("offset", [4, 5]), ("mask", [2])):
        nan = torch.zeros(found[name].shape, dtype=torch.bool)
        nan[0, channels] = spoilt
        assert torch.equal(found[name].isnan(), nan), name


def test_deterministic_gradients_are_refused(make_inputs):
    tensors, options = make_inputs(batch=1, height=2, width=2, size=1, padding=(0, 0))
    y = bc.deform_conv2d(**tensors, backend="triton", **options)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="backend='gather'"):
            y.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_operators_are_registered_as_torch_wants_them(make_inputs, large_tiles):
    tensors, _ = make_inputs(batch=1, height=3, width=4, size=1, padding=(0, 0))
    x, offset, mask, weight = (tensor.detach() for tensor in tensors.values())
    arguments = (x, offset, weight, mask, [1, 1], [0, 0], [1, 1], 0)
    operators = torch.ops.birefnet
    leaves = (tensors["x"], tensors["offset"], tensors["weight"], tensors["mask"])
    library.opcheck(operators.deform_conv2d.default, leaves + arguments[4:])
    some = ("test_schema", "test_faketensor")
    by_out = torch.ones(1, 4, 3, 4)
    library.opcheck(operators.deform_conv2d_backward.default, (by_out, *arguments, [True] * 4), test_utils=some)
    out = torch.zeros(1, 2, 3, 4)
    epilogue = (torch.ones(4), True, torch.ones(2, 4), True)
    library.opcheck(operators.deform_conv2d_out.default, (out, *arguments, *epilogue), test_utils=some)


def test_compiling_sees_one_graph(make_inputs, large_tiles):
    tensors, options = make_inputs(batch=1, height=3, width=4, size=1, padding=(0, 0))
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    compiled = torch.compile(bc.deform_conv2d, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        found = compiled(**tensors, backend="triton", **options)
        torch.testing.assert_close(found, bc.deform_conv2d(**tensors, backend="gather", **options))
