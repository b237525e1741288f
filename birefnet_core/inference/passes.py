"""Network passes: batching, mirroring, too little memory, progress.

Shapes: N pictures, each H W C of its own size; h w network input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import MemoryLimitError
from ..network import BiRefNet, BiRefNetOutput
from ..network.layers import conv_memory_format
from ..ops import execution
from .out_of_memory import empty_cache, is_out_of_memory
from .transforms import to_masks, to_network_input


class Passes:
    """The passes of one call of Segmenter.

    One pass is one picture through the network, so with mirroring a picture takes two.

    Args:
        network: The fused network.
        call: What runs it: gives ``.logits`` for normalised input.
        batch_size: Pictures at a time.
        pictures: How many will be run or skipped in all.
        flip: Whether a mask is the mean of the picture's and of the mirrored picture's, mirrored back.
        progress: Called with (passes done, passes in all) before each step.

    Attributes:
        at_once: Pictures at a time; less than ``batch_size`` once so many have not fitted.
    """

    def __init__(
        self,
        network: BiRefNet,
        call: Callable[[Tensor], BiRefNetOutput],
        batch_size: int,
        pictures: int,
        flip: bool,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.network, self.call, self.at_once, self.flip = network, call, batch_size, flip
        self._done, self._each, self._progress = 0, 1 + flip, progress
        self._total = pictures * self._each
        self._memory_level = 0

    @torch.inference_mode()
    def run(self, pictures: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Pictures H, W, C in [0, 1] -> masks H, W float32 on the pictures' device.

        Args:
            pictures: Any sizes and number.
            size: Height and width all of them are stretched to.

        Raises:
            MemoryLimitError: A single one does not fit.
        """
        masks = self._run(pictures, size, mirrored=False)
        if self.flip:
            for mask, other in zip(masks, self._run(pictures, size, mirrored=True), strict=True):
                mask.add_(other).mul_(0.5)
        return masks

    def skip(self, pictures: int) -> None:
        """Counts pictures that turned out not to need a pass as done."""
        self._done += pictures * self._each

    def report(self) -> None:
        """Tells how far it is; an exception raised by the listener passes through."""
        if self._progress:
            self._progress(self._done, self._total)

    def _run(self, pictures: Sequence[Tensor], size: tuple[int, int], mirrored: bool) -> list[Tensor]:
        masks: list[Tensor] = []
        while len(masks) < len(pictures):
            self.report()
            chunk = pictures[len(masks) : len(masks) + self.at_once]
            try:
                masks += self._pass(chunk, size, mirrored)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._use_less_memory(len(chunk), size, error)
                continue
            self._done += len(chunk)
        return masks

    def _pass(self, pictures: Sequence[Tensor], size: tuple[int, int], mirrored: bool) -> list[Tensor]:
        parameter = next(self.network.parameters())
        x = torch.cat([to_network_input(picture[None].to(parameter.device), *size) for picture in pictures])  # N 3 h w
        x = x.to(parameter.dtype, memory_format=conv_memory_format(parameter.device))
        with execution.use_memory_level(self._memory_level):
            logits = self.call(x.flip(-1) if mirrored else x).logits  # N 1 h w
        del x
        logits = logits.flip(-1) if mirrored else logits
        return [
            to_masks(one[None], *picture.shape[:2])[0].to(picture.device)
            for one, picture in zip(logits, pictures, strict=True)
        ]

    def _use_less_memory(self, pictures: int, size: tuple[int, int], error: Exception) -> None:
        """Halves the batch that has not fitted; for a single picture, the network works in smaller pieces."""
        empty_cache(next(self.network.parameters()).device)
        if pictures > 1:
            self.at_once = pictures // 2
        elif self._memory_level < execution.MAX_LEVEL:
            self.at_once, self._memory_level = 1, self._memory_level + 1
        else:
            height, width = size
            raise MemoryLimitError(
                f"out of memory for one image at {width} x {height}, even in small pieces. Use a smaller size, a "
                "smaller checkpoint such as BiRefNet_lite, half precision, or the CPU."
            ) from error
