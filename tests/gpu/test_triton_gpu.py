"""The Triton deformable convolution on a CUDA device: real sizes, real compilation, operators."""

import pytest
import torch
from torch import library

import birefnet_core as bc
from birefnet_core.ops import deform_backends
from birefnet_core.ops.deform_conv import add_deform_conv2d
from tests import emulated_cuda

pytestmark = pytest.mark.gpu
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

REASON = deform_backends.unavailable("triton", torch.device("cuda", torch.cuda.current_device()), torch.float32)
if REASON is not None:
    pytest.skip(REASON, allow_module_level=True)

# Largest difference, as a part of the largest value.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.fixture(autouse=True)
def exact_products():
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = allowed


def make(size, side, *, batch=1, channels=64, out=256, projected=64, dtype=torch.float32):
    """x, offset, mask, weight, bias, projection; offsets and mask are views of one map, channels last."""
    generator = torch.Generator("cuda").manual_seed(size)
    points = size**2

    def randn(*shape):
        return torch.randn(shape, generator=generator, device="cuda")

    x = randn(batch, channels, side, side + 3).to(dtype).to(memory_format=torch.channels_last)
    offset = 2 * randn(batch, 2 * points, side, side + 3)
    # Not next to a pixel: where a position is rounded to it in one precision only, its gradient is another one.
    offset = offset.floor() + 0.01 + 0.98 * (offset - offset.floor())
    predicted = torch.cat([offset, randn(batch, points, side, side + 3)], dim=1)
    predicted[:, 2 * points :].sigmoid_().mul_(2)
    predicted = predicted.to(dtype).to(memory_format=torch.channels_last)
    return {
        "x": x,
        "offset": predicted[:, : 2 * points],
        "mask": predicted[:, 2 * points :],
        "weight": (randn(out, channels, size, size) / (8 * size)).to(dtype),
        "bias": randn(out).to(dtype),
        "projection": (randn(projected, out) / 16).to(dtype),
    }


def assert_close(found, expected, tolerance):
    assert found.shape == expected.shape
    difference = (found.double() - expected).abs().max()
    assert difference <= tolerance * expected.abs().max(), (difference / expected.abs().max()).item()


