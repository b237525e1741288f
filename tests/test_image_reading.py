"""Image files of every format, mode, depth and orientation are read as people see them, or refused by name."""

import os
import struct
import sys
import types
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, features

from birefnet_core import image_formats, image_reading
from birefnet_core.errors import DatasetError, ImageError, MemoryLimitError
from birefnet_core.image_reading import read_image_file
from birefnet_core.mask_files import read_mask

Y, X = np.mgrid[:24, :36]
COLOURS = np.stack([X * 7, Y * 10, (X + Y) * 4], axis=-1).astype(np.uint8)
GREY = (X * 7).astype(np.uint8)
FORMATS = ["png", "jpg", "tif", "webp", "avif"]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
NO_AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")


def read(path):
    return read_image_file(path).colours.numpy()


def save(path, array, mode=None, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def tiff(*changes, data=b"", prefix=b"II"):
    """A grey TIFF of 16 x 16 pixels with other tags: (tag, type, count, value)."""
    order = "<" if prefix == b"II" else ">"
    tags = {256: (4, 1, 16), 257: (4, 1, 16), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 200)}
    tags |= {277: (3, 1, 1), 278: (4, 1, 16), 279: (4, 1, len(data) or 256)} | {tag: rest for tag, *rest in changes}
    head = struct.pack(order + "2sHIH", prefix, 42, 8, len(tags))
    for tag, (kind, count, value) in sorted(tags.items()):
        field = (
            value
            if isinstance(value, bytes)
            else struct.pack(order + ("HH" if kind == 3 else "I"), *([value, 0] if kind == 3 else [value]))
        )
        head += struct.pack(order + "HHI", tag, kind, count) + field
    return (head + bytes(4)).ljust(200, b"\0") + (data or bytes(256))


