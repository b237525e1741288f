"""Sequences of images that FFmpeg misreads: it goes by names, and passes over what PNGs say of their colours."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

from birefnet_core.errors import VideoError
from birefnet_core.image_reading import read_image_file
from birefnet_core.video import Clip, Output, segment_video

from .conftest import KnownMasks, make_clip

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


LINEAR, USUAL = struct.pack(">I", 100000), struct.pack(">I", 45455)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("chunks", "linear"),
    [
        ([], False),
        ([(b"gAMA", USUAL)], False),
        ([(b"gAMA", LINEAR)], True),
        ([(b"gAMA", LINEAR), (b"sRGB", b"\0")], False),
        ([(b"cICP", bytes([1, 8, 0, 1]))], True),
        ([(b"cICP", bytes([1, 13, 0, 1])), (b"gAMA", LINEAR)], False),
    ],
)
def test_linear_light_becomes_srgb_as_in_single_images(tmp_path, deep, chunks, linear):
    rows = [row.astype(">u2" if deep else "u1").tobytes() for row in COLOURS.astype(int) * (257 if deep else 1)]
    head = struct.pack(">IIBBBBB", 64, 32, 16 if deep else 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(b"".join(b"\0" + r for r in rows))), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    frame = first_frame(tmp_path)
    assert np.abs(frame - read_image_file(tmp_path / "0.png").colours.numpy()).max() < 0.003
    assert (np.abs(frame - COLOURS / np.float32(255)).max() > 0.2) == linear


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("beach.heic", b"\0\0\0\x18ftypheic", "beach.heic.*pip install pillow-heif"),
        ("beach.jxl", b"\xff\x0a", "beach.jxl.*pip install pillow-jxl-plugin"),
        ("beach.png", b"\0\0\0\x18ftypheic", "beach.png.*pip install pillow-heif"),
    ],
)
def test_a_background_that_a_package_reads_names_it(tmp_path, name, content, words):
    """It was tried as a clip."""
    (tmp_path / name).write_bytes(content)
    out = Output(path=tmp_path / "out.mp4", kind="composite", background=tmp_path / name)
    with pytest.raises(VideoError, match=words):
        segment_video(KnownMasks(), make_clip(tmp_path, frames=1, audio=None), out)
    assert not out.path.exists()


def test_a_background_is_known_by_its_content(tmp_path):
    """With a package that reads HEIC, or an image of another kind under its name."""
    Image.new("RGB", (96, 64), "#20a060").save(tmp_path / "beach.heic", format="PNG")
    out = Output(path=tmp_path / "out.mp4", kind="composite", background=tmp_path / "beach.heic", crf=4)
    segment_video(KnownMasks(), make_clip(tmp_path, frames=1, audio=None), out)
    with Clip(out.path) as clip:
        assert np.abs(next(iter(clip)).pixels[0, 0].astype(int) - (0x20, 0xA0, 0x60)).max() < 6
