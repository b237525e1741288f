"""Attention inside the windows of a map, plain or shifted, as in the detection form of Swin.

The map is padded at its bottom and right to whole windows, then rolled. Padding takes part in attention. Tokens that
rolling brought from the other side of the map attend to each other only. The linear layer that makes q, k and v reads
zeros where the map is padded, so all padding has its bias as q, k and v, and need not be computed.

Shapes: B batch, H W map, C channels, h heads, d head dimensions; I rows of J windows of N = window * window tokens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import ConfigError
from ..text import first_line

BACKENDS = ("triton", "sdpa")

# The memory-efficient kernel launches one block for each batch item in a dimension of CUDA's grid that ends here.
_MOST_WINDOWS = 65535
# The stride of masks that the memory-efficient kernel reads without a copy, and that the Triton kernel reads fast.
BIAS_ALIGNMENT = 16


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows that have the same mask.

    Attributes:
        count: Their number, over all images.
        forbidden: N, N bool, True where a token (row) must not attend to another (column); None where all may. The last
            dimension is padded to ``BIAS_ALIGNMENT``.
    """

    count: int
    forbidden: Tensor | None


@dataclasses.dataclass(frozen=True)
class WindowLayout:
    """Where the tokens of a map are once it is cut into windows.

    Attributes:
        index: I * J * B * N, the token of the map at each place. At places of padding it is that of any token.
        inverse: B * H * W, the place of each token.
        padding: Places without a token; None where the map is not padded.
        groups: The windows, in the order of ``index``.
    """

    index: Tensor
    inverse: Tensor
    padding: Tensor | None
    groups: list[Windows]


