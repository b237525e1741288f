"""Segmenter: images of any size in, masks of the same size out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor

from ..errors import ConfigError
from ..network import BiRefNet
from ..network.birefnet import SIZE_MULTIPLE
from .transforms import check_images, to_masks, to_network_input

Size = int | Sequence[int] | str | None

FALLBACK_SIZE = (1024, 1024)  # of the paper, for networks that no checkpoint says anything about


# Activations of Swin-L in float32, measured at 1024 x 1024 on the CPU; smaller encoders need less.
BYTES_PER_PIXEL = 3600


class Segmenter:
    """A network with the preprocessing of its checkpoint.

    Args:
        model: The network; it is run on the device and in the precision it is in when called.
        batch_size: Images at a time. More is faster on large GPUs and needs more memory.

    Attributes:
        model: The network.
        batch_size: Images at a time.
        training_size: Width, height the checkpoint was trained at, in pixels.
    """

    def __init__(self, model: BiRefNet, *, batch_size: int = 1) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r}: expected at least 1.")
        self.model = model
        self.batch_size = batch_size
        checkpoint = getattr(model, "checkpoint", None)
        self.training_size = checkpoint.training_size if checkpoint else FALLBACK_SIZE

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
        parameter = next(self.model.parameters())
        masks = torch.empty((total, height, width), dtype=torch.float32, device=images.device)
        was_training = self.model.training
        self.model.eval()
        try:
            for start in range(0, total, self.batch_size):
                if progress:
                    progress(start, total)
                with torch.inference_mode():  # around the network only: callers may write to what they get
                    chunk = images[start : start + self.batch_size].to(parameter.device)
                    x = to_network_input(chunk, *network_size).to(parameter.dtype)
                    masks[start : start + len(chunk)] = to_masks(self.model(x).logits, height, width)
            if progress:
                progress(total, total)
        finally:
            self.model.train(was_training)
        return masks
