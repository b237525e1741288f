"""How much of a map is worked on at once: one table of chunk sizes for every device, and one loop over chunks of rows.

On a CPU, chunks should stay in the cache. On other devices a kernel launch costs more than memory does, so maps are
worked on as a whole unless memory is short.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

MI = 2**20

MAX_LEVEL = 5  # chunks beyond it save nothing worth the time


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkSizes:
    """Elements of the widest tensor of one chunk, by the kind of work; None for no limit.

    Attributes:
        map: Layers that widen a map, such as an MLP: their hidden map.
        attention: Windows of attention: queries, keys and values.
        upsampled: An upsampled feature, for each image.
        deform_offsets: Predicted offsets and modulation of a deformable convolution.
        deform_columns: Samples times channels of a deformable convolution.
        deform_gather: The same for ``gather``, which holds two such tensors and is slow in small chunks.
    """

    map: int | None
    attention: int | None
    upsampled: int | None
    deform_offsets: int | None
    deform_columns: int | None
    deform_gather: int | None


# Found by time and peak memory of Swin-T and Swin-L at 1024 x 1024 (benchmarks/network.py, benchmarks/deform.py).
CPU = ChunkSizes(
    map=MI, attention=MI, upsampled=2 * MI, deform_offsets=2 * MI, deform_columns=3 * MI, deform_gather=16 * MI
)
DEVICE = ChunkSizes(
    map=None, attention=None, upsampled=64 * MI, deform_offsets=None, deform_columns=32 * MI, deform_gather=16 * MI
)
DEVICE_SHORT_OF_MEMORY = ChunkSizes(
    map=16 * MI, attention=16 * MI, upsampled=2 * MI, deform_offsets=8 * MI, deform_columns=16 * MI,
    deform_gather=8 * MI,
)  # fmt: skip

_level: ContextVar[int] = ContextVar("memory level", default=0)
_sizes: ContextVar[dict[str, int | None]] = ContextVar("chunk sizes", default={})  # noqa: B039 (never changed)


def memory_level() -> int:
    """0 by default; at each higher level, up to ``MAX_LEVEL``, chunks are smaller."""
    return _level.get()


@contextmanager
def use_memory_level(level: int) -> Iterator[None]:
    """In this context work is done in the chunks of a memory level."""
    with _set(_level, min(level, MAX_LEVEL)):
        yield


@contextmanager
def use_chunk_sizes(**sizes: int | None) -> Iterator[None]:
    """In this context these sizes take the place of the table's, at every level (for tests and benchmarks).

    Args:
        **sizes: Fields of ``ChunkSizes``.
    """
    with _set(_sizes, {**_sizes.get(), **sizes}):
        yield


@contextmanager
def _set(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def chunk_elements(kind: str, device: torch.device) -> int | None:
    """Elements of a chunk's widest tensor at the memory level in force; while compiling, that is level 0.

    Args:
        kind: A field of ``ChunkSizes``.
        device: Where the work is done.

    Returns:
        At least 1; None for no limit.
    """
    level = 0
    if not torch.compiler.is_compiling():  # torch 2.4 cannot trace context variables
        if kind in _sizes.get():
            return _sizes.get()[kind]
        level = memory_level()
    if device.type == "cpu":
        sizes = CPU
    elif level == 0:
        sizes = DEVICE
    else:
        sizes, level = DEVICE_SHORT_OF_MEMORY, level - 1
    size: int | None = getattr(sizes, kind)
    return None if size is None else max(1, size >> level)


def chunking(x: Tensor, training: bool = False) -> bool:
    """Whether a module may work on ``x`` chunk by chunk and in place.

    Args:
        x: The map that the module works on.
        training: Whether the module is being trained.

    Returns:
        False under autograd, in training, and while compiling or exporting.
    """
    return not (training or torch.is_grad_enabled() or torch.compiler.is_compiling())


def row_chunks(
    rows: int,
    elements_per_row: int,
    kind: str,
    device: torch.device,
    *,
    multiple: int = 1,
    minimum: int = 1,
    always: bool = False,
) -> list[slice]:
    """Cuts the rows of a map into chunks of one size; the last may be smaller.

    Args:
        rows: Rows in all.
        elements_per_row: Elements that the widest tensor of the work has for each row.
        kind: A field of ``ChunkSizes``.
        device: Where the work is done.
        multiple: Rows of a chunk are a multiple of it.
        minimum: Rows of a chunk at least.
        always: Also under autograd and while compiling, where otherwise all rows are one chunk.

    Returns:
        Slices that cover ``range(rows)``, in order.
    """
    limit = chunk_elements(kind, device)
    if limit is None or not (always or not (torch.is_grad_enabled() or torch.compiler.is_compiling())):
        return [slice(0, rows)]
    step = max(limit // max(1, elements_per_row), minimum)
    step = max(1, step // multiple) * multiple
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
