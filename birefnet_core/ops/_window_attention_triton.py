# mypy: disable-error-code="no-untyped-def"
"""Shifted-window attention in one Triton kernel, which reads q, k and v where the linear layer wrote them.

A program computes some queries of one window and one head. It finds the tokens of its window in the map by arithmetic,
so nothing is padded, rolled or partitioned.

Shapes: B batch, H W map, C channels, h heads, N = window * window tokens.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, library

from ..text import first_line

# Before, Triton does not use tensor cores, and there is no bfloat16.
LEAST_CAPABILITY = (8, 0)


@triton.jit
def _locate(token, row_0, column_0, height, width, shift_y, shift_x, WINDOW: tl.constexpr):
    """Where tokens of a window are in the map.

    Returns:
        Their index in the map, whether they are in it (others are padding), and the region each may attend to.
    """
    padded_height = tl.cdiv(height, WINDOW) * WINDOW
    padded_width = tl.cdiv(width, WINDOW) * WINDOW
    row = row_0 + token // WINDOW + shift_y
    column = column_0 + token % WINDOW + shift_x
    wrapped_row = row >= padded_height
    wrapped_column = column >= padded_width
    row = tl.where(wrapped_row, row - padded_height, row)
    column = tl.where(wrapped_column, column - padded_width, column)
    inside = (token < WINDOW * WINDOW) & (row < height) & (column < width)
    region = tl.where(wrapped_row, 2, 0) + tl.where(wrapped_column, 1, 0)
    return row * width + column, inside, region


@triton.jit(do_not_specialize=["height", "width", "shift_y", "shift_x", "num_heads"])
def window_attention_kernel(
    qkv, qkv_bias, relative_bias, out,
    height, width, shift_y, shift_x, num_heads, channels,
    WINDOW: tl.constexpr, HEAD_DIM: tl.constexpr, SCALE: tl.constexpr, BIAS_STRIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    TOKENS: tl.constexpr = WINDOW * WINDOW
    LOG2_E: tl.constexpr = 1.4426950408889634
    FORBIDDEN: tl.constexpr = -1.0e30  # finite: with -inf, keys of which none is allowed would give NaN
    blocks = tl.cdiv(TOKENS, BLOCK_M)
    program = tl.program_id(0)
    block = program % blocks
    head = (program // blocks) % num_heads
    window = program // blocks // num_heads
    row_0 = window // tl.cdiv(width, WINDOW) * WINDOW
    column_0 = window % tl.cdiv(width, WINDOW) * WINDOW
    first = tl.program_id(1).to(tl.int64) * height * width

    head_dims = head * HEAD_DIM + tl.arange(0, HEAD_DIM)
    m = block * BLOCK_M + tl.arange(0, BLOCK_M)
    q_index, q_inside, q_region = _locate(m, row_0, column_0, height, width, shift_y, shift_x, WINDOW)
    q_rows = qkv + (first + q_index) * (3 * channels)
    q = tl.load(q_rows[:, None] + head_dims[None, :], mask=q_inside[:, None], other=0.0)
    # Padding is zero where the linear layer would read it, so its k and v are the layer's bias. Its q is not needed.
    k_padding = tl.load(qkv_bias + channels + head_dims).to(q.dtype)
    v_padding = tl.load(qkv_bias + 2 * channels + head_dims).to(q.dtype)
    bias_rows = relative_bias + (head * TOKENS + tl.minimum(m, TOKENS - 1)) * BIAS_STRIDE

    highest = tl.full([BLOCK_M], FORBIDDEN, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    values = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    for start in range(0, TOKENS, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        index, inside, region = _locate(n, row_0, column_0, height, width, shift_y, shift_x, WINDOW)
        rows = qkv + (first + index) * (3 * channels) + channels
        keys = rows[:, None] + head_dims[None, :]
        k = tl.load(keys, mask=inside[:, None], other=0.0)
        v = tl.load(keys + channels, mask=inside[:, None], other=0.0)
        k = tl.where(inside[:, None], k, k_padding[None, :])
        v = tl.where(inside[:, None], v, v_padding[None, :])
        bias = tl.load(bias_rows[:, None] + n[None, :], mask=(n < BIAS_STRIDE)[None, :], other=0.0).to(tl.float32)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * (SCALE * LOG2_E) + bias * LOG2_E
        allowed = (q_region[:, None] == region[None, :]) & (n < TOKENS)[None, :]
        logits = tl.where(allowed, logits, FORBIDDEN)
        new_highest = tl.maximum(highest, tl.max(logits, 1))
        weights = tl.exp2(logits - new_highest[:, None])
        decay = tl.exp2(highest - new_highest)
        total = total * decay + tl.sum(weights, 1)
        values = tl.dot(weights.to(v.dtype), v, values * decay[:, None], input_precision="ieee")
        highest = new_highest
    out_rows = out + (first + q_index) * channels
    values = (values / total[:, None]).to(q.dtype)
    tl.store(out_rows[:, None] + head_dims[None, :], values, mask=q_inside[:, None])


class Settings(NamedTuple):
    """How the kernel is compiled.

    Attributes:
        queries: Of a program.
        keys: Read at a time.
        warps: Of a program.
        stages: Depth of the pipeline of loads.
    """

    queries: int
    keys: int
    warps: int
    stages: int


def default_settings(tokens: int, dtype: torch.dtype) -> Settings:
    """Settings for windows of so many tokens.

    They are fixed, because tuning at run time would cost the first image more than it could save.
    """
    if dtype == torch.float32:  # not on tensor cores, and needs twice the registers
        return Settings(32, 32, 4, 1)
    return Settings(64, 64, 4, 1 if tokens <= 64 else 2)


@cache
def unavailable(device: torch.device, dtype: torch.dtype, window: int, head_dim: int) -> str | None:
    """Why the kernel cannot be used; None where it can. It is compiled and run once to find out.

    Args:
        device: Where the map is.
        dtype: Of q, k and v.
        window: Side of a window.
        head_dim: Channels of a head.
    """
    if not isinstance(window_attention_kernel, triton.JITFunction):
        return None  # Triton's interpreter runs everywhere
    if device.type != "cuda" or not torch.cuda.is_available():
        return "it needs a CUDA device"
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        name, least = torch.cuda.get_device_name(device), ".".join(map(str, LEAST_CAPABILITY))
        return f"it needs compute capability {least}, which {name} has not"
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"it does not compute in {dtype}"
    if head_dim < 16 or head_dim & (head_dim - 1):
        return f"{head_dim} channels of a head are not a power of two"
    tokens = window * window
    make = partial(torch.zeros, device=device, dtype=dtype)
    try:
        run(
            make(1, 1, 1, 3 * head_dim), make(3 * head_dim), make(1, tokens, -(-tokens // 16) * 16),
            window=window, shift=(0, 0), num_heads=1,
        )  # fmt: skip
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler may raise
        return f"it cannot be compiled or launched ({first_line(error)})"
    return None


def run(
    qkv: Tensor,
    qkv_bias: Tensor,
    relative_bias: Tensor,
    *,
    window: int,
    shift: tuple[int, int],
    num_heads: int,
    settings: Settings | None = None,
) -> Tensor:
    """``window_attention`` by the kernel, without gradients.

    Args:
        qkv: B, H, W, 3C.
        qkv_bias: 3C.
        relative_bias: h, N, N or more.
        window: Side of a window.
        shift: Rows and columns by which the map is rolled.
        num_heads: h.
        settings: How to compile the kernel; None for ``default_settings``.

    Returns:
        B, H, W, C.
    """
    if torch.compiler.is_compiling():
        return torch.ops.birefnet.window_attention(qkv, qkv_bias, relative_bias, window, *shift, num_heads)
    with torch.cuda.device_of(qkv):
        return _launch(window_attention_kernel, qkv, qkv_bias, relative_bias, window, *shift, num_heads, settings)


def _launch(
    kernel: Any, qkv: Tensor, qkv_bias: Tensor, relative_bias: Tensor,
    window: int, shift_y: int, shift_x: int, num_heads: int, settings: Settings | None = None,
) -> Tensor:  # fmt: skip
    batch, height, width, channels = qkv.shape[0], qkv.shape[1], qkv.shape[2], qkv.shape[3] // 3
    tokens, head_dim = window * window, channels // num_heads
    settings = settings or default_settings(tokens, qkv.dtype)
    out = qkv.new_empty(batch, height, width, channels)
    windows = triton.cdiv(height, window) * triton.cdiv(width, window)
    kernel[(windows * num_heads * triton.cdiv(tokens, settings.queries), batch)](
        qkv.contiguous(), qkv_bias.contiguous(), relative_bias.contiguous(), out,
        height, width, shift_y, shift_x, num_heads, channels,
        # A constant: inductor passes numbers as float64, which the sums would then be in.
        WINDOW=window, HEAD_DIM=head_dim, SCALE=head_dim**-0.5, BIAS_STRIDE=relative_bias.shape[-1],
        BLOCK_M=settings.queries, BLOCK_N=settings.keys,
        num_warps=settings.warps, num_stages=settings.stages,
    )  # fmt: skip
    return out


def _operator(
    qkv: Tensor, qkv_bias: Tensor, relative_bias: Tensor, window: int, shift_y: int, shift_x: int, num_heads: int
) -> Tensor:
    kernel: Any = window_attention_kernel
    if hasattr(library, "wrap_triton"):
        kernel = library.wrap_triton(kernel)
    return _launch(kernel, qkv, qkv_bias, relative_bias, window, shift_y, shift_x, num_heads)


def _fake(
    qkv: Tensor, qkv_bias: Tensor, relative_bias: Tensor, window: int, shift_y: int, shift_x: int, num_heads: int
) -> Tensor:
    return qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)


# The schema, because torch 2.4 cannot infer it from annotations that are strings.
_SCHEMA = (
    "(Tensor qkv, Tensor qkv_bias, Tensor relative_bias, int window, int shift_y, int shift_x, int num_heads) -> Tensor"
)
_register = getattr(library, "triton_op", library.custom_op)  # torch < 2.6 cannot see into the kernel
_register("birefnet::window_attention", _operator, mutates_args=(), schema=_SCHEMA).register_fake(_fake)
