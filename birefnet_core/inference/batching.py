"""Batched forward passes: flip averaging, progress, retries after running out of memory.

Shapes: N crops, each H W C of its own size; h w network input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, MemoryLimitError
from ..network.layers import conv_memory_format
from ..ops.execution import MAX_LEVEL, use_memory_level
from ..out_of_memory import empty_cache, is_out_of_memory
from ..text import first_line
from .transforms import to_masks, to_network_input

Progress = Callable[[int, int], None]


class Passes:
    """The forward passes of one call of Segmenter: the only loop over batches.

    Args:
        network: Takes normalised images N, 3, h, w and returns ``.logits``; may have ``release()`` to free memory.
        batch_size: Images per pass, until fewer fit.
        total: Images that will be run or skipped.
        flip: Whether to average each mask with the flipped mask of the flipped image; counts as a second pass.
        level: Memory level of ``ops.execution`` to begin with.
        name: The checkpoint's, for messages.
        progress: Called with (passes done, passes in total) before each batch.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        batch_size: int,
        total: int,
        flip: bool = False,
        level: int = 0,
        name: str = "",
        progress: Progress | None = None,
    ) -> None:
        self.network, self.batch_size, self.flip, self.level, self.name = network, batch_size, flip, level, name
        self._progress, self._done, self._total = progress, 0, total * (1 + flip)

    def run(self, crops: Sequence[Tensor], size: tuple[int, int]) -> Iterator[Tensor]:
        """Segments crops.

        Args:
            crops: Each H, W, C in [0, 1], of any size.
            size: Height and width of the network's input.

        Yields:
            The mask H, W float32 of each crop, on the network's device.

        Raises:
            MemoryLimitError: A single crop does not fit into memory.
            CheckpointError: The network computes NaN.
        """
        masks = self._masks(crops, size, flipped=False)
        if not self.flip:
            return masks
        pairs = zip(masks, self._masks(crops, size, flipped=True), strict=True)
        return (mask.add_(other).mul_(0.5) for mask, other in pairs)

    def skip(self, images: int) -> None:
        """Counts images that need no pass as done."""
        self._done += images * (1 + self.flip)

    def report(self) -> None:
        """Calls the progress function; an exception it raises passes through."""
        if self._progress:
            self._progress(self._done, self._total)

    def _masks(self, crops: Sequence[Tensor], size: tuple[int, int], flipped: bool) -> Iterator[Tensor]:
        first = 0
        while first < len(crops):
            self.report()
            batch = crops[first : first + self.batch_size]
            masks = self._try(batch, size, flipped)
            if masks is not None:
                first += len(batch)
                self._done += len(batch)
                yield from masks

    def _try(self, crops: Sequence[Tensor], size: tuple[int, int], flipped: bool) -> list[Tensor] | None:
        """Runs one batch; when out of memory, reduces what the next attempt needs and returns None."""
        try:
            with use_memory_level(self.level):
                return self._forward(crops, size, flipped)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        # Outside the except block: the error's traceback holds the activations.
        self._reduce_memory(len(crops), size, reason)
        return None

    @torch.inference_mode()
    def _forward(self, crops: Sequence[Tensor], size: tuple[int, int], flipped: bool) -> list[Tensor]:
        parameter = next(self.network.parameters())
        x = to_network_input(crops, *size, device=parameter.device)  # N 3 h w
        x = x.to(parameter.dtype, memory_format=conv_memory_format(parameter.device))
        logits = self.network(x.flip(-1) if flipped else x).logits  # N 1 h w
        del x
        probabilities = torch.sigmoid((logits.flip(-1) if flipped else logits).float())
        if not probabilities.isfinite().all():
            raise CheckpointError(self._about_nan(parameter.dtype, size))
        return to_masks(probabilities, [crop.shape[:2] for crop in crops])

    def _about_nan(self, dtype: torch.dtype, size: tuple[int, int]) -> str:
        height, width = size
        what = f"the network computes NaN at {width} x {height} with checkpoint {self.name or '(unnamed)'} in {dtype}"
        if dtype == torch.float32:
            return f"{what}: its weights are damaged, or come from a training that diverged. Use another checkpoint."
        return f"{what}: use float32 or bfloat16. Where float32 gives NaN too, the checkpoint's weights are damaged."

    def _reduce_memory(self, images: int, size: tuple[int, int], reason: str) -> None:
        """After running out of memory: frees what the network keeps, halves the batch, then raises the level."""
        release = getattr(self.network, "release", None)
        released = release is not None and release()
        empty_cache(next(self.network.parameters()).device)
        if released:
            return
        if images > 1:
            self.batch_size = images // 2
        elif self.level < MAX_LEVEL:
            self.level += 1
        else:
            height, width = size
            raise MemoryLimitError(
                f"out of memory for one image at {width} x {height}, even in the smallest chunks ({reason}). Use a "
                "smaller size, a smaller checkpoint such as BiRefNet_lite, half precision, or the CPU."
            )
