"""Attention inside windows on a GPU: both backends against float64, and which of torch's kernels run."""

import pytest
import torch

from birefnet_core.network.encoders import swin
from birefnet_core.ops import execution
from birefnet_core.ops.window_attention import triton_unavailable, window_attention

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

# Window, height, width, heads: maps of Swin-L and Swin-T, with padding and without, and less than a window.
MAPS = [(12, 32, 32, 6), (12, 24, 36, 2), (12, 5, 40, 2), (7, 32, 32, 3), (7, 14, 21, 24), (7, 3, 50, 1)]
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def inputs(window, height, width, heads, dtype):
    generator = torch.Generator().manual_seed(window * height + width)
    tokens, channels = window * window, heads * 32
    shapes = (2, height, width, 3 * channels), (3 * channels,), (heads, tokens, tokens)
    return [torch.randn(shape, generator=generator).to("cuda", dtype) for shape in shapes]


def small_swin(window):
    torch.manual_seed(0)
    config = swin.SwinConfig(embed_dim=64, depths=(2, 2, 2, 2), num_heads=(2, 4, 8, 16), window_size=window)
    return swin.SwinTransformer(config).eval()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("window", "height", "width", "heads"), MAPS)
@pytest.mark.parametrize("kind", ["triton", "sdpa"])
def test_backends_equal_float64_on_the_cpu(kind, window, height, width, heads, shifted, dtype):
    device = torch.device("cuda", torch.cuda.current_device())
    if kind == "triton" and (reason := triton_unavailable(device, dtype, window, 32)):
        pytest.skip(reason)
    options = {"window": window, "num_heads": heads, "shift": window // 2 if shifted else 0}
    tensors = inputs(window, height, width, heads, dtype)
    found = window_attention(*tensors, **options, backend=kind)
    expected = window_attention(*(t.double().cpu() for t in tensors), **options)
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(found.double().cpu(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_equal_float64_on_the_cpu(dtype):
    options = {"window": 7, "num_heads": 3, "shift": 3}
    tensors = [t.requires_grad_() for t in inputs(7, 16, 18, 3, dtype)]
    exact = [t.detach().double().cpu().requires_grad_() for t in tensors]
    found = torch.autograd.grad(window_attention(*tensors, **options).float().square().sum(), tensors)
    expected = torch.autograd.grad(window_attention(*exact, **options).square().sum(), exact)
    for one, other in zip(found, expected, strict=True):
        error = (one.double().cpu() - other).norm() / other.norm()
        assert error < {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("window", [7, 12])
@pytest.mark.parametrize("with_gradients", [False, True])
def test_sdpa_runs_the_memory_efficient_kernel_only(window, dtype, with_gradients, real_cuda):
    """Neither the plain one, which computes in float32, nor cuDNN's, which makes plans for each new shape."""
    tensors = [t.requires_grad_(with_gradients) for t in inputs(window, 20, 33, 2, dtype)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        window_attention(*tensors, window=window, num_heads=2, shift=window // 2, backend="sdpa")
    names = {event.key for event in profile.key_averages()}
    assert "aten::_scaled_dot_product_efficient_attention" in names
    assert not [name for name in names if "attention_math" in name or "cudnn_attention" in name or "bmm" in name]


@pytest.mark.parametrize("window", [7, 12])
@pytest.mark.parametrize("fused", [False, True])
def test_the_encoder_equals_the_cpu(window, fused):
    model, x = small_swin(window), torch.randn(2, 3, 200, 168)
    with torch.inference_mode():
        expected = model(x)
        if fused:
            for module in model.modules():
                if isinstance(module, swin.WindowAttention):
                    module.fuse()
        model.cuda().half()
        for level in range(execution.MAX_LEVEL + 1):
            with execution.use_memory_level(level):
                found = model(x.cuda().half())
            for one, other in zip(found, expected, strict=True):
                assert (one.float().cpu() - other).abs().max() < 0.02 * other.abs().max()


def test_the_encoder_in_a_graph():
    model = small_swin(12).cuda().half()
    x, new = (torch.randn(1, 3, 128, 192, device="cuda", dtype=torch.half) for _ in range(2))
    with torch.inference_mode():
        expected = [model(x), model(new)]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = model(x)
        for example, maps in zip((x.clone(), new), expected, strict=True):
            x.copy_(example)
            graph.replay()
            torch.testing.assert_close(found, maps, atol=0, rtol=0)


@pytest.mark.slow
def test_the_compiled_encoder_equals_the_plain_one(real_cuda):
    model, x = small_swin(12).cuda().half(), torch.randn(1, 3, 128, 192, device="cuda", dtype=torch.half)
    with torch.inference_mode():
        expected = model(x)
        found = torch.compile(model, fullgraph=True)(x)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 0.02 * other.abs().max()
