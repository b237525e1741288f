"""The images that the example workflows open, in ComfyUI's input folder: ComfyUI offers files from there only."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import folder_paths

from ..birefnet_core.files import atomic_folder, atomic_path
from .comfy_compat import PACK

FOLDER = "birefnet_examples"  # for the example of a folder
# ComfyUI lists a folder as its disk does, which on Windows is by name.
FOLDER_FILES = {
    f"{number}_{image}": image
    for number, image in enumerate(
        ("portrait.jpg", "swan.jpg", "snowboarder.jpg", "taxi.jpg", "plant.jpg", "composite_two.jpg"), 1
    )
}
# Load Image lists no files in folders. The names come after ComfyUI's own example.png, which stays the default.
FILES = {
    "example_birefnet.jpg": "portrait.jpg",
    "example_birefnet_two.jpg": "composite_two.jpg",
    "example_birefnet_three.jpg": "snowboarder.jpg",
}
logger = logging.getLogger(__name__)


def copy_example_images() -> None:
    """Copies the pack's images into ComfyUI's input folder at the first start: as long as FOLDER is not there.

    It comes last and whole, so what a full disk or the end of the program left out comes at the next start.
    """
    target, images = Path(folder_paths.get_input_directory()), PACK / "examples"
    try:
        if (target / FOLDER).exists():
            return
        target.mkdir(parents=True, exist_ok=True)
        for name, image in FILES.items():
            if not (target / name).exists():
                with atomic_path(target / name) as part:
                    shutil.copyfile(images / image, part)
        with atomic_folder(target / FOLDER) as folder:
            for name, image in FOLDER_FILES.items():
                shutil.copyfile(images / image, folder / name)
    except OSError as error:  # such as a folder that may not be written to
        logger.info("BiRefNet: no example images in %s: %s", target, error)
