"""IMAGE and MASK tensors between ComfyUI and the core; progress and cancelling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management as mm
import comfy.utils
import torch
from torch import Tensor

from ..birefnet_core import ImageError
from ..birefnet_core.image_ops import mask_batch

WORK_MEMORY_FACTOR = 8  # peak bytes of refining and colour estimation / bytes of their inputs (benchmarks/masks.md)


def progress_bar() -> Callable[[int, int], None]:
    """A callback that moves ComfyUI's progress bar, and raises when the user cancels."""
    bar: comfy.utils.ProgressBar | None = None

    def report(done: int, total: int) -> None:
        nonlocal bar
        mm.throw_exception_if_processing_interrupted()
        bar = bar or comfy.utils.ProgressBar(total)
        bar.update_absolute(done, total)

    return report


def to_rgb(images: Tensor) -> Tensor:
    """Images with 1, 3 or 4 channels -> 3; alpha is dropped."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        found = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise ImageError(f"expected images B, H, W with 1, 3 or 4 channels, found {found}.")
    return images[..., :3].expand(-1, -1, -1, 3)


def for_work(*tensors: Tensor | None) -> list[Tensor | None]:
    """Tensors on the GPU if there is room to work on them there, else on the CPU."""
    needed = WORK_MEMORY_FACTOR * sum(t.numel() * 4 for t in tensors if t is not None)
    device = mm.get_torch_device()
    if device.type != "cpu" and mm.get_free_memory(device) < needed:
        device = torch.device("cpu")
    return [t if t is None else t.to(device) for t in tensors]


def as_result(tensor: Tensor) -> Tensor:
    """A result where ComfyUI keeps results."""
    return tensor.to(mm.intermediate_device())


def region_of(mask: Tensor | None, boxes: Any) -> Any:
    """Where to look, as the Segmenter takes it: a mask, else boxes, else None.

    Args:
        mask: B, h, w, or of the other shapes masks have; or None.
        boxes: What other nodes give: a box {"x", "y", "width", "height"} in pixels, one for each image, or for each
            image a list of boxes, which is looked at as a whole. Or None.

    Raises:
        ImageError: Boxes of another form.
    """
    if mask is not None or boxes is None or isinstance(boxes, dict):
        return boxes if mask is None else mask_batch(mask, "region").float()
    try:
        return [box if isinstance(box, dict) else _around(box) for box in boxes]
    except (TypeError, KeyError, ValueError) as error:
        raise ImageError(f"box is {boxes!r}, expected x, y, width and height in pixels for each image.") from error


def _around(boxes: Sequence[dict]) -> dict[str, float]:
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    right, bottom = (max(box[a] + box[b] for box in boxes) for a, b in (("x", "width"), ("y", "height")))
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}