def with_exif(jpeg, block):
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block + jpeg[2:]


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=NO_AVIF) if kind == "avif" else kind for kind in FORMATS])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_by_their_orientation(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = save(tmp_path / f"a.{kind}", COLOURS, exif=exif, **({} if kind in ("png", "tif") else {"quality": 95}))
    with Image.open(save(tmp_path / "a.png", COLOURS, exif=exif) if kind == "tif" else path) as image:
        expected = (
            np.asarray(ImageOps.exif_transpose(image).convert("RGB")) / 255
        )  # which turns TIFFs of old Pillow twice
    assert np.abs(read(path) - expected).max() < 1e-6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_deep_grey_is_turned_too(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x112] = orientation
    deep = save(tmp_path / f"deep.{ending}", GREY.astype(np.uint16) * 257, exif=exif)
    plain = save(tmp_path / f"plain.{ending}", GREY, exif=exif)
    assert np.allclose(read(deep), read(plain), atol=1e-6)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientations_that_do_not_exist_change_nothing(tmp_path, value):
    exif = Image.Exif()
    exif[0x112] = value
    assert read(save(tmp_path / "a.png", COLOURS, exif=exif)).shape == (24, 36, 3)


ODD_TAGS = {
    "width as rational": (0x100, 5, 1, struct.pack("<II", 128, 1)),
    "maker as rational": (0x10F, 5, 1, struct.pack("<II", 1, 1)),
    "resolution as text": (0x11A, 2, 3, b"72\0"),
    "xmp as text": (0x2BC, 2, 4, b"abc\0"),
    "a count of 2**30": (0x10F, 2, 2**30, struct.pack("<I", 8)),
    "an unknown type": (0x10F, 99, 1, bytes(4)),
    "a loop": (0x8769, 4, 1, struct.pack("<I", 8)),
}


@pytest.mark.parametrize("name", ODD_TAGS)
def test_odd_exif_does_not_cost_the_image(tmp_path, name):
    save(tmp_path / "a.jpg", COLOURS)
    entries = sorted([(0x112, 3, 1, struct.pack("<H", 6)), ODD_TAGS[name]])
    start, table, data = 8 + 2 + 12 * len(entries) + 4, struct.pack("<H", len(entries)), b""
    for tag, kind, count, raw in entries:
        field = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", start + len(data))
        data += raw if len(raw) > 4 else b""
        table += struct.pack("<HHI", tag, kind, count) + field
    block = b"II*\0" + struct.pack("<I", 8) + table + bytes(4) + data
    (tmp_path / "b.jpg").write_bytes(with_exif((tmp_path / "a.jpg").read_bytes(), block))
    assert read(tmp_path / "b.jpg").shape == (36, 24, 3)


@pytest.mark.parametrize(
    "block", [b"", b"II", b"XX*\0\x08\0\0\0", bytes(60), b"II*\0\xff\xff\xff\x7f", b"II*\0\x08\0\0\0\xff\xff"]
)
def test_damaged_exif_does_not_cost_the_image(tmp_path, block):
    save(tmp_path / "a.jpg", COLOURS)
    (tmp_path / "b.jpg").write_bytes(with_exif((tmp_path / "a.jpg").read_bytes(), block))
    assert np.array_equal(read(tmp_path / "b.jpg"), read(tmp_path / "a.jpg"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_mode_gives_its_colours(tmp_path, mode):
    ending = "tif" if mode in ("CMYK", "YCbCr", "LAB") else "png"
    path = save(tmp_path / f"a.{ending}", COLOURS, mode)
    image = Image.fromarray(COLOURS).convert(mode)
    expected = COLOURS if mode == "LAB" else np.asarray(image.convert("RGB"))
    file = read_image_file(path)
    assert file.colours.shape == (24, 36, 3)
    assert np.abs(file.colours.numpy() - expected / 255).mean() < 0.01
    assert file.alpha is None


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize(("bits", "factor"), [(8, 1), (10, 4), (12, 16), (16, 257)])
def test_integers_of_every_depth_keep_their_brightness(tmp_path, bits, factor, ending):
    file = read_image_file(save(tmp_path / f"a.{ending}", GREY.astype(np.uint16) * factor))
    assert np.abs(file.colours[..., 0].numpy() - GREY / 255).max() < 0.005
    assert [f"{bits} bits" in note for note in file.notes] == ([] if bits == 16 else [True])


def test_a_tiff_that_says_12_bits_needs_no_guess(tmp_path):
    values = np.arange(256, dtype=np.uint16)  # dark
    pairs = values.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1)
    (tmp_path / "a.tif").write_bytes(tiff((258, 3, 1, 12), data=packed.astype(np.uint8).tobytes()))
    file = read_image_file(tmp_path / "a.tif")
    assert np.abs(file.colours[..., 0].numpy().ravel() - values / 4095).max() < 1e-4
    assert file.notes == ()


@pytest.mark.parametrize("prefix", [b"II", b"MM"])
def test_byte_order_and_white_is_zero(tmp_path, prefix):
    values = (np.arange(256) * 257).astype("<u2" if prefix == b"II" else ">u2")
    (tmp_path / "a.tif").write_bytes(tiff((258, 3, 1, 16), data=values.tobytes(), prefix=prefix))
    assert np.abs(read(tmp_path / "a.tif")[..., 0].ravel() - np.arange(256) / 255).max() < 1e-4
    if prefix == b"II":  # Pillow reads no other
        (tmp_path / "b.tif").write_bytes(tiff((258, 3, 1, 16), (262, 3, 1, 0), data=values.tobytes()))
        assert np.abs(read(tmp_path / "b.tif")[..., 0].ravel() - (1 - np.arange(256) / 255)).max() < 1e-4


def test_netpbm_files_are_read_by_their_largest_value(tmp_path):
    wide = (GREY.astype(np.uint16) * 16).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 36 24 4095\n" + wide.tobytes())
    assert np.abs(read(tmp_path / "a.pgm")[..., 0] - GREY * (16 / 4095)).max() < 1e-3


def test_16_bit_colours_are_read_and_12_bit_ones_stretched(tmp_path):
    cv2 = pytest.importorskip("cv2")
    for name, factor in (("deep.png", 257), ("deep.tif", 257), ("dark.png", 16)):
        cv2.imwrite(str(tmp_path / name), COLOURS[..., ::-1].astype(np.uint16) * factor)
        file = read_image_file(tmp_path / name)
        assert np.abs(file.colours.numpy() - COLOURS / 255).mean() < 0.03, name
        assert bool(file.notes) == (factor == 16)


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.7, 255.0, 65535.0])
def test_floats_are_taken_in_0_1_or_as_whole_numbers(tmp_path, scale):
    values = (GREY / 255 * scale).astype(np.float32)
    values = values.round() if scale > 2 else values
    file = read_image_file(save(tmp_path / "a.tif", values))
    expected = GREY / 255 if scale > 2 else (GREY / 255 * scale).clip(0, 1)
    assert np.abs(file.colours[..., 0].numpy() - expected).max() < 0.003
    assert len(file.notes) == (scale > 1)


