"""Segmenter: images of any size in, masks of the same size out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor

from ..errors import ConfigError, MemoryLimitError
from ..network import BiRefNet
from ..network.birefnet import SIZE_MULTIPLE
from .prepared import PreparedBiRefNet, prepare
from .transforms import check_images, to_masks, to_network_input

Size = int | Sequence[int] | str | None

FALLBACK_SIZE = (1024, 1024)  # of the paper, for networks that no checkpoint says anything about


# Activations of Swin-L in float32, measured at 1024 x 1024 on the CPU; smaller encoders need less.
BYTES_PER_PIXEL = 3600


class Segmenter:
    """A network with the preprocessing of its checkpoint.

    Args:
        model: The network, or its prepared form (``prepare``). It runs on the device and in the precision it is
            in when called. A network is prepared at the first call, and again when its weights have changed.
        batch_size: Images at a time. More is faster on large GPUs and needs more memory.

    Attributes:
        model: The network.
        batch_size: Images at a time.
        training_size: Width, height the checkpoint was trained at, in pixels.
    """

    def __init__(self, model: BiRefNet | PreparedBiRefNet, *, batch_size: int = 1) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r}: expected at least 1.")
        self.model = model
        self.batch_size = batch_size
        self.training_size = model.checkpoint.training_size if model.checkpoint else FALLBACK_SIZE
        self._prepared: PreparedBiRefNet | None = None
        self._prepared_from: tuple | None = None

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
        if size is None:
            wanted = self.training_size
        elif size == "native":
            wanted = (width, height)
        elif isinstance(size, Integral) and not isinstance(size, bool):
            wanted = (size, size)
        elif isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
            wanted = size
        else:
            raise ConfigError(f"size={size!r}: expected None, a number, (width, height) or 'native'.")
        if not all(isinstance(side, Integral) and side > 0 for side in wanted):
            raise ConfigError(f"size={size!r}: width and height must be whole numbers above 0.")
        smallest = self.model.min_side
        width, height = (max(smallest, round(int(side) / SIZE_MULTIPLE) * SIZE_MULTIPLE) for side in wanted)
        return height, width

    def memory_required(self, height: int, width: int) -> int:
        """Bytes a step needs beside the weights, for network input of height x width pixels."""
        return round(self.batch_size * height * width * BYTES_PER_PIXEL * next(self.model.parameters()).itemsize / 4)

    def __call__(
        self,
        images: Tensor,
        size: Size = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Segments images.

        Args:
            images: B, H, W, C float in [0, 1] with C = 1, 3 or 4 (alpha is dropped), on any device.
            size: See ``network_size``.
            progress: Called with (images done, images in all) at the start and after each step. An
                exception raised in it ends the run and passes through.

        Returns:
            Masks B, H, W float32 in [0, 1], foreground 1, on the device of ``images``.

        Raises:
            ImageError: Images of another shape, type or range.
            ConfigError: A size of another form.
        """
        check_images(images)
        total, height, width, _ = images.shape
        network_size = self.network_size(size, height, width)
        masks = torch.empty((total, height, width), dtype=torch.float32, device=images.device)
        was_training = self.model.training
        self.model.eval()
        try:
            network = self._network()
            done, at_once = 0, self.batch_size
            while done < total:
                if progress:
                    progress(done, total)
                chunk = images[done : done + at_once]
                try:
                    masks[done : done + len(chunk)] = _segment(network, chunk, network_size)
                except torch.OutOfMemoryError as error:
                    at_once = self._with_less_memory(network, len(chunk), network_size, error)
                    continue
                done += len(chunk)
            if progress:
                progress(total, total)
        finally:
            self.model.train(was_training)
        return masks

    def _network(self) -> PreparedBiRefNet:
        """The prepared form of the model as it is now."""
        if isinstance(self.model, PreparedBiRefNet):
            return self.model
        tensors = (*self.model.parameters(), *self.model.buffers())
        state = tuple((t.data_ptr(), t.dtype, t.device, 0 if t.is_inference() else t._version) for t in tensors)
        if state != self._prepared_from:
            self._prepared, self._prepared_from = prepare(self.model), state
        return self._prepared

    @staticmethod
    def _with_less_memory(
        network: PreparedBiRefNet, images: int, size: tuple[int, int], error: torch.OutOfMemoryError
    ) -> int:
        """How many images to try after these have not fitted; for a single one, the network works in smaller pieces."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if images > 1:
            return images // 2
        if network.spare_memory():
            return 1
        height, width = size
        raise MemoryLimitError(
            f"out of memory for one image at {width} x {height}, even in small pieces. Use a smaller size, a smaller "
            "checkpoint such as BiRefNet_lite, half precision, or the CPU."
        ) from error


@torch.inference_mode()
def _segment(network: PreparedBiRefNet, images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images B, H, W, C -> masks B, H, W, all at once."""
    parameter = next(network.parameters())
    x = to_network_input(images.to(parameter.device), *size).to(parameter.dtype)
    return to_masks(network(x).logits, *images.shape[1:3]).to(images.device)
