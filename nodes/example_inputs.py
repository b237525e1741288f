"""The folder of images that an example workflow opens: ComfyUI lists folders within its input folder only."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import folder_paths

from .comfy_compat import PACK

FOLDER = "birefnet_examples"
logger = logging.getLogger(__name__)


def copy_example_images() -> None:
    """Copies the pack's images into ComfyUI's input folder, unless a folder of that name is there, be it empty."""
    target = Path(folder_paths.get_input_directory(), FOLDER)
    if target.exists():
        return
    try:
        target.mkdir(parents=True)
        for image in sorted((PACK / "examples").glob("*.jpg")):
            shutil.copyfile(image, target / image.name)
    except OSError as error:  # such as a folder that may not be written to
        logger.info("BiRefNet: no example images in %s: %s", target, error)
