"""Sequences of images that FFmpeg misreads: it goes by names, and passes over what PNGs say of their colours."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

from birefnet_core.image_reading import read_image_file
from birefnet_core.video import Clip

Y, X = np.mgrid[:32, :64]
COLOURS = np.stack([X * 4, Y * 8, (X + Y) * 2], axis=-1).astype(np.uint8)


def first_frame(folder):
    with Clip(folder) as clip:
        frames = [frame.pixels for frame in clip]
    return frames[0][..., :3] / np.float32(np.iinfo(frames[0].dtype).max)


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "tif", "bmp", "webp"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF"])
def test_images_are_known_by_what_they_are_not_by_their_names(tmp_path, kind, ending):
    """Phones and websites give JPEGs the names of PNGs; FFmpeg said their frames were 0 x 0 pixels."""
    for number in range(2):
        options = {"quality": 98} if kind in ("JPEG", "MPO") else {"lossless": True} if kind == "WEBP" else {}
        Image.fromarray(COLOURS).save(tmp_path / f"{number}.{ending}", format=kind, **options)
    expected = read_image_file(tmp_path / f"0.{ending}").colours.numpy()
    assert np.abs(first_frame(tmp_path) - expected).max() < (0.05 if kind in ("JPEG", "MPO") else 0.01)
