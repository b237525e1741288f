"""One image of many: its mask, or the reason why it has none."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, ImageError
from ..image_reading import ImageFile
from ..inference import Segmenter
from ..out_of_memory import is_out_of_memory
from ..text import printable

NOT_SEGMENTED = (ImageError, CheckpointError, MemoryError, RuntimeError)  # the last where memory ran out


def segment_image(segmenter: Segmenter, image: ImageFile, size: int | tuple[int, int] | str | None) -> Tensor:
    """The mask 1, H, W of an image; what is transparent in the image stays so.

    Args:
        segmenter: Computes the mask.
        image: The image. The network gets it over grey: colours under transparent pixels are not seen.
        size: As for ``Segmenter``.
    """
    colours = image.colours.unsqueeze(0)  # 1 H W 3
    if image.alpha is None:
        return segmenter(colours, size=size)
    over_grey = torch.lerp(torch.full_like(colours, 0.5), colours, image.alpha[None, ..., None])
    return segmenter(over_grey, size=size) * image.alpha


def failure_of(source: Path, error: Exception) -> str:
    """Why an image was not segmented: a sentence that begins with the name of a file.

    Args:
        source: The image.
        error: One of ``NOT_SEGMENTED``.

    Raises:
        Exception: The error itself where it says nothing of this image, but of a fault of this package.
    """
    if isinstance(error, RuntimeError) and not is_out_of_memory(error):
        raise error
    text = str(error)
    if not isinstance(error, ImageError | CheckpointError) and (not text or is_out_of_memory(error)):
        text = "too little memory for it; make it smaller, or give a smaller --size."
    about_a_file = isinstance(error, ImageError) or text.startswith(printable(source))
    return text if about_a_file else f"{source}: {text}"