def test_a_float_map_is_read(tmp_path):
    values = np.ascontiguousarray((GREY / 255)[::-1]).astype("<f4")
    (tmp_path / "a.pfm").write_bytes(b"Pf\n36 24\n-1.0\n" + values.tobytes())
    try:
        assert np.abs(read(tmp_path / "a.pfm")[..., 0] - GREY / 255).max() < 1e-6
    except ImageError as error:  # Pillow before 10.3
        assert "not an image" in str(error)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -3, 7.5, 1e9])
def test_floats_of_an_unknown_scale_are_refused(tmp_path, value):
    values = (GREY / 255).astype(np.float32)
    values[3, 5] = value
    with pytest.raises(ImageError, match=r"a\.tif: has .*expected"):
        read_image_file(save(tmp_path / "a.tif", values))


@pytest.mark.parametrize("values", [[-1, 5], [0, 2**20], [0, 2**31 - 1]])
def test_integers_of_an_unknown_scale_are_refused(tmp_path, values):
    with pytest.raises(ImageError, match="expected 0 to 65535"):
        read_image_file(save(tmp_path / "a.tif", np.array([values], np.int32)))


ALPHA = np.where(X < 18, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_an_alpha_channel_is_kept(tmp_path, ending):
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    file = read_image_file(save(tmp_path / f"a.{ending}", np.dstack([COLOURS, ALPHA]), **options))
    assert np.array_equal(file.colours.numpy(), COLOURS.astype(np.float32) / 255)
    assert np.array_equal(file.alpha.numpy(), ALPHA / 255)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16", "LA", "1"])
def test_transparency_of_every_mode_is_alpha(tmp_path, mode):
    colours = np.where(ALPHA[..., None] > 0, 200, 40).astype(np.uint8).repeat(3, axis=-1)
    image = Image.fromarray(colours)
    transparent = {"RGB": (40, 40, 40), "L": 40, "P": 0, "I;16": 40 * 257, "1": 0}
    if mode == "I;16":
        image = Image.fromarray(colours[..., 0].astype(np.uint16) * 257)
    elif mode == "P":
        image = image.quantize(2)
        transparent["P"] = image.getpixel((0, 0))
    elif mode == "LA":
        image = Image.fromarray(np.dstack([colours[..., 0], ALPHA]))
    else:
        image = image.convert(mode, dither=Image.Dither.NONE)
    options = {} if mode == "LA" else {"transparency": transparent[mode]}
    alpha = read_image_file(save(tmp_path / "a.png", image, **options)).alpha
    assert np.array_equal(alpha.numpy(), ALPHA / 255)


def test_an_image_transparent_everywhere_is_noted(tmp_path):
    file = read_image_file(save(tmp_path / "a.png", np.dstack([COLOURS, np.zeros_like(GREY)])))
    assert "transparent everywhere" in file.notes[0]


def profile(space="sRGB"):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


def test_a_profile_of_rgb_goes_along_and_others_do_not(tmp_path):
    rgb, lab = profile(), profile("LAB")
    assert read_image_file(save(tmp_path / "a.png", COLOURS, icc_profile=rgb)).icc_profile == rgb
    assert read_image_file(save(tmp_path / "b.jpg", COLOURS, icc_profile=rgb)).icc_profile == rgb
    for name, array, damaged in (("c", COLOURS, lab), ("d", COLOURS, b"nonsense"), ("e", GREY, b"x" * 16 + b"GRAY")):
        file = read_image_file(save(tmp_path / f"{name}.png", array, icc_profile=damaged))
        assert file.icc_profile is None
        expected = array if array.ndim == 3 else array[..., None].repeat(3, -1)
        assert np.array_equal(file.colours.numpy(), expected.astype(np.float32) / 255)


@pytest.mark.parametrize("frames", ["gif", "webp", "png", "tif"])
def test_of_several_frames_the_first_is_read(tmp_path, frames):
    images = [Image.fromarray(np.full((9, 9, 3), value, np.uint8)) for value in (250, 0, 0)]
    images[0].save(tmp_path / f"a.{frames}", save_all=True, append_images=images[1:])
    assert read(tmp_path / f"a.{frames}").mean() > 0.95
    assert read_image_file(tmp_path / f"a.{frames}").notes == (
        "it has several frames or pages, of which the first was read",
    )
    images[0].save(tmp_path / f"one.{frames}")
    assert read_image_file(tmp_path / f"one.{frames}").notes == ()


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=NO_AVIF) if kind == "avif" else kind for kind in FORMATS])
@pytest.mark.parametrize("seed", range(6))
def test_damaged_files_are_read_or_refused_by_name(tmp_path, kind, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(save(tmp_path / f"whole.{kind}", COLOURS).read_bytes())
    if seed < 3:
        data = data[: rng.integers(1, len(data))]
    else:
        for place in rng.integers(0, len(data), 20):
            data[place] ^= 1 << rng.integers(8)
    (tmp_path / f"damaged.{kind}").write_bytes(data)
    try:
        assert np.isfinite(read(tmp_path / f"damaged.{kind}")).all()
    except ImageError as error:
        assert f"damaged.{kind}: " in str(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError, AttributeError, TypeError, KeyError, IndexError, struct.error, ZeroDivisionError, SystemError],
)
def test_whatever_a_reader_raises_names_the_file(tmp_path, monkeypatch, error):
    def broken(image):
        raise error("of the reader")

    path = save(tmp_path / "a.bmp", COLOURS)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
    with pytest.raises(ImageError, match=r"a\.bmp: the image cannot be read, perhaps truncated \(.*of the reader"):
        read_image_file(path)