def in_double(tensors):
    return {name: tensor.detach().double().contiguous() for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    "size, side, batch", [(7, emulated_cuda.side(256, 64), 1), (3, 128, 2), (1, 128, 1), (7, 32, 3)]
)
def test_result_equals_torchvision_s(size, side, batch, dtype):
    tensors = make(size, side, batch=batch, dtype=dtype)
    plain = {name: tensor for name, tensor in tensors.items() if name not in ("bias", "projection")}
    double = in_double(tensors)
    expected = bc.deform_conv2d(**double, activation="relu", padding=size // 2, backend="torchvision")
    unfinished = {name: double[name] for name in plain}
    expected_plain = bc.deform_conv2d(**unfinished, padding=size // 2, backend="torchvision")
    with torch.inference_mode():
        found_plain = bc.deform_conv2d(**plain, padding=size // 2, backend="triton")
        found = bc.deform_conv2d(**tensors, activation="relu", padding=size // 2, backend="triton")
        total = torch.ones_like(found)
        add_deform_conv2d(total, **tensors, activation="relu", padding=size // 2, backend="triton")
    assert_close(found_plain, expected_plain, TOLERANCES[dtype])
    assert_close(found, expected, TOLERANCES[dtype])
    assert_close(total, expected + 1, TOLERANCES[dtype])


@pytest.mark.parametrize("channels, out, projected", [(40, 100, 24), (16, 300, 64), (130, 32, 200)])
def test_channels_that_no_block_divides(channels, out, projected):
    tensors = make(3, 40, channels=channels, out=out, projected=projected)
    expected = bc.deform_conv2d(**in_double(tensors), padding=1, backend="torchvision")
    with torch.inference_mode():
        assert_close(bc.deform_conv2d(**tensors, padding=1, backend="triton"), expected, 1e-4)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("size, side, batch", [(7, 64, 2), (3, 128, 1), (1, 64, 1)])
def test_gradients_equal_torchvision_s(size, side, batch, dtype):
    tensors = make(size, side, batch=batch, dtype=dtype)
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    double = {name: tensor.requires_grad_() for name, tensor in in_double(tensors).items()}
    found = bc.deform_conv2d(**leaves, padding=size // 2, backend="triton")
    expected = bc.deform_conv2d(**double, padding=size // 2, backend="torchvision")
    by_out = torch.randn_like(expected).to(dtype)
    found.backward(by_out)
    expected.backward(by_out.double())
    for name, leaf in leaves.items():
        # Gradients pass through two products and the rounded gradient of the samples.
        assert_close(leaf.grad, double[name].grad, 3 * TOLERANCES[dtype])


def test_autocast_rounds_products_only():
    tensors = make(3, 64)
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    with torch.autocast("cuda", dtype=torch.bfloat16):
        y = bc.deform_conv2d(**leaves, padding=1, backend="triton")
    y.float().square().mean().backward()
    assert y.dtype == torch.float32
    assert all(leaf.grad.dtype == torch.float32 and leaf.grad.isfinite().all() for leaf in leaves.values())
    assert_close(y.detach(), bc.deform_conv2d(**in_double(tensors), padding=1, backend="torchvision"), 2e-2)


def test_an_offset_of_nan_spoils_its_own_output_only():
    tensors = make(3, 32, dtype=torch.float16)
    tensors["offset"][0, 4, 5, 6] = float("nan")
    tensors["offset"][0, 4, 7, 8] = float("inf")
    tensors["mask"][0, 2, 5, 6] = 0
    with torch.inference_mode():
        y = bc.deform_conv2d(**tensors, padding=1, activation="relu", backend="triton")
    bad = torch.zeros_like(y, dtype=torch.bool)
    bad[0, :, 5, 6] = True
    assert torch.equal(y.isnan(), bad)


def test_maps_beyond_2_31_elements():
    """An image of 64 channels and 6000 x 6000 pixels; the far corner is read and written at the right place."""
    side = 6000
    if torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip("needs 16 GB")
    x = torch.zeros(1, side, side, 64, dtype=torch.float16, device="cuda").permute(0, 3, 1, 2)  # channels last
    x[0, :, -1, -1] = 1
    offset = torch.zeros(1, 2, side, side, dtype=torch.float16, device="cuda")
    weight = torch.ones(64, 64, 1, 1, dtype=torch.float16, device="cuda")
    with torch.inference_mode():
        y = bc.deform_conv2d(x, offset, weight, backend="triton")
    assert (y[0, :, -1, -1] == 64).all()
    assert (y[0, :, :-1].amax() == 0).item() and (y[0, :, -1, :-1] == 0).all()


def test_offsets_beyond_2_31_elements():
    """Where channels are not last in memory, those of the last points begin beyond 2^31."""
    side = 4736
    if torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip("needs 16 GB")
    x = torch.zeros(1, 16, side, side, dtype=torch.float16, device="cuda")
    x[0, :, 4, 3] = 1
    offset = torch.zeros(1, 2 * 49, side, side, dtype=torch.float16, device="cuda")
    offset[0, -2, 0, 0] = 1  # the last point, which is at 3, 3 for the first output
    weight = torch.ones(16, 16, 7, 7, dtype=torch.float16, device="cuda")
    with torch.inference_mode():
        y = bc.deform_conv2d(x, offset, weight, padding=3, backend="triton")
    assert (y[0, :, 0, 0] == 16).all()
    assert (y[0, :, 8:].amax() == 0).item()


def test_operators_are_registered_as_torch_wants_them(real_cuda):
    tensors = make(3, 16, channels=16, out=32, projected=16)
    arguments = (*(tensors[name] for name in ("x", "offset", "weight", "mask")), [1, 1], [1, 1], [1, 1], 0)
    leaves = tuple(t.detach().clone().requires_grad_() if isinstance(t, torch.Tensor) else t for t in arguments)
    deform_backends.load("triton")
    operators = torch.ops.birefnet
    # Sums of gradients have no fixed order, and so differ in their last bits.
    library.opcheck(operators.deform_conv2d.default, leaves, atol=1e-3, rtol=1e-3)
    out = torch.zeros_like(tensors["x"])
    epilogue = (tensors["bias"], True, tensors["projection"], True)
    some = ("test_schema", "test_faketensor")
    library.opcheck(operators.deform_conv2d_out.default, (out, *arguments, *epilogue), test_utils=some)


def test_compiled_equals_eager(real_cuda):
    tensors = make(3, 32, dtype=torch.float16)
    compiled = torch.compile(bc.deform_conv2d, fullgraph=True)
    options = {"padding": 1, "activation": "relu", "backend": "triton"}
    with torch.inference_mode():
        assert_close(compiled(**tensors, **options), bc.deform_conv2d(**tensors, **options).double(), 2e-3)


def test_capturing_in_a_graph():
    tensors = make(3, 32, dtype=torch.float16)
    options = {"padding": 1, "activation": "relu", "backend": "triton"}
    with torch.inference_mode():
        expected = bc.deform_conv2d(**tensors, **options)  # compiled before
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = bc.deform_conv2d(**tensors, **options)
        graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(found, expected)


def test_no_columns_are_made():
    """Forward and backward need a fraction of the columns' 64 * 49 values a position."""
    tensors = make(7, 128, dtype=torch.bfloat16)
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    columns = leaves["x"].numel() * 49 * leaves["x"].element_size()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    bc.deform_conv2d(**leaves, padding=3, backend="triton").float().sum().backward()
    assert torch.cuda.max_memory_allocated() - before < columns
