"""Sequences of images that FFmpeg misreads: it goes by names, and passes over what files say of their colours."""

import gc
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

pytest.importorskip("av")

from birefnet_core.errors import VideoError
from birefnet_core.image_reading import read_image_file
from birefnet_core.video import Clip, Output, segment_video
from birefnet_core.video.image_files import find_sequence

from .conftest import KnownMasks, av, make_clip

Y, X = np.mgrid[:32, :64]
COLOURS = np.stack([X * 4, Y * 8, (X + Y) * 2], axis=-1).astype(np.uint8)


def first_frame(folder):
    with Clip(folder) as clip:
        frames = [frame.pixels for frame in clip]
    return frames[0][..., :3] / np.float32(np.iinfo(frames[0].dtype).max)


def write_png(path, bits, rows, chunks):
    head = struct.pack(">IIBBBBB", 64, 32, bits, 2, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(b"".join(b"\0" + r for r in rows))), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


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
    write_png(tmp_path / "0.png", 16 if deep else 8, rows, chunks)
    frame = first_frame(tmp_path)
    assert np.abs(frame - read_image_file(tmp_path / "0.png").colours.numpy()).max() < 0.003
    assert (np.abs(frame - COLOURS / np.float32(255)).max() > 0.2) == linear


def profile(red, green, blue):
    """The profile of sRGB with other primaries: X Y Z by the white of D50."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, values in {b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue}.items():
        entry = data.index(name, 128)
        at = struct.unpack(">I", data[entry + 4 : entry + 8])[0] + 8
        data = data[:at] + struct.pack(">3i", *(round(value * 65536) for value in values)) + data[at + 12 :]
    return data


PRIMARIES = {
    "sRGB": ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
    "Display P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
}


@pytest.mark.parametrize(
    ("ending", "alpha"),
    [("jpg", False), *((ending, alpha) for ending in ("png", "tif", "webp") for alpha in (False, True))],
)
@pytest.mark.parametrize("space", PRIMARIES)
def test_colours_of_a_wide_profile_become_srgb(tmp_path, space, ending, alpha):
    """Clips have no profile: Display P3, as of phones, was taken for sRGB, and lost a fifth of its saturation."""
    red = np.broadcast_to(np.array([200, 60, 40], np.uint8), (32, 64, 3))
    pixels = np.dstack([red, np.full((32, 64), 128, np.uint8)]) if alpha else red
    options = {"lossless": True} if ending == "webp" else {"quality": 98} if ending == "jpg" else {}
    Image.fromarray(pixels).save(tmp_path / f"0.{ending}", icc_profile=profile(*PRIMARIES[space]), **options)
    expected = (200, 60, 40) if space == "sRGB" else (217.5, 41.6, 22.6)
    assert np.abs(first_frame(tmp_path)[16, 32] * 255 - expected).max() <= (3 if ending == "jpg" else 1.5)
    with Clip(tmp_path) as clip:
        assert not clip.notes
        frame = next(iter(clip)).pixels
        assert not alpha or np.all(frame[..., 3] == 128)
    gc.collect()  # PyAV may have ended the process, see video/orientation.py


def test_a_background_of_a_wide_profile_becomes_srgb(tmp_path):
    options = {"icc_profile": profile(*PRIMARIES["Display P3"])}
    Image.new("RGB", (96, 64), (200, 60, 40)).save(tmp_path / "wall.png", **options)
    out = Output(path=tmp_path / "out.mp4", kind="composite", background=tmp_path / "wall.png", crf=4)
    segment_video(KnownMasks(), make_clip(tmp_path, frames=1, audio=None), out)
    with Clip(out.path) as clip:
        assert np.abs(next(iter(clip)).pixels[0, 0].astype(int) - (217, 42, 23)).max() < 6


@pytest.mark.parametrize(("space", "noted"), [("sRGB", False), ("Display P3", True)])
def test_a_wide_profile_of_16_bits_is_noted(tmp_path, space, noted):
    rows = [row.astype(">u2").tobytes() for row in COLOURS.astype(int) * 257]
    icc = b"icc\0\0" + zlib.compress(profile(*PRIMARIES[space]))
    write_png(tmp_path / "0.png", 16, rows, [(b"iCCP", icc)])
    with Clip(tmp_path) as clip:
        assert next(iter(clip)).pixels.dtype == np.uint16
        assert any("16 bits and a colour profile" in note for note in clip.notes) == noted
    gc.collect()


@pytest.mark.parametrize("container", ["image.png", "clip.apng", "clip.mov"])
def test_a_profile_in_a_clip_of_png_does_not_end_the_process(tmp_path, container):
    images = [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)]
    more = {"save_all": True, "append_images": images[1:]} if container != "image.png" else {}
    images[0].save(tmp_path / "image.png", icc_profile=profile(*PRIMARIES["sRGB"]), **more)
    path = tmp_path / container
    if container == "clip.mov":
        with av.open(str(tmp_path / "image.png"), format="png_pipe") as source, av.open(str(path), "w") as file:
            stream = file.add_stream("png", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 32, "rgb24"
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    file.mux(packet)
    elif container == "clip.apng":
        (tmp_path / "image.png").rename(path)
    for _ in range(3):
        with Clip(path) as clip:
            assert np.abs(next(iter(clip)).pixels[..., :3].astype(int) - COLOURS).max() <= 1
        gc.collect()


def test_cmyk_becomes_srgb_as_in_single_images(tmp_path):
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "0.jpg", quality=98)
    assert np.abs(first_frame(tmp_path) - read_image_file(tmp_path / "0.jpg").colours.numpy()).max() < 0.02


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


def test_images_of_one_number_come_in_the_order_of_their_names(tmp_path, monkeypatch):
    names = ["001.png", "01.png", "1.png", "2.png"]
    for listed in (names, names[::-1]):
        monkeypatch.setattr(Path, "iterdir", lambda folder, listed=listed: iter([folder / name for name in listed]))
        assert [path.name for path in find_sequence(tmp_path)] == names
