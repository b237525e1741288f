"""Backends of the deformable convolution on a CUDA device, against float64 on the CPU."""

import functools

import pytest
import torch

import birefnet_core as bc
from birefnet_core.ops import deform_backends, execution
from birefnet_core.ops.deform_backends import BACKENDS
from birefnet_core.ops.deform_conv import add_deform_conv2d, best_backend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def skip_unavailable(backend, dtype):
    reason = deform_backends.unavailable(backend, torch.device("cuda"), dtype)
    if reason is not None:
        pytest.skip(reason)


def inputs(dtype, size=3, batch=2):
    """On the CPU in float64, rounded to a dtype; offsets stay within float32.

    No position is next to a pixel: where it is rounded to it in one precision only, its gradient is another one.
    """
    generator = torch.Generator().manual_seed(size)
    shapes = {
        "x": (batch, 64, 37, 300), "offset": (batch, 2 * size**2, 37, 300), "mask": (batch, size**2, 37, 300),
        "weight": (256, 64, size, size), "bias": (256,), "projection": (64, 256),
    }  # fmt: skip
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    offset = 3 * tensors["offset"]
    tensors["offset"] = offset.floor() + 0.01 + 0.98 * (offset - offset.floor())
    tensors["mask"] = 2 * tensors["mask"].sigmoid()
    tensors["weight"] /= 8 * size
    tensors["projection"] /= 16
    return {name: (t if name in ("offset", "mask") else t.to(dtype)).double() for name, t in tensors.items()}


def on_device(tensors, dtype):
    return {name: t.to("cuda", torch.float32 if name in ("offset", "mask") else dtype) for name, t in tensors.items()}


def assert_close(found, expected, dtype):
    error = (found.double().cpu() - expected).abs().max() / expected.abs().max()
    assert error <= {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}[dtype]


@functools.cache
def expected_result(dtype, size):
    """Of ``inputs`` on the CPU in float64, with a bias, ReLU and projection."""
    with torch.no_grad():
        return bc.deform_conv2d(**inputs(dtype, size), padding=size // 2, activation="relu", backend="embedding_bag")


def gradients(leaves, backend):
    """With respect to every tensor, of a weighted sum of the results."""
    for leaf in leaves.values():
        leaf.requires_grad_()
    y = bc.deform_conv2d(**leaves, padding=1, backend=backend)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y).to(y.device, y.dtype)
    return torch.autograd.grad(y, list(leaves.values()), weights)


@functools.cache
def expected_gradients(dtype):
    return gradients(inputs(dtype), "embedding_bag")


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_agree_with_float64(backend, dtype, size):
    skip_unavailable(backend, dtype)
    tensors = inputs(dtype, size)
    options = {"padding": size // 2, "activation": "relu"}
    with torch.no_grad():
        expected = expected_result(dtype, size)
        given = on_device(tensors, dtype)
        found = bc.deform_conv2d(**given, **options, backend=backend)
        total = torch.ones_like(found)
        with execution.use_memory_level(execution.MAX_LEVEL):
            add_deform_conv2d(total, **given, **options, backend=backend)
    assert found.dtype == dtype
    assert_close(found, expected, dtype)
    assert_close(total, expected + 1, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_agree_with_float64(backend, dtype):
    skip_unavailable(backend, dtype)
    given = on_device(inputs(dtype), dtype)
    found, expected = gradients(given, backend), expected_gradients(dtype)
    for tensor, one, other in zip(given.values(), found, expected, strict=True):
        assert one.dtype == tensor.dtype
        assert_close(one, other, torch.bfloat16 if dtype == torch.float16 else dtype)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_offset_that_is_no_position_spoils_its_own_output_only(backend, dtype, value, grad):
    skip_unavailable(backend, dtype)
    given = on_device(inputs(dtype), dtype)
    given["offset"][1, 4, 2, 3] = value
    with torch.set_grad_enabled(grad):
        given["weight"].requires_grad_(grad)
        y = bc.deform_conv2d(**given, padding=1, backend=backend)
    bad = torch.zeros_like(y, dtype=torch.bool)
    bad[1, :, 2, 3] = value != value
    assert torch.equal(y.isnan(), bad)
    if grad:
        y.sum().backward()
        torch.cuda.synchronize()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_fallback_can_be_captured_in_a_graph(dtype):
    given = on_device(inputs(dtype), dtype)
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            expected = bc.deform_conv2d(**given, padding=1, backend="embedding_bag")
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = bc.deform_conv2d(**given, padding=1, backend="embedding_bag")
        graph.replay()
        torch.testing.assert_close(found, expected)


def test_auto_needs_no_float32_for_half_precision():
    assert best_backend(torch.device("cuda"), torch.float16) in ("triton", "embedding_bag")