class WindowLayouts:
    """Layouts of maps of one batch size in windows of one size; each is made once.

    They take a dozen small kernels each, so blocks that work on the same map should share one object of this class.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._made: dict[tuple[int, int, tuple[int, int]], WindowLayout] = {}

    def get(self, x: Tensor, shift: tuple[int, int]) -> WindowLayout:
        """The layout of a map.

        Args:
            x: B, H, W, any.
            shift: Rows and columns by which it is rolled.
        """
        key = x.shape[1], x.shape[2], shift
        if key not in self._made:
            self._made[key] = _make_layout(x.shape[0], x.shape[1], x.shape[2], self.window, shift, x.device)
        return self._made[key]


def window_attention(
    qkv: Tensor,
    qkv_bias: Tensor,
    relative_bias: Tensor,
    *,
    window: int,
    num_heads: int,
    shift: int | tuple[int, int] = 0,
    layouts: WindowLayouts | None = None,
    backend: str = "auto",
) -> Tensor:
    """Multi-head attention inside the windows of a map.

    Args:
        qkv: B, H, W, 3C: q, k and v of the map without padding, each of h heads of d channels.
        qkv_bias: 3C, q, k and v of padding.
        relative_bias: h, N, N, added to the logits. The last dimension may be longer; what is beyond N is not used.
        window: Side of a window.
        num_heads: h.
        shift: Rows and columns by which the padded map is rolled, less than ``window``.
        layouts: Shared by calls with maps of the same batch size; None for layouts of this call.
        backend: "triton" for one kernel without copies, which has no gradients and runs on CUDA; "sdpa" for torch's
            attention; "auto" for the faster one that can be used.

    Returns:
        B, H, W, C.

    Raises:
        ConfigError: An unknown backend, one that cannot be used here, or shapes that do not fit.
    """
    rolled = (shift, shift) if isinstance(shift, int) else shift
    _check(qkv, qkv_bias, relative_bias, window, rolled, num_heads)
    if _choose(backend, qkv, qkv_bias, relative_bias, window, num_heads) == "triton":
        if torch.compiler.is_compiling():  # registered when the backend was chosen; an import cannot be traced
            return torch.ops.birefnet.window_attention(qkv, qkv_bias, relative_bias, window, *rolled, num_heads)
        return _load_triton().run(qkv, qkv_bias, relative_bias, window=window, shift=rolled, num_heads=num_heads)
    layout = (layouts or WindowLayouts(window)).get(qkv, rolled)
    return _sdpa(qkv, qkv_bias, relative_bias, layout, num_heads)


def best_backend(device: torch.device, dtype: torch.dtype, window: int, head_dim: int) -> str:
    """The fastest backend without gradients, outside of ``torch.compile`` and export.

    Args:
        device: Where the map is.
        dtype: Of q, k and v.
        window: Side of a window.
        head_dim: d.
    """
    if device.type != "cuda":
        return "sdpa"
    reason = triton_unavailable(device, dtype, window, head_dim)
    if reason is None:
        return "triton"
    _warn_once(reason)
    return "sdpa"


@cache
def triton_unavailable(device: torch.device, dtype: torch.dtype, window: int, head_dim: int) -> str | None:
    """Why the Triton kernel cannot be used; None where it can.

    Args:
        device: Where the map is.
        dtype: Of q, k and v.
        window: Side of a window.
        head_dim: d.
    """
    try:
        return _load_triton().unavailable(device, dtype, window, head_dim)
    except ImportError as error:
        return first_line(error)


@cache
def _load_triton() -> ModuleType:
    return import_module("._window_attention_triton", __package__)


@cache
def _warn_once(reason: str) -> None:
    logging.getLogger(__name__).warning(
        "Attention inside windows runs without its Triton kernel: %s. Masks are the same.", reason
    )


def _choose(
    backend: str, qkv: Tensor, qkv_bias: Tensor, relative_bias: Tensor, window: int, num_heads: int
) -> str:  # fmt: skip
    with_gradients = torch.is_grad_enabled() and any(t.requires_grad for t in (qkv, qkv_bias, relative_bias))
    head_dim = qkv.shape[3] // 3 // num_heads
    if backend == "sdpa" or (backend == "auto" and (with_gradients or qkv.device.type != "cuda")):
        return "sdpa"
    if backend == "auto":
        if not torch.compiler.is_compiling():
            return best_backend(qkv.device, qkv.dtype, window, head_dim)
        return _best_while_compiling(qkv.device, qkv.dtype, window, head_dim)
    if backend not in BACKENDS:
        raise ConfigError(f"backend={backend!r} is not known; choose 'auto', 'triton' or 'sdpa'.")
    reason = "it has no gradients" if with_gradients else triton_unavailable(qkv.device, qkv.dtype, window, head_dim)
    if reason is not None:
        raise ConfigError(f"backend={backend!r} cannot be used here: {reason}; use backend='auto'.")
    return backend


def _best_while_compiling(device: torch.device, dtype: torch.dtype, window: int, head_dim: int) -> str:
    # What export writes is to run elsewhere.
    return _constant_backend(device, dtype, window, head_dim) if torch.compiler.is_dynamo_compiling() else "sdpa"


@torch.compiler.assume_constant_result
def _constant_backend(device: torch.device, dtype: torch.dtype, window: int, head_dim: int) -> str:
    return best_backend(device, dtype, window, head_dim)


def _check(
    qkv: Tensor, qkv_bias: Tensor, relative_bias: Tensor, window: int, shift: tuple[int, int], num_heads: int
) -> None:
    tokens = window * window
    if qkv.dim() != 4 or qkv.shape[3] % (3 * num_heads) or tuple(qkv_bias.shape) != (qkv.shape[3],):
        raise ConfigError(
            f"qkv {tuple(qkv.shape)} and qkv_bias {tuple(qkv_bias.shape)} do not fit; expected B, H, W, 3C and 3C, "
            f"with C a multiple of {num_heads} heads."
        )
    if relative_bias.dim() != 3 or tuple(relative_bias.shape[:2]) != (num_heads, tokens):
        found = tuple(relative_bias.shape)
        raise ConfigError(f"relative_bias has shape {found}; expected {num_heads, tokens, tokens}.")
    if not all(0 <= one < window for one in shift):
        raise ConfigError(f"shift={shift} must be at least 0 and less than the window of {window}.")


def _make_layout(
    batch: int, height: int, width: int, window: int, shift: tuple[int, int], device: torch.device
) -> WindowLayout:
    pad_y, pad_x = -height % window, -width % window
    count = batch * height * width
    # Tokens are numbered in the order of the map, padding after them.
    numbers = torch.arange(count, device=device).view(batch, height, width)
    if pad_x:
        right = count + torch.arange(batch * height * pad_x, device=device).view(batch, height, pad_x)
        numbers = torch.cat([numbers, right], dim=2)
    if pad_y:
        first, row = batch * height * (width + pad_x), width + pad_x
        below = first + torch.arange(batch * pad_y * row, device=device).view(batch, pad_y, row)
        numbers = torch.cat([numbers, below], dim=1)  # B, H and W with padding
    numbers = torch.roll(numbers, (-shift[0], -shift[1]), dims=(1, 2))
    numbers = numbers.unflatten(2, (-1, window)).unflatten(1, (-1, window)).permute(1, 3, 0, 2, 4)  # I J B y x

    parts, groups = [], []
    for rows, rows_wrapped in _spans(numbers.shape[0], shift[0]):
        for columns, columns_wrapped in _spans(numbers.shape[1], shift[1]):
            part = numbers[rows, columns]  # some I, some J, B, y, x
            parts.append(part.flatten())
            forbidden = _forbidden(window, shift[0] * rows_wrapped, shift[1] * columns_wrapped, device)
            groups.append(Windows(part.shape[0] * part.shape[1] * batch, forbidden))
    index = torch.cat(parts)
    inverse = torch.empty_like(index).scatter_(0, index, torch.arange(index.shape[0], device=device))
    if not (pad_y or pad_x):
        return WindowLayout(index, inverse, None, groups)
    return WindowLayout(index.clamp(max=count - 1), inverse[:count], inverse[count:], groups)


def _spans(windows: int, shift: int) -> list[tuple[slice, bool]]:
    """Windows along one side of the map, and whether they contain tokens from its other side: the last one may."""
    if shift == 0:
        return [(slice(0, windows), False)]
    return [(slice(0, windows - 1), False)] * (windows > 1) + [(slice(windows - 1, windows), True)]


def _forbidden(window: int, shift_y: int, shift_x: int, device: torch.device) -> Tensor | None:
    """``Windows.forbidden``: tokens attend to those only that came from the same side of the map.

    Args:
        window: Side of a window.
        shift_y: Last rows of the window that came from the other side of the map.
        shift_x: Last columns that did.
        device: Where to make the mask.
    """
    if not (shift_y or shift_x):
        return None
    position = torch.arange(window, device=device)
    wrapped_row, wrapped_column = position >= window - shift_y, position >= window - shift_x
    regions = (wrapped_row[:, None] * 2 + wrapped_column * 1).flatten()
    return F.pad(regions[:, None] != regions, (0, -len(regions) % BIAS_ALIGNMENT))


class _Rearrange(torch.autograd.Function):
    """``x[index]``, whose gradient is another gather: ``index_select`` would add up gradients atomically."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor, unused: Tensor | None) -> Tensor:
        """Rearranges rows.

        Args:
            ctx: For the backward pass.
            x: Rows.
            index: The row of ``x`` at each place of the result.
            inverse: The place of each row; that of any row where it has none.
            unused: Rows of ``x`` that have no place.
        """
        ctx.save_for_backward(inverse, unused)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        inverse, unused = ctx.saved_tensors
        gradient = gradient.index_select(0, inverse)
        if unused is not None:
            gradient.index_fill_(0, unused, 0)
        return gradient, None, None, None


