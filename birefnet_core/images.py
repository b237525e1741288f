"""Image files <-> tensors, for the command line and for training.

Shapes: H W pixels, C colours. Values are floats in [0, 1].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import ImageError
from .files import atomic_path
from .text import first_line

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jfif", ".avif"}
)

_DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # Pillow's modes for 16-bit grey


def list_images(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Image files in a folder, sorted; hidden files are left out.

    Args:
        folder: The folder.
        recursive: Whether to take the files of its subfolders, too.
    """
    files = folder.rglob("*") if recursive else folder.iterdir()
    images = (path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in images if path.is_file())


def read_image(path: str | Path) -> Tensor:
    """Reads an image as people see it: EXIF orientation applied, alpha dropped, first frame of several.

    Returns:
        H, W, 3 float32 in [0, 1].

    Raises:
        ImageError: Not there, not an image, truncated, or of no pixels.
    """
    path = Path(path)
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode in _DEEP_GREY:  # Pillow's own conversion would clip at 255
                grey = torch.from_numpy(np.asarray(image).astype(np.float32) / 65535)
                return grey.clamp(0, 1).unsqueeze(-1).expand(-1, -1, 3).contiguous()
            if image.mode == "P" or "transparency" in image.info:
                image = image.convert("RGBA")  # palettes with transparency
            pixels = np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file.") from None
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not an image that can be read ({first_line(error)}).") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{path}: the image cannot be read, perhaps truncated ({first_line(error)}).") from error
    if 0 in pixels.shape:
        raise ImageError(f"{path}: the image has no pixels.")
    return torch.from_numpy(pixels).float() / 255


def to_bytes(values: Tensor) -> np.ndarray:
    """Floats in [0, 1] -> rounded bytes, same shape."""
    return (values.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def write_mask(path: str | Path, mask: Tensor, bits: int = 8) -> None:
    """Writes a mask as a grey PNG, whole or not at all.

    Args:
        path: A file ending in .png.
        mask: H, W float in [0, 1].
        bits: 8 or 16.
    """
    if bits == 16:
        image = Image.fromarray((mask.detach().cpu().double().clamp(0, 1) * 65535).round().numpy().astype(np.uint16))
    else:
        image = Image.fromarray(to_bytes(mask))
    _write(Path(path), image)


def write_image(path: str | Path, image: Tensor) -> None:
    """Writes H, W, 3 or H, W, 4 (straight alpha) floats in [0, 1] as a PNG, whole or not at all."""
    _write(Path(path), Image.fromarray(to_bytes(image)))


def _write(path: Path, image: Image.Image) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            image.save(part, format="PNG")
    except OSError as error:
        raise ImageError(f"{path}: not written ({first_line(error)}).") from error
