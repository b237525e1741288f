"""What Pillow reads wrongly or in part: turned TIFFs without compression, 16-bit colours, profiles of deep grey."""

import struct
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from birefnet_core.errors import DatasetError, ImageError
from birefnet_core.image_reading import read_image_file, read_pil_image
from birefnet_core.images import to_bytes
from birefnet_core.mask_files import read_mask
from birefnet_core.pillow_files import upright

Y, X = np.mgrid[:24, :36]
COLOURS = np.stack([X * 7, Y * 10, (X + Y) * 4], axis=-1).astype(np.uint8)
GREY = (X * 7).astype(np.uint8)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def read(path):
    return read_image_file(path).colours.numpy()


def save(path, array, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)
    return path


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_tiffs_are_turned_whether_they_are_compressed_or_not(tmp_path, mode, orientation):
    """Pillow maps some uncompressed files into memory, with the sides exchanged too early."""
    image = Image.fromarray(GREY if mode in ("I;16", "I", "F") else COLOURS).convert(mode)
    stored = read(save(tmp_path / "upright.tif", image))
    tags = {"tiffinfo": {0x112: orientation}}
    flat = save(tmp_path / "flat.tif", image, **tags)
    packed = save(tmp_path / "packed.tif", image, compression="tiff_adobe_deflate", **tags)
    assert np.array_equal(read(flat), read(packed))
    assert np.array_equal(read(flat), upright(stored, orientation))
    with Image.open(flat) as lazy:
        assert np.array_equal(read_pil_image(lazy).colours.numpy(), read(flat))
        assert lazy.filename == str(flat)


@pytest.mark.parametrize(("bits", "factor"), [(8, 1), (10, 4), (12, 16)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bit_colours_that_use_fewer_bits_keep_their_brightness(tmp_path, bits, factor, orientation):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOURS.astype(np.uint16) * factor)
    exif = Image.Exif()
    exif[0x112] = orientation
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 36, 24, 16, 2, 0, 0, 0)), (b"eXIf", exif.tobytes()[6:]),
        (b"IDAT", zlib.compress(rows)), (b"IEND", b""),
    ]  # fmt: skip
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
    file = read_image_file(tmp_path / "a.png")
    expected = upright(COLOURS * np.float32(factor) / np.float32(2**bits - 1), orientation)
    assert np.abs(file.colours.numpy() - expected).max() < 1e-5
    assert file.notes == (f"its values reach {int(COLOURS.max()) * factor} of 65535, so they are read as {bits} bits",)


ALPHA = np.where(X < 12, 0, np.where(X < 24, 120, 255)).astype(np.uint8)