def _rearrange(x: Tensor, index: Tensor, inverse: Tensor, unused: Tensor | None = None) -> Tensor:
    if torch.is_grad_enabled() and x.requires_grad:
        return _Rearrange.apply(x, index, inverse, unused)
    return x.index_select(0, index)


def _sdpa(qkv: Tensor, qkv_bias: Tensor, relative_bias: Tensor, layout: WindowLayout, num_heads: int) -> Tensor:
    tokens, channels = relative_bias.shape[1], qkv.shape[3] // 3
    bias = relative_bias[..., : tokens + -tokens % BIAS_ALIGNMENT].to(qkv.dtype)
    if qkv.is_cuda and bias.shape[2] % BIAS_ALIGNMENT:
        bias = F.pad(bias, (0, -bias.shape[2] % BIAS_ALIGNMENT))
    windows = _rearrange(qkv.flatten(0, 2), layout.index, layout.inverse)  # places, 3C
    if layout.padding is not None:
        windows[layout.padding] = qkv_bias.to(qkv.dtype)
    windows = windows.view(-1, tokens, 3, num_heads, channels // num_heads)
    q, k, v = windows.permute(2, 0, 3, 1, 4).unbind()  # windows h N d
    attended, first = [], 0
    with _kernels(qkv):
        for group in layout.groups:
            mask = bias
            if group.forbidden is not None:
                mask = bias.masked_fill(group.forbidden[:, : bias.shape[2]], float("-inf"))
            some = slice(first, first + group.count)
            attended.append(_attend(q[some], k[some], v[some], mask=mask[None, :, :, :tokens]))
            first += group.count
    x = torch.cat(attended) if len(attended) > 1 else attended[0]
    return _rearrange(x, layout.inverse, layout.index, layout.padding).view(*qkv.shape[:3], channels)


def _attend(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor) -> Tensor:
    """windows, h, N, d -> windows * N, C."""
    if q.is_cuda and not torch.compiler.is_compiling() and len(q) > _MOST_WINDOWS:
        parts = zip(*(one.split(_MOST_WINDOWS) for one in (q, k, v)), strict=True)
        return torch.cat([_attend(*part, mask=mask) for part in parts])
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)  # windows N h d
    if torch.compiler.is_compiling():
        # Its order in memory differs between tracing and exporting; a view would be right in one of them only.
        x = x.clone(memory_format=torch.contiguous_format)
    return x.flatten(2).flatten(0, 1)


def _kernels(qkv: Tensor) -> contextlib.AbstractContextManager:
    """Which of torch's kernels may run: not cuDNN's, which spends a second on plans for each new shape.

    Flash attention takes no mask. The plain one is for devices and types that have no other.
    """
    if not qkv.is_cuda or torch.compiler.is_compiling():
        return contextlib.nullcontext()
    return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
