"""Files that Pillow reads in part or wrongly: copies, planes of 16 bits, transparent colours, unused alpha."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from birefnet_core.errors import DatasetError, ImageError
from birefnet_core.image_reading import read_image_file, read_pil_image
from birefnet_core.mask_files import read_mask

Y, X = np.mgrid[:24, :36]
COLOURS = np.stack([X * 7, Y * 10, (X + Y) * 4], axis=-1).astype(np.uint8)
SMALL_COPY = struct.pack("<HHII", 254, 4, 1, 1)  # TIFF's tag of its kind
INNER_FILES = struct.pack("<HHII", 330, 4, 1, 8)


def png(path, bits, kind, rows, transparent):
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 36, 24, bits, kind, 0, 0, 0)),
        (b"tRNS", transparent),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize(("bits", "hidden"), [(1, 0), (1, 1), (2, 1), (2, 3), (4, 6), (4, 15)])
def test_the_transparent_grey_of_few_bits(tmp_path, bits, hidden):
    top = 2**bits - 1
    values = np.where(X < 18, hidden, (X + Y) % (top + 1))
    places = (values[..., None] >> np.arange(bits)[::-1]) & 1
    rows = [np.packbits(row.ravel()).tobytes() for row in places.astype(np.uint8)]
    path = png(tmp_path / "a.png", bits, 0, rows, struct.pack(">H", hidden))
    with Image.open(path) as image:
        files = read_image_file(path), read_pil_image(image)
    for file in files:
        assert np.array_equal(file.alpha.numpy(), (values != hidden) * 1.0)
        assert np.allclose(file.colours[..., 0].numpy(), values / top)


@pytest.mark.parametrize("factor", [257, 16])
@pytest.mark.parametrize("opened", [False, True])
def test_the_transparent_one_of_16_bit_colours_hides_no_others(tmp_path, factor, opened):
    """Pillow compares the upper bytes alone, and so hid up to 255 others of each."""
    colours = COLOURS.astype(np.uint16) * factor
    colours[4:8, 4:8] = colours[20, 20]
    for channel in range(3):
        colours[9 + channel, 20] = colours[20, 20] ^ np.eye(3, dtype=np.uint16)[channel]
    rows = [row.astype(">u2").tobytes() for row in colours]
    path = png(tmp_path / "a.png", 16, 2, rows, struct.pack(">HHH", *map(int, colours[20, 20])))
    if opened:
        with Image.open(path) as image:
            file = read_pil_image(image)
    else:
        file = read_image_file(path)
    assert np.array_equal(file.alpha.numpy() == 0, (colours == colours[20, 20]).all(-1))
    assert set(file.alpha.unique().tolist()) == {0, 1}


def test_a_transparent_colour_that_no_pixel_has_hides_nothing(tmp_path):
    rows = [row.astype(">u2").tobytes() for row in COLOURS.astype(np.uint16) * 257]
    path = png(tmp_path / "a.png", 16, 2, rows, struct.pack(">HHH", *(int(v) * 257 ^ 1 for v in COLOURS[5, 5])))
    assert read_image_file(path).alpha is None


def test_what_is_read_of_an_opened_file_is_what_is_read_of_its_path(tmp_path):
    rows = [row.astype(">u2").tobytes() for row in COLOURS.astype(np.uint16) * 257]
    png(tmp_path / "colours.png", 16, 2, rows, struct.pack(">HHH", *COLOURS[5, 5].astype(int) * 257))
    Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257).save(tmp_path / "a.tif")
    data, black_is_zero = (tmp_path / "a.tif").read_bytes(), struct.pack("<HHII", 262, 3, 1, 1)
    assert black_is_zero in data
    (tmp_path / "white_is_zero.tif").write_bytes(data.replace(black_is_zero, black_is_zero[:8] + bytes(4)))
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            opened, expected = read_pil_image(image), read_image_file(path)
        assert np.array_equal(opened.colours.numpy(), expected.colours.numpy()), path.name
        assert (opened.alpha is None) == (expected.alpha is None) == (path.suffix == ".tif"), path.name


@pytest.mark.parametrize("order", ["<", ">"])
def test_uncompressed_planes_of_16_bits_are_read(tmp_path, order):
    planes = (COLOURS.astype(np.uint16) * 257).astype(order + "u2").transpose(2, 0, 1).tobytes()
    size, start = len(planes) // 3, 200
    tags = {256: [36], 257: [24], 258: [16] * 3, 259: [1], 262: [2], 273: [start + n * size for n in range(3)]}
    tags |= {277: [3], 278: [24], 279: [size] * 3, 284: [2]}
    table, more = b"", b""
    for tag, values in tags.items():
        data = b"".join(struct.pack(order + "I", value) for value in values)
        place = struct.pack(order + "I", 8 + 2 + 12 * len(tags) + 4 + len(more))
        more += data if len(values) > 1 else b""
        table += struct.pack(order + "HHI", tag, 4, len(values)) + (place if len(values) > 1 else data)
    head = struct.pack(order + "2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(tags)) + table + bytes(4) + more
    (tmp_path / "a.tif").write_bytes(head.ljust(start, b"\0") + planes)
    file = read_image_file(tmp_path / "a.tif")
    assert np.abs(file.colours.numpy() - COLOURS / np.float32(255)).max() < 1 / 255


def test_grey_times_alpha_is_read(tmp_path):
    alpha = np.full((24, 36), 128, np.uint8)
    Image.fromarray(np.dstack([COLOURS[..., 0] // 2, alpha])).save(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    straight, multiplied = (struct.pack("<HHIHH", 338, 3, 1, kind, 0) for kind in (2, 1))
    assert straight in data
    (tmp_path / "a.tif").write_bytes(data.replace(straight, multiplied))
    file = read_image_file(tmp_path / "a.tif")
    assert np.abs(file.colours[..., 0].numpy() - COLOURS[..., 0] / 255).max() < 0.02
    assert np.allclose(file.alpha, 128 / 255)


@pytest.fixture
def with_copies(tmp_path):
    """Writes a TIFF that begins with a small copy; the kind of its second page may be changed."""

    def write(second=bytes(4), pages=2):
        whole = Image.fromarray(COLOURS)
        images = [whole.resize((9, 6)), whole][:pages]
        path = tmp_path / "a.tif"
        images[0].save(path, save_all=True, append_images=images[1:], tiffinfo={254: 1})
        first, *others = path.read_bytes().split(SMALL_COPY)
        path.write_bytes(first + SMALL_COPY + (SMALL_COPY[:-4] + second).join(others))
        return path

    return write


def test_the_small_copy_at_the_beginning_of_a_tiff_is_not_the_image(with_copies):
    path = with_copies()
    assert np.array_equal(read_image_file(path).colours.numpy(), COLOURS / np.float32(255))
    assert read_mask(path).pixels.shape == (24, 36)


def test_an_image_that_calls_itself_a_copy_is_read(with_copies):
    assert read_image_file(with_copies(pages=1)).colours.shape == (6, 9, 3)


def test_the_preview_of_a_raw_file_is_not_taken_for_its_image(with_copies):
    path = with_copies(pages=1)
    data = path.read_bytes()
    at = data.index(SMALL_COPY)
    last = at + 12 * (struct.unpack("<H", data[at - 2 : at])[0] - 1)  # a tag of no account
    path.write_bytes(data[:last] + INNER_FILES + data[last + 12 :])
    with pytest.raises(ImageError, match=r"a\.tif: only a small copy of 9 x 6 pixels .* convert"):
        read_image_file(path)
    with pytest.raises(DatasetError, match="only a small copy"):
        read_mask(path)


def save_bmp(path, image):
    """With a mask of its alpha, as Windows' clipboard writes; Pillow writes none."""
    data, masks = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA"), (16, 8, 0, 24)
    head = struct.pack("<IiiHHII16x", 108, *image.size, 1, 32, 3, len(data))
    head += b"".join(struct.pack("<I", 255 << shift) for shift in masks) + b"BGRs" + bytes(48)
    path.write_bytes(b"BM" + struct.pack("<IxxxxI", 14 + len(head) + len(data), 14 + len(head)) + head + data)