def save_deep_rgba(path, colours, alpha):
    rows = np.concatenate([colours, alpha[..., None]], axis=-1).astype(">u2")
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = struct.pack(">IIBBBBB", 36, 24, 16, 6, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", data), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
    return path


@pytest.mark.parametrize(("bits", "step"), [(10, 1 / 3), (12, 1 / 15)])
@pytest.mark.parametrize("opaque", [False, True])
def test_alpha_of_as_few_bits_as_the_colours_hides_no_more(tmp_path, bits, step, opaque):
    """Read as of 16 bits it was nearly transparent everywhere, and so was the mask."""
    top, values = 2**bits - 1, np.full_like(ALPHA, 255) if opaque else ALPHA
    file = read_image_file(save_deep_rgba(tmp_path / "a.png", *(np.rint(v / 255.0 * top) for v in (COLOURS, values))))
    assert np.abs(file.colours.numpy() - COLOURS / 255).max() <= step
    if opaque:
        assert file.alpha is None
    else:
        assert np.abs(file.alpha.numpy() - ALPHA / 255).max() <= step
        assert (file.alpha.min(), file.alpha.max()) == (0, 1)
    assert "12 bits or less" in file.notes[0]


@pytest.mark.parametrize(("colours", "factor"), [(COLOURS, 257), (COLOURS, 16)])
def test_alpha_of_full_depth_stays(tmp_path, colours, factor):
    file = read_image_file(save_deep_rgba(tmp_path / "a.png", colours.astype(int) * factor, ALPHA.astype(int) * 257))
    assert np.abs(file.alpha.numpy() - ALPHA / 255).max() < 1e-6
    assert np.abs(file.colours.numpy() - COLOURS / 255).max() <= 1 / 15


def test_faint_alpha_over_black_stays_faint(tmp_path):
    """A shadow: its colours say nothing of the depth."""
    file = read_image_file(save_deep_rgba(tmp_path / "a.png", COLOURS * 0, (ALPHA > 0) * 15 * 257))
    assert float(file.alpha.max()) == pytest.approx(15 / 255)
    assert file.notes == ()


def grey_profile(gamma):
    """A colour profile of grey whose tone curve is a power."""
    white = b"".join(struct.pack(">i", round(value * 65536)) for value in (0.9642, 1, 0.8249))
    description = b"desc" + bytes(4) + struct.pack(">I", 5) + b"grey\0" + bytes(79)
    curve = b"curv" + bytes(4) + struct.pack(">IHxx", 1, round(gamma * 256))
    tags = [(b"desc", description), (b"wtpt", b"XYZ " + bytes(4) + white), (b"kTRC", curve)]
    start, table, data = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags:
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content
    head = struct.pack(">I4sI4s4s4s", start + len(data), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    return (head + bytes(12) + b"acsp" + bytes(28) + white).ljust(128, b"\0") + table + data


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_of_every_depth_is_brought_to_srgb(tmp_path, gamma, ending):
    icc = {"icc_profile": grey_profile(gamma)}
    plain = read(save(tmp_path / f"plain.{ending}", GREY, **icc))
    deep = read(save(tmp_path / f"deep.{ending}", GREY.astype(np.uint16) * 257, **icc))
    assert np.abs(deep - plain).max() < 1e-3
    assert (np.abs(plain[..., 0] - GREY / np.float32(255)).max() > 0.1) == (gamma == 1.0)
    if ending == "tif":
        floats = read(save(tmp_path / "floats.tif", GREY / np.float32(255), **icc))
        assert np.abs(floats - plain).max() < 1e-3
    damaged = save(tmp_path / f"damaged.{ending}", GREY.astype(np.uint16) * 257, icc_profile=icc["icc_profile"][:140])
    assert np.allclose(read(damaged)[..., 0], GREY / np.float32(255))


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1023, 10), (4095, 12), (32767, 15)])
def test_signed_numbers_of_16_bits_have_one_bit_less(tmp_path, top, bits):
    values = np.rint(GREY / GREY.max() * top).astype(np.uint16)
    file = read_image_file(save(tmp_path / "a.tif", values, tiffinfo={339: 2}))
    assert np.allclose(file.colours[..., 0].numpy(), values / top, atol=1e-6)
    assert file.notes == ((f"its values reach {top} of 32767, so they are read as {bits} bits",) if bits < 15 else ())
    unsigned = read_image_file(save(tmp_path / "b.tif", values)).colours[..., 0].numpy()
    assert np.allclose(unsigned, values / (top if bits < 15 else 65535), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_below_0_are_refused(tmp_path, dtype):
    pixels = np.where(X == 3, np.iinfo(dtype).max, X).astype(dtype)
    path = save(tmp_path / "a.tif", pixels, tiffinfo={339: 2})
    with pytest.raises(ImageError, match=r"whole numbers from -1 to .*without a sign"):
        read_image_file(path)


def test_signed_bytes_of_which_none_is_negative_are_read_as_others(tmp_path):
    values = GREY // 2
    signed = read_image_file(save(tmp_path / "a.tif", values, tiffinfo={339: 2}))
    assert np.array_equal(signed.colours.numpy(), read(save(tmp_path / "b.tif", values)))
    assert not signed.notes


def save_psd(path, pixels, header, resources=()):
    """Writes a Photoshop file without layers.

    Args:
        path: The file.
        pixels: How they are packed, and the channels.
        header: Channels, height, width, bits, kind of colours.
        resources: Numbers and contents of even length.
    """
    packed = b"".join(b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data for number, data in resources)
    parts = struct.pack(">I", 0), struct.pack(">I", len(packed)) + packed, struct.pack(">I", 0)
    path.write_bytes(b"8BPS" + struct.pack(">H6xHIIHH", 1, *header) + b"".join(parts) + pixels)
    return path


PSD_COLOURS = np.random.default_rng(0).integers(0, 256, (3, 8, 10), dtype=np.uint8)
PSD_FOURTH = np.repeat(np.uint8([0, 255]), 40).reshape(8, 10)


def rgb_psd(path, resources=(), channels=4, kind=3):
    planes = np.concatenate([PSD_COLOURS, *[PSD_FOURTH[None]] * (channels - 3)])
    return save_psd(path, b"\0\0" + planes.tobytes(), (channels, 8, 10, 8, kind), resources)


@pytest.mark.parametrize(("alphas", "is_alpha"), [(None, True), ((0,), True), ((1,), False), ((7,), False)])
def test_selections_saved_in_photoshop_are_no_transparency(tmp_path, alphas, is_alpha):
    resources = () if alphas is None else [(1053, struct.pack(f">{len(alphas)}I", *alphas))]
    file = read_image_file(rgb_psd(tmp_path / "a.psd", resources))
    assert np.array_equal(to_bytes(file.colours), PSD_COLOURS.transpose(1, 2, 0))
    if is_alpha:
        assert np.array_equal(to_bytes(file.alpha), PSD_FOURTH) and not file.notes
    else:
        assert file.alpha is None and "selection" in file.notes[0]


@pytest.mark.parametrize(("channels", "kind"), [(5, 3), (5, 4)])
def test_transparency_that_is_not_read_is_noted(tmp_path, channels, kind):
    """With a selection beside it, or colours for print."""
    path = rgb_psd(tmp_path / "a.psd", [(1053, struct.pack(">II", 0, 1))], channels, kind)
    assert "its transparency is not read" in read_image_file(path).notes[0]


def test_a_photoshop_file_of_layers_alone_is_refused(tmp_path):
    for whole in (0, 1):
        path = rgb_psd(tmp_path / "a.psd", [(1057, struct.pack(">IBIII", 1, whole, 0, 0, 1) + b"\0")], 3)
        if whole:
            assert np.array_equal(to_bytes(read_image_file(path).colours), PSD_COLOURS.transpose(1, 2, 0))
            continue
        with pytest.raises(ImageError, match=r"a\.psd: a Photoshop file of layers alone.*Maximize Compatibility"):
            read_image_file(path)
        with pytest.raises(DatasetError, match="Maximize Compatibility"):
            read_mask(path)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("deep.psd", (22, 16), "a Photoshop file of 16 bits, of which Pillow reads those of 8"),
        ("large.psb", (4, 2), "large kind"),
        ("odd.psd", (24, 99), "a Photoshop file, damaged or of a kind"),
    ],
)
def test_photoshop_files_that_are_not_read_are_told(tmp_path, name, change, reason):
    path = rgb_psd(tmp_path / name)
    data = bytearray(path.read_bytes())
    data[change[0] : change[0] + 2] = struct.pack(">H", change[1])
    path.write_bytes(data)
    with pytest.raises(ImageError, match=reason):
        read_image_file(path)
    with pytest.raises(DatasetError, match=reason):
        read_mask(path)


@pytest.mark.parametrize("packed", [False, True])
def test_bitmaps_of_photoshop_have_black_ones(tmp_path, packed):
    """As FFmpeg reads them, too."""
    black = np.zeros((8, 19), bool)
    black[2:6, 4:12] = True
    rows = [row.tobytes() for row in np.packbits(black, axis=1)]
    if packed:  # runs of literal bytes
        rows = [bytes([len(row) - 1]) + row for row in rows]
        rows.insert(0, b"".join(struct.pack(">H", len(row)) for row in rows))
    path = save_psd(tmp_path / "a.psd", struct.pack(">H", packed) + b"".join(rows), (1, *black.shape, 1, 0))
    assert np.array_equal(read(path)[..., 0], ~black)
    assert np.array_equal(read_mask(path).pixels, ~black * np.uint8(255))
    with Image.open(path) as image:
        assert np.array_equal(read_pil_image(image).colours[..., 0].numpy(), ~black)
    with av.open(path) as container:
        frame = next(container.decode(video=0)).reformat(format="gray").to_ndarray()
    assert np.array_equal(frame, ~black * np.uint8(255))
