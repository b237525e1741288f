"""Segmenter: images of any size in, masks of the same size out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError
from ..image_ops import validate_images
from ..network import BiRefNet, BiRefNetOutput, fuse_for_inference
from ..network.birefnet import SIZE_MULTIPLE
from ..network.cast import dtype_of
from .compiling import CompiledNetwork
from .memory import memory_required
from .passes import Passes
from .regions import Box, Region, crop_boxes
from .tiles import refine, tile_boxes

Size = int | Sequence[int] | str | None

FALLBACK_SIZE = (1024, 1024)  # of the paper, for networks that no checkpoint says anything about


class Segmenter:
    """A network with the preprocessing of its checkpoint.

    Args:
        model: The network, fused (``fuse_for_inference``) or not. It runs on the device and in the precision it is
            in when called. A network is fused at the first call, and again when its weights have changed.
        batch_size: Images at a time. More is faster on large GPUs and needs more memory.
        compile: Whether to run the network through torch.compile: slow at the first image of each size, faster
            afterwards. Where compiling fails there is one warning, and the network runs without it.

    Attributes:
        model: The network.
        batch_size: Images at a time.
        training_size: Width, height the checkpoint was trained at, in pixels.
    """

    def __init__(self, model: BiRefNet, *, batch_size: int = 1, compile: bool = False) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r}: expected at least 1.")
        self.model = model
        self.batch_size = batch_size
        self.training_size = model.checkpoint.training_size if model.checkpoint else FALLBACK_SIZE
        self._prepared: BiRefNet | None = None
        self._prepared_from: tuple | None = None
        self._compile = compile
        self._compiled: CompiledNetwork | None = None

    def network_size(self, size: Size, height: int, width: int) -> tuple[int, int]:
        """Size an image is stretched to for the network.

        Args:
            size: None for the checkpoint's training size, N for N x N, (width, height), or "native" for
                the image's own size; each side is rounded to the nearest multiple of 32.
            height: The image's height in pixels.
            width: The image's width in pixels.

        Returns:
            Height, width.

        Raises:
            ConfigError: A size of another form.
        """
        wanted: Sequence[int]
        if size is None:
            wanted = self.training_size
        elif size == "native":
            wanted = (width, height)
        elif isinstance(size, Integral) and not isinstance(size, bool):
            wanted = (int(size), int(size))
        elif isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
            wanted = size
        else:
            raise ConfigError(f"size={size!r}: expected None, a number, (width, height) or 'native'.")
        if not all(isinstance(side, Integral) and side > 0 for side in wanted):
            raise ConfigError(f"size={size!r}: width and height must be whole numbers above 0.")
        smallest = self.model.min_side
        width, height = (max(smallest, round(int(side) / SIZE_MULTIPLE) * SIZE_MULTIPLE) for side in wanted)
        return height, width

    def memory_required(
        self,
        height: int,
        width: int,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
    ) -> int:
        """Bytes a step needs beside the weights, for network input of height x width pixels; see ``memory``.

        Args:
            height: Of the network's input.
            width: Of the network's input.
            dtype: None for the precision the network is in.
            device: None for where the network is.
        """
        dtype, device = dtype or dtype_of(self.model), device or next(self.model.parameters()).device
        return memory_required(self.model.config.backbone, height, width, dtype, self.batch_size, device)

    def __call__(
        self,
        images: Tensor,
        size: Size = None,
        *,
        region: Region | None = None,
        margin: float = 0.1,
        tiled: bool = False,
        flip: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Segments images.

        Args:
            images: B, H, W, C float in [0, 1] with C = 1, 3 or 4 (alpha is dropped), on any device.
            size: See ``network_size``; with a region, of the part that is cut out.
            region: Where the subject is, as a mask or a box (x, y, width, height) for each image or for all; see
                ``crop_boxes``. The part around it is segmented by itself, and the mask is 0 outside that part.
            margin: Added around a region on every side, as a share of its longer side.
            tiled: Refines the mask at native resolution where the image is larger than the network size; see
                ``tiles``.
            flip: Averages with the mask of the mirrored image; takes twice as long.
            progress: Called with (network passes done, passes in all) at the start and after each step. Without
                tiles or flip an image is one pass. Tiles that turn out not to be needed count as done. An
                exception raised in it ends the run and passes through.

        Returns:
            Masks B, H, W float32 in [0, 1], foreground 1, on the device of ``images``.

        Raises:
            ImageError: Images of another shape, type or range; a region that is empty or outside the image.
            ConfigError: A size or margin of another form.
            MemoryLimitError: Too little memory for a single image.
        """
        validate_images(images, channels=(1, 3, 4))
        boxes = crop_boxes(region, margin, *images.shape[:3])
        plans = [self._plan(box, size, tiled) for box in boxes]
        masks = torch.zeros(images.shape[:3], dtype=torch.float32, device=images.device)
        was_training = self.model.training
        self.model.eval()
        try:
            pictures = sum(1 + plan.tiles for plan in plans)
            network = self._network()
            passes = Passes(network, self._caller(network), self.batch_size, pictures, flip, progress)
            first = 0
            while first < len(images):
                end = first + 1
                while end < min(len(images), first + passes.at_once) and plans[end].size == plans[first].size:
                    end += 1
                _segment(images[first:end], masks[first:end], boxes[first:end], plans[first:end], passes)
                first = end
            passes.report()
        finally:
            self.model.train(was_training)
        return masks

    def _plan(self, box: Box, size: Size, tiled: bool) -> _Plan:
        height, width = self.network_size(size, box.height, box.width)
        if not tiled or (box.height <= height and box.width <= width):
            return _Plan((height, width), 0, (0, 0))
        tile = min(box.height, height), min(box.width, width)
        tiles = len(tile_boxes(box.height, box.width, tile))
        return _Plan((height, width), tiles, self.network_size(tile[::-1], box.height, box.width))

    def _network(self) -> BiRefNet:
        """The fused form of the model as it is now."""
        if self.model.fused:
            return self.model
        tensors = (*self.model.parameters(), *self.model.buffers())
        state = tuple((t.data_ptr(), t.dtype, t.device, 0 if t.is_inference() else t._version) for t in tensors)
        if self._prepared is None or state != self._prepared_from:
            self._prepared, self._prepared_from = fuse_for_inference(self.model), state
        return self._prepared

    def _caller(self, network: BiRefNet) -> Callable[[Tensor], BiRefNetOutput]:
        """What runs the network: itself, or its compiled form, made once."""
        if not self._compile:
            return network
        if self._compiled is None or self._compiled.network is not network:
            self._compiled = CompiledNetwork(network)
        return self._compiled


class _Plan(NamedTuple):
    """What one image takes: its network size, how many tiles it may need, and their network size."""

    size: tuple[int, int]
    tiles: int
    tile_size: tuple[int, int]


@torch.inference_mode()
def _segment(images: Tensor, masks: Tensor, boxes: list[Box], plans: list[_Plan], passes: Passes) -> None:
    """Writes the masks B, H, W of images B, H, W, C with one network size."""
    crops = [box.cut(image) for box, image in zip(boxes, images, strict=True)]
    found = passes.run(crops, plans[0].size)
    for crop, mask, box, plan, answer in zip(crops, masks, boxes, plans, found, strict=True):
        if plan.tiles:
            refine(crop, answer, plan.size, plan.tile_size, passes)
        box.cut(mask).copy_(answer)