def test_a_fault_of_our_own_is_no_image_error(tmp_path, monkeypatch):
    monkeypatch.setattr(image_reading, "_to_floats", None)
    with pytest.raises(TypeError):
        read_image_file(save(tmp_path / "a.png", COLOURS))


@pytest.mark.parametrize("place", ["_decode", "_to_floats"])
def test_too_little_memory_names_the_file(tmp_path, monkeypatch, place):
    def exhausted(*args):
        raise MemoryError

    monkeypatch.setattr(image_reading, place, exhausted)
    with pytest.raises(MemoryLimitError, match=r"a\.png: too little memory"):
        read_image_file(save(tmp_path / "a.png", COLOURS))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (bytes(99), "zeros"),
        (b"\n<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypisom", "a clip, which birefnet video reads"),
        (b"\0\0\0\x14ftypqt  ", "a clip, which birefnet video reads"),
        (b"\x1aE\xdf\xa3\x9f", "a clip, which birefnet video reads"),
        (b"II*\0\x08\0\0\0\0\0", "TIFF or a camera's raw file"),
        (b"MM\0*\0\0\0\x08\0\0", "TIFF or a camera's raw file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not an image"),
        (b"no image", "not an image"),
    ],
)
def test_files_that_are_no_images_are_told_what_they_are(tmp_path, content, words):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=words):
        read_image_file(tmp_path / "a.png")


@pytest.mark.parametrize("apple", [True, False])
def test_the_png_of_an_iphone_app_is_told_from_a_damaged_one(tmp_path, apple):
    chunks = [png_chunk(b"CgBI", b"\x50\0\x20\x06")] * apple
    chunks += [png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 6, 0, 0, 0)), png_chunk(b"IDAT", bytes(9))]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b""))
    words = r"a\.png.*it holds Apple's own kind of PNG \(CgBI\).*on a Mac" if apple else "perhaps truncated"
    with pytest.raises(ImageError, match=words):
        read_image_file(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=words.split("it holds")[-1] if apple else "cannot be read"):
        read_mask(tmp_path / "a.png")


def test_other_things_than_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    for name, words in (("pipe.png", "pipe"), ("link.png", "no such file"), (".", "folder"), ("\0.png", "read")):
        with pytest.raises(ImageError, match=words):
            read_image_file(tmp_path / name)


@pytest.mark.parametrize("kind", [0, 2])
def test_images_beyond_pillow_s_limit_are_told_in_plain_words(tmp_path, kind):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 10000, 8, kind, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match=r"200 megapixels, and Pillow reads up to 179.*smaller"):
        read_image_file(tmp_path / "a.png")


def test_an_installed_reader_of_heic_is_used(monkeypatch):
    called = []
    module = types.SimpleNamespace(register_heif_opener=lambda: called.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    image_formats.image_formats.cache_clear()
    assert {"PNG", "JPEG", "TIFF"} <= set(image_formats.image_formats())
    assert called == [True]
    image_formats.image_formats.cache_clear()
