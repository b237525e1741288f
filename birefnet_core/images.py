"""Image files <-> tensors, for the command line and for training.

Shapes: H W pixels, C colours. Values are floats in [0, 1].
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from .checks import check_switch
from .colour_profiles import differs_from_srgb, to_srgb
from .errors import ConfigError, DatasetError, ImageError
from .files import atomic_path, make_parent, path_of, possible
from .image_formats import IMAGE_SUFFIXES, image_suffixes
from .image_ops import check_images, check_masks
from .image_reading import ImageFile, opened_image, read_image_file
from .text import first_line, printable

__all__ = [
    "IMAGE_SUFFIXES",
    "FoundImages",
    "as_srgb",
    "find_images",
    "is_own_output",
    "list_images",
    "png_software",
    "read_image",
    "to_bytes",
    "write_image",
    "write_mask",
]
_SOFTWARE = "birefnet_core"  # the PNG text "Software" of masks and cut-outs
_NOT_COUNTED = frozenset({"thumbs.db", "desktop.ini"})  # what Windows puts beside images
# Folders that storage servers and systems put among those of their users: thumbnails, bins, snapshots.
_NOT_SEARCHED = frozenset(
    {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin", "system volume information",
     "__macosx", "lost+found"}
)  # fmt: skip


@dataclasses.dataclass
class FoundImages:
    """The images of a folder, and what else was there.

    Attributes:
        images: Image files, sorted.
        passed: How many files of each other ending there are.
        broken: Links with an image's ending that lead nowhere, and pipes and devices of such names.
        errors: Folders that cannot be listed.
        failures: Sentences on the last two.
    """

    images: list[Path] = dataclasses.field(default_factory=list)
    passed: Counter[str] = dataclasses.field(default_factory=Counter)
    broken: list[Path] = dataclasses.field(default_factory=list)
    errors: list[OSError] = dataclasses.field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        broken = [f"{path}: leads to no file" for path in self.broken]
        return broken + [f"{e.filename}: the folder cannot be listed ({e.strerror})" for e in self.errors]


def find_images(
    folder: Path, *, recursive: bool = False, leave_out: Path | None = None, suffixes: Collection[str] = ()
) -> FoundImages:
    """Image files in a folder; hidden files and folders are left out, and links to folders not followed.

    Args:
        folder: The folder.
        recursive: Whether to take the files of its subfolders, too.
        leave_out: A subfolder, resolved, that is not searched.
        suffixes: Lower-case endings of other files to find instead of images.
    """
    found, suffixes = FoundImages(), suffixes or image_suffixes()
    try:
        possible(folder)
    except OSError as error:
        found.errors.append(error)
        return found
    for root, folders, files in os.walk(folder, onerror=found.errors.append):
        inner = [Path(root, name) for name in folders if recursive and not is_hidden_folder(name)]
        folders[:] = [path.name for path in inner if leave_out is None or path.resolve() != leave_out]
        for name in files:
            if name.startswith(".") or name.lower() in _NOT_COUNTED:
                continue
            suffix = os.path.splitext(name)[1].lower()
            path = os.path.join(root, name)
            if suffix not in suffixes:
                found.passed[suffix or "no ending"] += 1
            elif os.path.isfile(path):
                found.images.append(Path(path))
            else:
                found.broken.append(Path(path))
    found.images.sort()
    return found


def is_hidden_folder(name: str) -> bool:
    """Whether a folder of this name holds nothing that its user put there."""
    return name.startswith(".") or name.lower() in _NOT_SEARCHED


def list_images(folder: Path, *, recursive: bool = False) -> list[Path]:
    """``find_images`` without what else was there.

    Raises:
        DatasetError: A folder cannot be listed.
    """
    found = find_images(folder, recursive=recursive)
    for error in found.errors:
        raise DatasetError(f"{printable(error.filename)}: the folder cannot be listed ({error.strerror}).")
    return found.images


def is_own_output(path: Path) -> bool:
    """Whether a file is a mask or cut-out that ``write_mask`` or ``write_image`` wrote."""
    return png_software(path) == _SOFTWARE


def png_software(path: Path) -> str | None:
    """The text "Software" of a PNG; None where there is none, or no such file."""
    if path.suffix.lower() != ".png":
        return None
    try:
        with opened_image(path) as image:
            return image.info.get("Software")
    except (ImageError, MemoryError):  # said when it is read
        return None


def read_image(path: str | Path) -> Tensor:
    """The colours of ``read_image_file``, without the alpha channel.

    Returns:
        H, W, 3 float32 in [0, 1].

    Raises:
        ImageError: As ``read_image_file``, and so is the other error.
        MemoryLimitError: Too little memory for it.
    """
    return read_image_file(path).colours


def as_srgb(file: ImageFile) -> ImageFile:
    """An image without its profile, for what has none: where the two differ, its colours become sRGB, in 8 bits."""
    colours = file.colours
    if file.icc_profile is not None and differs_from_srgb(file.icc_profile):
        pixels = np.asarray(to_srgb(Image.fromarray(to_bytes(colours)), file.icc_profile))
        colours = torch.from_numpy(pixels.astype(np.float32) / 255)
    return dataclasses.replace(file, colours=colours, icc_profile=None)


def to_bytes(values: Tensor) -> np.ndarray:
    """Floats in [0, 1] -> rounded bytes, same shape."""
    return (values.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def write_mask(path: str | Path, mask: Tensor, bits: int = 8, *, overwrite: bool = True) -> None:
    """Writes a mask as a grey PNG, whole or not at all.

    Args:
        path: A file ending in .png.
        mask: H, W float in [0, 1].
        bits: 8 or 16.
        overwrite: Whether to replace a file that is there.

    Raises:
        ImageError: It cannot be written, there is such a file, or what is given is no mask.
        ConfigError: Other bits, or no switch.
    """
    if bits not in (8, 16):
        raise ConfigError(f"bits is {bits!r}, expected 8 or 16.")
    _check(path, mask, overwrite, dims=2)
    if bits == 16:
        image = Image.fromarray((mask.detach().cpu().double().clamp(0, 1) * 65535).round().numpy().astype(np.uint16))
    else:
        image = Image.fromarray(to_bytes(mask))
    _write(Path(path), image, overwrite=overwrite)


def write_image(path: str | Path, image: Tensor, icc_profile: bytes | None = None, *, overwrite: bool = True) -> None:
    """Writes an image as a PNG, whole or not at all.

    Args:
        path: A file ending in .png.
        image: H, W, 3 or H, W, 4 (straight alpha) floats in [0, 1].
        icc_profile: The profile its colours are in.
        overwrite: As for ``write_mask``.

    Raises:
        ImageError: It cannot be written, there is such a file, or what is given is no image.
        ConfigError: No switch.
    """
    _check(path, image, overwrite, dims=3)
    _write(Path(path), Image.fromarray(to_bytes(image)), icc_profile, overwrite=overwrite)


def _check(path: str | Path, values: Tensor, overwrite: bool, *, dims: int) -> None:
    """Checks what is to be written: numbers that are cut off, or PNG data under another ending, are not seen later."""
    check_switch("overwrite", overwrite)
    name, expected = {2: ("mask", "H, W"), 3: ("image", "H, W, 3 or H, W, 4")}[dims]
    try:
        if path_of(path, "path").suffix.lower() != ".png":
            raise ImageError("expected a name ending in .png, as PNG is what is written.")
        if isinstance(values, Tensor) and values.ndim != dims:
            raise ImageError(f"{name} has shape {' x '.join(map(str, values.shape))}, expected {expected}.")
        batch = values[None] if isinstance(values, Tensor) else values
        check_masks(batch, name) if dims == 2 else check_images(batch, name, channels=(3, 4))
    except ImageError as error:
        raise ImageError(f"{printable(path)}: not written: {error}") from None


def _write(path: Path, image: Image.Image, icc_profile: bytes | None = None, *, overwrite: bool) -> None:
    text = PngInfo()
    text.add_text("Software", _SOFTWARE)
    try:
        make_parent(path)
        with atomic_path(path, replace=overwrite) as part:
            image.save(part, format="PNG", icc_profile=icc_profile, pnginfo=text)
    except OSError as error:
        raise ImageError(f"{printable(path)}: not written ({error.strerror or first_line(error)}).") from error