@pytest.mark.parametrize("alpha", ["none of it", "one pixel", "all", "half"])
@pytest.mark.parametrize(
    ("ending", "spare"), [("bmp", True), ("tga", True), ("dds", True), ("png", False), ("tif", False), ("webp", False)]
)
def test_alpha_that_is_0_everywhere_is_left_out_where_it_is_often_not_meant(tmp_path, ending, spare, alpha):
    values = {"none of it": X * 0, "one pixel": (X == 5) & (Y == 5), "all": X * 0 + 1, "half": X > 18}[alpha]
    image = Image.fromarray(np.dstack([COLOURS, values.astype(np.uint8) * 255]))
    path = tmp_path / f"a.{ending}"
    if ending == "bmp":
        save_bmp(path, image)
    else:
        image.save(path, **({"lossless": True, "exact": True} if ending == "webp" else {}))
    with Image.open(path) as opened:
        files = read_image_file(path), read_pil_image(opened)
    for file in files:
        assert np.array_equal(file.colours.numpy(), COLOURS / np.float32(255))
        if alpha == "all" or (alpha == "none of it" and spare):
            assert file.alpha is None
        else:
            assert np.array_equal(file.alpha.numpy(), values)
        notes = {True: "its alpha is 0 everywhere", False: "it is transparent everywhere"}
        assert len(file.notes) == (alpha == "none of it")
        assert all(note.startswith(notes[spare]) for note in file.notes)
