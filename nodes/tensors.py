"""IMAGE and MASK tensors between ComfyUI and the core; progress and cancelling."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import comfy.model_management as mm
import comfy.utils
import folder_paths
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..birefnet_core import ImageError
from ..birefnet_core.files import file_version
from ..birefnet_core.image_ops import resize_masks
from ..birefnet_core.image_reading import opened_image
from ..birefnet_core.images import to_bytes
from ..birefnet_core.text import first_line
from .comfy_compat import core, io, show_text

if TYPE_CHECKING:
    from ..birefnet_core.video import VideoProgress

logger = logging.getLogger(__name__)

Results = TypeVar("Results", Tensor, tuple[Tensor, Tensor])
PREVIEW_SIDE, PREVIEW_SECONDS = 384, 0.5
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


class FramesBar:
    """Moves ComfyUI's progress bar with a clip's frames, shows the newest and the time left, and raises when the user
    cancels.

    Args:
        node: Where it shows.
    """

    def __init__(self, node: type[io.ComfyNode]) -> None:
        self._node, self._shown = node, 0.0
        self._bar: comfy.utils.ProgressBar | None = None

    def cancelled(self) -> bool:
        """Raises ComfyUI's own exception instead of saying yes."""
        mm.throw_exception_if_processing_interrupted()
        return False

    def __call__(self, progress: VideoProgress) -> None:
        mm.throw_exception_if_processing_interrupted()
        total = progress.total or progress.done + 1  # unknown: never full
        self._bar = self._bar or comfy.utils.ProgressBar(total)
        if time.monotonic() - self._shown < PREVIEW_SECONDS:
            self._bar.update_absolute(progress.done, total)
            return
        step = -(-max(progress.mask.shape) // PREVIEW_SIDE)  # upwards
        image, mask = progress.image[None, ::step, ::step], progress.mask[None, ::step, ::step]
        pixels = to_bytes(core(".masks.compose").over_checkerboard(image, mask)[0])
        self._bar.update_absolute(progress.done, total, ("JPEG", Image.fromarray(pixels), PREVIEW_SIDE))
        show_text(self._node, _told(progress))
        self._shown = time.monotonic()

    def finish(self, text: str) -> None:
        """Shows what came out."""
        show_text(self._node, text)


def _told(progress: VideoProgress) -> str:
    frames = f"{progress.done} of {progress.total}" if progress.total else f"{progress.done}"
    left = progress.seconds_left
    left_text = "" if left is None else f", {int(left // 60)}:{int(left % 60):02} left"
    return f"{frames} frames, {progress.frames_per_second:.1f} per second{left_text}"


def in_color(images: Tensor) -> Tensor:
    """Images with 1 channel -> 3; those with 3 or 4 as they are."""
    return images.expand(-1, -1, -1, 3) if images.shape[-1] == 1 else images


def painted_mask(name: str, height: int, width: int) -> Tensor:
    """What was painted on ComfyUI's canvas, 1, H, W on the CPU; all 0 if nothing was.

    Args:
        name: The file the page uploaded, such as "painter/painter-3.png [temp]"; empty for none.
        height: H.
        width: W.

    Raises:
        ImageError: The file is gone, or is no picture.
    """
    if not name.strip():
        return torch.zeros(1, height, width, dtype=torch.float32, device="cpu")
    path = _upload(name)
    try:
        if path is None:
            raise FileNotFoundError(name)
        with opened_image(path) as picture:
            alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    except (OSError, ImageError) as error:
        raise ImageError(
            f"What was painted is gone: the file {name!r} cannot be read. ComfyUI clears such files when it starts; "
            "press Clear and paint again."
        ) from error
    return resize_masks(torch.from_numpy(alpha / np.float32(255))[None], (height, width))


def upload_stamp(name: str | None) -> str:
    """Changes when the file of that name in ComfyUI's folders does."""
    path = _upload(name) if name else None
    return f"{path} {file_version(path)}" if path is not None and os.path.isfile(path) else ""


def _upload(name: str) -> Path | None:
    """A file within ComfyUI's folders for uploads; None for one that lies elsewhere."""
    if "\0" in name:
        return None
    path = Path(folder_paths.get_annotated_filepath(name)).resolve()
    places = folder_paths.get_input_directory(), folder_paths.get_output_directory(), folder_paths.get_temp_directory()
    return path if any(path.is_relative_to(Path(place).resolve()) for place in places) else None


def computed(node: type[io.ComfyNode], operation: Callable[..., Results], *tensors: Tensor | None) -> Results:
    """What an operation makes of tensors, where ComfyUI keeps results.

    It runs on the GPU if there is room for it. Where the GPU runs out of memory all the same, it runs anew on the CPU,
    and a line in the log says so.

    Args:
        node: Whose work it is, for the log.
        operation: Takes the tensors, all on one device; makes a tensor, or two.
        tensors: Its arguments; None stays None.
    """
    device = _device_with_room(tensors)
    if device.type != "cpu":
        try:
            return _kept(operation(*_moved(tensors, device)))
        except RuntimeError as error:
            if not core(".out_of_memory").is_out_of_memory(error):
                raise
            reason = first_line(error)
        # Outside the except block: the error's traceback holds what the operation has made.
        mm.soft_empty_cache()
        logger.warning("%s: out of memory on %s (%s). It runs on the CPU instead, which takes longer.",
                       node.define_schema().display_name, device, reason)  # fmt: skip
    return _kept(operation(*_moved(tensors, torch.device("cpu"))))


def _device_with_room(tensors: Sequence[Tensor | None]) -> torch.device:
    """The GPU if there is room to work on the tensors there, else the CPU."""
    needed = WORK_MEMORY_FACTOR * sum(t.numel() * 4 for t in tensors if t is not None)
    device = mm.get_torch_device()
    has_room = device.type == "cpu" or mm.get_free_memory(device) >= needed
    return device if has_room else torch.device("cpu")


def _moved(tensors: Sequence[Tensor | None], device: torch.device) -> list[Tensor | None]:
    return [t if t is None else t.to(device) for t in tensors]


def _kept(results: Results) -> Results:
    return as_result(results) if isinstance(results, Tensor) else tuple(map(as_result, results))


def as_result(tensor: Tensor) -> Tensor:
    """A result where ComfyUI keeps results."""
    return tensor.to(mm.intermediate_device())


def region_of(mask: Tensor | None, boxes: Any, images: int) -> Any:
    """Where to look, as the Segmenter takes it: a mask, else boxes, else None.

    Args:
        mask: B, h, w, or None.
        boxes: What other nodes give: a box {"x", "y", "width", "height"} in pixels, one for each image, or for each
            image a list of boxes, which is looked at as a whole and may be empty. An empty list: none. Or None.
        images: Number of images; all boxes of a list belong to a single one.

    Raises:
        ImageError: Boxes of another form.
    """
    if mask is not None or boxes is None or isinstance(boxes, dict):
        return boxes if mask is None else mask.float()
    try:
        if images == 1 and len(boxes) > 1 and all(isinstance(box, dict) for box in boxes):
            return _around(boxes)
        return [box if isinstance(box, dict) else _around(box) for box in boxes] or [None]
    except (TypeError, KeyError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor
        raise ImageError(f"box is {boxes!r}, expected x, y, width and height in pixels for each image.") from error


def _around(boxes: Sequence[dict] | None) -> dict[str, float] | None:
    """One box around boxes; None for none."""
    if not boxes:
        return None
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    right, bottom = (max(box[a] + box[b] for box in boxes) for a, b in (("x", "width"), ("y", "height")))
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}
