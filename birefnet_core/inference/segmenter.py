"""Segmenter: images of any size in, masks of the same size out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from numbers import Integral
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..checks import check_switch, is_whole
from ..devices import choose_device
from ..errors import ConfigError
from ..masks.crop import fade_window
from ..network import BiRefNet, fuse_for_inference
from ..network.birefnet import SIZE_MULTIPLE, check_network
from ..network.cast import cast_for_inference, dtype_of
from ..out_of_memory import for_weights, free_memory
from . import memory
from .batching import Passes, Progress
from .compiled import CompiledNetwork
from .crops import Box, Region, crop_boxes
from .cuda_graph import MOST_PIXELS, GraphedNetwork, graphs_wanted
from .image_inputs import ImageInput, as_batch
from .tiles import refine, tile_boxes
from .warm_up import WarmUp

Size = int | Sequence[int] | str | None

MOST_FALLOFF = 0.5  # of the crop's longer side: up to its middle
ALPHA = 3  # channel
FALLBACK_SIZE = (1024, 1024)  # of the paper, for networks without a checkpoint
LARGEST_SIDE = 2**16  # pixels; no device has the memory for more


class Segmenter:
    """A network with the preprocessing of its checkpoint.

    The network is fused once, here, where it is not yet (in half precision ``load_model(..., fused=True)`` gives masks
    nearer to those of float32), and shares some of its weights with the one that was given: where that is trained
    further, or an adapter is merged into it, this Segmenter is of no more use. Make a new one. ``model`` may be moved
    or cast at any time; the Segmenter runs where and in the precision it is in, and under ``torch.autocast`` in that,
    as a training validates.

    Args:
        model: The network, fused or not.
        batch_size: Images per pass. More is faster on GPUs and needs more memory.
        compile: Whether to compile the network's blocks with torch.compile, about a minute for each size of image; no
            faster afterwards on the CPUs it was measured on. Where compiling fails there is one warning, and the
            network runs uncompiled.
        cuda_graphs: Whether to replay passes as CUDA graphs from the second pass of an input shape on. "auto" does so
            on CUDA devices unless the environment variable BIREFNET_CUDA_GRAPHS is 0. The graphs' memory is kept
            until ``release``.
        lean: Whether to work in chunks, which needs less memory on a GPU and takes longer. "auto" does so where the
            estimate exceeds the free memory. Running out of memory makes chunks smaller in any case.
        device: Where the network is going to run, if it is to be moved there; None for where it is.

    Attributes:
        model: The fused network, in eval mode.
        batch_size: Images per pass.
        training_size: Width, height the checkpoint was trained at, in pixels.

    Raises:
        ConfigError: Not a network, an option of another form, or a device that does not exist here.
        MemoryLimitError: Too little memory on the network's device to fuse it.
    """

    def __init__(
        self,
        model: BiRefNet,
        *,
        batch_size: int = 1,
        compile: bool = False,
        cuda_graphs: bool | Literal["auto"] = "auto",
        lean: bool | Literal["auto"] = "auto",
        device: str | torch.device | None = None,
    ) -> None:
        if not is_whole(batch_size) or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r}: expected a whole number, at least 1.")
        check_switch("compile", compile)
        for name, value in (("cuda_graphs", cuda_graphs), ("lean", lean)):
            if value not in (True, False, "auto"):
                raise ConfigError(f"{name}={value!r}: expected True, False or 'auto'.")
        check_network(model)
        with for_weights(next(model.parameters()).device):
            self.model = fuse_for_inference(model)
        if device is None:
            device = next(model.parameters()).device
        elif not isinstance(device, torch.device):
            device = choose_device(device)
        if device.type == "cuda" and dtype_of(self.model) == torch.bfloat16:
            cast_for_inference(self.model, torch.bfloat16, fine_dtype=torch.float16)
        self.batch_size = batch_size
        self.training_size = model.checkpoint.training_size if model.checkpoint else FALLBACK_SIZE
        self._lean = lean
        self._compile, self._graphs = compile, graphs_wanted(cuda_graphs)
        self._prepare(device)
        if next(model.parameters()).is_cuda:
            self.wait_until_ready()

    def _prepare(self, device: torch.device) -> None:
        network: nn.Module = CompiledNetwork(self.model) if self._compile else self.model
        self._network = GraphedNetwork(network) if self._graphs else network
        self._warm_up = WarmUp(self.model, device)

    def __getstate__(self) -> dict[str, Any]:
        """For pickles and copies, without what belongs to one process: compiled code, graphs, locks and threads."""
        return {name: value for name, value in vars(self).items() if name not in ("_network", "_warm_up")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._prepare(next(self.model.parameters()).device)

    def network_size(self, size: Size, height: int, width: int) -> tuple[int, int]:
        """Size an image is resized to for the network.

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
        elif is_whole(size):
            wanted = (int(size), int(size))
        elif isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
            wanted = size
        else:
            raise ConfigError(f"size={size!r}: expected None, a number, (width, height) or 'native'.")
        if not all(isinstance(side, Integral) and 0 < side <= LARGEST_SIDE for side in wanted):
            raise ConfigError(f"size={size!r}: width and height must be whole numbers above 0, at most {LARGEST_SIDE}.")
        smallest = self.model.min_side
        width, height = (max(smallest, round(int(side) / SIZE_MULTIPLE) * SIZE_MULTIPLE) for side in wanted)
        return height, width

    def memory_required(
        self,
        height: int,
        width: int,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 1,
    ) -> int:
        """Bytes a pass needs beside the weights, with what a CUDA graph keeps; see ``memory``.

        It is that of a pass in chunks where ``lean`` is True; with "auto" one runs only where this does not fit.

        Args:
            height: Of the network's input.
            width: Of the network's input.
            dtype: None for the network's precision.
            device: None for the network's device.
            batch_size: Images per pass.
        """
        dtype = dtype or dtype_of(self.model)
        device = torch.device(device or next(self.model.parameters()).device)
        required = memory.memory_required(
            self.model.config.backbone, height, width, dtype, batch_size, device, lean=self._lean is True
        )
        graphed = isinstance(self._network, GraphedNetwork) and batch_size * height * width <= MOST_PIXELS
        if device.type == "cuda" and graphed:
            required += memory.graph_buffers(height, width, dtype, batch_size)
        return required

    def wait_until_ready(self) -> None:
        """Waits for kernels that are still being compiled, so that the first image need not."""
        self._warm_up.wait()

    def release(self) -> None:
        """Frees the memory that CUDA graphs keep; the next pass of each input shape runs without one."""
        if isinstance(self._network, GraphedNetwork):
            self._network.release()

    def __call__(
        self,
        images: ImageInput,
        size: Size = None,
        *,
        region: Region | None = None,
        margin: float = 0.1,
        falloff: float = 0.0,
        tiled: bool = False,
        flip: bool = False,
        progress: Progress | None = None,
    ) -> Any:
        """Segments images.

        Args:
            images: A tensor B, H, W, C or H, W, C float in [0, 1] with C = 1, 3 or 4, on any device; or an array, a
                PIL image or the path of an image file, see ``as_batch``. Of an image with alpha, what is visible is
                segmented (``flatten_alpha``), and its mask is multiplied by alpha.
            size: See ``network_size``; with a region, of the crop.
            region: Where the subject is, as a mask or a box (x, y, width, height) for each image or for all; see
                ``crop_boxes``. The crop around it is segmented by itself, and the mask is 0 outside that crop.
                Empty for some of the images: their masks are empty.
            margin: Added around a region on every side, as a fraction of its longer side.
            falloff: Width in which the mask fades to 0 towards the borders of a region's crop, as a fraction of the
                crop's longer side, so that what sticks out of it does not end in a straight edge. 0: no fading.
            tiled: Refines the mask at native resolution where the image is larger than the network size; see
                ``tiles``.
            flip: Averages with the mask of the flipped image; takes twice as long.
            progress: Called with (passes done, passes in total) at the start and after each batch. Without
                tiles or flip an image is one pass. Tiles that turn out not to be needed count as done. An
                exception raised in it ends the run and passes through.

        Returns:
            Masks B, H, W float32 in [0, 1], foreground 1, on the device of ``images``; H, W for a single image H, W, C.
            An array for an array, a PIL image of mode "L" for a PIL image or a path.

        Raises:
            ImageError: Images of another shape, type or range; a region that is empty or outside the image.
            ConfigError: A size, margin or switch of another form.
            CheckpointError: The network computes NaN.
            MemoryLimitError: Too little memory for a single image.
        """
        images, in_kind = as_batch(images)
        self.wait_until_ready()
        check_switch("tiled", tiled)
        check_switch("flip", flip)
        if not isinstance(falloff, int | float) or not 0 <= falloff <= MOST_FALLOFF:
            raise ConfigError(f"falloff={falloff!r}: expected 0 to {MOST_FALLOFF} of the crop's longer side.")
        boxes = crop_boxes(region, margin, *images.shape[:3])
        kept = [index for index, box in enumerate(boxes) if box is not None]
        plans = [self._plan(box, size, tiled) for box in boxes if box is not None]
        masks = torch.zeros(images.shape[:3], dtype=torch.float32, device=images.device)
        info = self.model.checkpoint
        passes = Passes(
            self._network,
            batch_size=self.batch_size,
            total=sum(1 + len(plan.tiles) for plan in plans),
            flip=flip,
            level=self._memory_level(plans),
            name=info.name if info else "",
            progress=progress,
        )
        crops = [plan.box.cut(images[index]) for plan, index in zip(plans, kept, strict=True)]
        targets = [plan.box.cut(masks[index]) for plan, index in zip(plans, kept, strict=True)]
        with torch.inference_mode():
            for network_size, group in groupby(range(len(plans)), lambda i: plans[i].size):
                indices = list(group)
                found = passes.run([crops[i] for i in indices], network_size)
                for i, mask in zip(indices, found, strict=True):
                    targets[i].copy_(mask)
                    if plans[i].tiles:
                        refine(crops[i], targets[i], plans[i].size, plans[i].tiles, plans[i].tile_size, passes)
                    _limit(targets[i], crops[i], plans[i].box, masks.shape[1:], falloff)
        passes.report()
        return in_kind(masks)

    def _plan(self, box: Box, size: Size, tiled: bool) -> _Plan:
        height, width = self.network_size(size, box.height, box.width)
        if not tiled or (box.height <= height and box.width <= width):
            return _Plan(box, (height, width), [], (0, 0))
        tile = min(box.height, height), min(box.width, width)
        tiles = tile_boxes(box.height, box.width, tile)
        return _Plan(box, (height, width), tiles, self.network_size(tile[::-1], box.height, box.width))

    def _memory_level(self, plans: Sequence[_Plan]) -> int:
        """0, or 1 for chunks, see ``ops.execution``."""
        if self._lean != "auto":
            return int(self._lean)
        free = free_memory(next(self.model.parameters()).device)
        if free is None:
            return 0
        height, width = max((plan.size for plan in plans), key=lambda size: size[0] * size[1])
        return int(self.memory_required(height, width, batch_size=min(self.batch_size, len(plans))) > free)


def _limit(mask: Tensor, image: Tensor, box: Box, size: Sequence[int], falloff: float) -> None:
    """Fades the mask h, w of a crop h, w, C to its borders, and makes it transparent where the image is. In place."""
    reach = math.ceil(falloff * max(box.height, box.width))
    if reach:
        mask.mul_(fade_window(box, size, (reach, reach)).to(mask.device))
    if image.shape[-1] == ALPHA + 1:
        mask.mul_(image[..., ALPHA].clamp(0, 1))


class _Plan(NamedTuple):
    """What to run for one image.

    Attributes:
        box: The part of the image that is segmented.
        size: Height and width of the network's input for it.
        tiles: Tiles that may be run in addition, within the box.
        tile_size: Height and width of the network's input for one of them.
    """

    box: Box
    size: tuple[int, int]
    tiles: list[Box]
    tile_size: tuple[int, int]
