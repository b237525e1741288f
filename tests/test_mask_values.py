"""Ground truths of every scale, colour and orientation: the object is found, or the file is doubted."""

import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from birefnet_core.errors import DatasetError
from birefnet_core.mask_files import read_mask
from birefnet_core.mask_values import (
    ALPHA,
    ALPHA_MASK,
    BRIGHT,
    COLOURS,
    DOUBTS,
    FAINT,
    FLAT,
    FRAMES,
    IGNORED,
    LABELS,
    NO_BACKGROUND,
    ONE_COLOUR,
    PALETTE,
    PHOTO,
    RESCALED,
    TRIMAP,
    VALUES,
)
from birefnet_core.training.data.reading import read_cutout

Y, X = np.mgrid[:60, :80]
RADIUS = np.hypot(X - 40, Y - 30)
DISC = RADIUS < 20  # the object
RING = (RADIUS >= 20) & (RADIUS < 27)
SOFT = np.clip((24 - RADIUS) / 8, 0, 1)  # with an edge of eight pixels
PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def two(low, high, dtype):
    return np.where(DISC, high, low).astype(dtype)


def three(background, band, inner, dtype):
    return np.where(DISC, inner, np.where(RING, band, background)).astype(dtype)


def quarters(*values, dtype=np.uint8):
    """Values side by side, so that each touches others."""
    return np.array(values, dtype)[(X * len(values) // 80 + Y // 30) % len(values)]


def painted(colour, ground=(0, 0, 0)):
    return np.where(DISC[..., None], np.array(colour, np.uint8), np.array(ground, np.uint8)).astype(np.uint8)


def two_objects(background, one, other, dtype=np.uint8):
    """Values of a background, of the disc, and of a bar apart from it."""
    return np.where(DISC, one, np.where(X > 70, other, background)).astype(dtype)


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


# Binary masks: whatever the numbers, the disc is the object.
@pytest.mark.parametrize(
    ("ending", "array", "note"),
    [
        ("png", two(0, 255, np.uint8), None),
        ("png", two(0, 254, np.uint8), None),
        ("png", two(0, 1, np.uint8), LABELS),
        ("png", two(0, 2, np.uint8), VALUES),
        ("png", two(0, 7, np.uint8), VALUES),
        ("png", two(0, 100, np.uint8), VALUES),
        ("png", two(0, 128, np.uint8), VALUES),
        ("png", two(0, 1, np.uint16), LABELS),
        ("png", two(0, 2, np.uint16), VALUES),
        ("png", two(0, 255, np.uint16), RESCALED),
        ("png", two(0, 4095, np.uint16), VALUES),
        ("png", two(0, 65535, np.uint16), None),
        ("tif", two(0, 1, np.int32), LABELS),
        ("tif", two(0, 255, np.int32), RESCALED),
        ("tif", two(0, 65535, np.int32), None),
        ("tif", two(0, 2**31 - 1, np.int32), VALUES),
        ("tif", two(0, 1, np.float32), None),
        ("tif", two(0, 1 / 255, np.float32), VALUES),
        ("tif", two(0, 255, np.float32), RESCALED),
        ("tif", two(0, 65535, np.float32), RESCALED),
        ("png", painted((255, 255, 255)), None),
        ("png", painted((1, 1, 1)), LABELS),
        ("png", painted((255, 0, 0)), ONE_COLOUR),
        ("png", painted((0, 0, 255)), ONE_COLOUR),
        ("png", painted((128, 0, 128)), ONE_COLOUR),
        ("png", painted((1, 0, 0)), ONE_COLOUR),
        ("webp", painted((255, 0, 0)), ONE_COLOUR),
    ],
)
def test_binary_masks_of_every_scale_and_colour_show_the_object(tmp_path, ending, array, note):
    options = {"lossless": True} if ending == "webp" else {}
    mask = read_mask(save(tmp_path / f"a.{ending}", array, **options))
    assert np.array_equal(mask.values > 0.5, DISC)
    assert mask.values.min() == 0 and mask.values.max() >= 0.99
    assert note is None or note in mask.notes
    assert not mask.doubts


@pytest.mark.parametrize(
    ("ending", "array"),
    [
        ("png", SOFT * 255),
        ("png", (SOFT * 255).astype(np.uint16)),
        ("png", (SOFT * 1023).astype(np.uint16)),
        ("png", (SOFT * 4095).astype(np.uint16)),
        ("png", (SOFT * 65535).astype(np.uint16)),
        ("tif", (SOFT * 255).astype(np.int32)),
        ("tif", SOFT.astype(np.float32)),
        ("tif", (SOFT * 255).astype(np.float32)),
        ("tif", np.rint(SOFT * 255).astype(np.float32)),
        ("tif", (SOFT * 1.06 - 0.03).astype(np.float32)),
        ("png", SOFT[..., None] * (0, 255, 0)),
        ("jpg", SOFT[..., None] * (255, 0, 0)),
        ("jpg", SOFT[..., None] * (255, 255, 255)),
        ("webp", SOFT[..., None] * (0, 0, 255)),
    ],
)
def test_soft_masks_of_every_scale_and_colour_keep_their_edge(tmp_path, ending, array):
    array = array.astype(np.uint8) if array.dtype == np.float64 else array
    mask = read_mask(save(tmp_path / f"a.{ending}", array))
    lossy = 0.2 if ending in ("jpg", "webp") else 0.04
    assert np.abs(mask.values - SOFT).max() < lossy
    assert np.abs(mask.values - SOFT).mean() < lossy / 4
    assert not mask.doubts


@pytest.mark.parametrize(
    ("array", "note"),
    [
        (quarters(0, 1, 2), VALUES),
        (quarters(0, 1, 2, 3, 4), VALUES),
        (quarters(0, 1, 2, dtype=np.uint16), VALUES),
        (np.stack([quarters(0, 255), quarters(0, 0, 255), quarters(0, 9)], -1), COLOURS),
    ],
)
def test_several_labels_or_colours_are_one_object_with_a_note(tmp_path, array, note):
    mask = read_mask(save(tmp_path / "a.png", array))
    ground = array if array.ndim == 2 else array.max(axis=2)
    assert np.array_equal(mask.values > 0, ground > 0)
    assert mask.notes == (note,)
    assert mask.has_labels


@pytest.mark.parametrize(
    ("ending", "array", "doubt"),
    [
        ("png", three(0, 1, 2, np.uint8), TRIMAP),
        ("png", three(0, 128, 255, np.uint8), TRIMAP),
        ("png", three(0, 127, 254, np.uint8), TRIMAP),
        ("jpg", three(0, 128, 255, np.uint8), TRIMAP),
        ("png", three(0, 32768, 65535, np.uint16), TRIMAP),
        ("png", three(0, 2048, 4095, np.uint16), TRIMAP),
        ("tif", three(0, 0.5, 1, np.float32), TRIMAP),
        ("png", quarters(1, 2, 3), NO_BACKGROUND),  # trimaps of pets: object, background, border
        ("png", quarters(0, 1, 255), IGNORED),
        ("png", quarters(0, 1, 2, 255), IGNORED),
        ("png", (SOFT * 100).astype(np.uint8), FAINT),
        ("png", (SOFT * 100).astype(np.uint16), FAINT),
        ("png", (SOFT * 20000).astype(np.uint16), FAINT),
        ("tif", (SOFT * 0.4).astype(np.float32), FAINT),
        ("png", np.full((60, 80), 90, np.uint8), FAINT),
        ("png", two(200, 255, np.uint8), BRIGHT),
        ("png", two(255, 230, np.uint8), BRIGHT),
        ("png", two(255, 254, np.uint8), BRIGHT),  # of the labels 0 and 1, inverted
        ("jpg", two(200, 255, np.uint8), BRIGHT),
        ("png", (255 - SOFT * 100).astype(np.uint8), BRIGHT),
        ("png", (65535 - SOFT * 20000).astype(np.uint16), BRIGHT),
        ("tif", (1 - SOFT * 0.4).astype(np.float32), BRIGHT),
        ("tif", np.full((60, 80), 0.7, np.float32), BRIGHT),
        ("tif", two(-1, 1, np.int32), NO_BACKGROUND),
        ("png", quarters(0, 1, 254), IGNORED),
        ("png", quarters(0, 1, 65535, dtype=np.uint16), IGNORED),
        ("png", quarters(0, 1, 255, 65535, dtype=np.uint16), IGNORED),
        ("png", two_objects(0, 128, 255), FLAT),
        ("png", two_objects(0, 255, 85), FLAT),
        ("png", two_objects(0, 100, 150), FLAT),  # of up to 150 labels
        ("png", two_objects(0, 4, 150), IGNORED),
        ("png", two_objects(128, 255, 255), FLAT),
        ("png", quarters(0, 182, 36, 255, 109, 219, 73, 146), FLAT),
        ("png", two_objects(0, 32768, 65535, np.uint16), FLAT),
        ("png", two_objects(0, 512, 1023, np.uint16), FLAT),
        ("tif", two_objects(0, 0.5, 1, np.float32), FLAT),
        ("tif", two_objects(0, 0.3, 0.6, np.float32), FLAT),
        ("png", np.where(two_objects(0, 1, 2)[..., None] == 2, (224, 224, 192), painted((128, 0, 0))), IGNORED),
        ("png", painted((255, 0, 0), (0, 0, 255)), NO_BACKGROUND),
        ("png", painted((255, 0, 0), (255, 255, 255)), NO_BACKGROUND),
        ("png", PHOTOGRAPH, PHOTO),
        ("jpg", PHOTOGRAPH, PHOTO),
    ],
)
def test_what_may_mean_several_things_is_doubted(tmp_path, ending, array, doubt):
    mask = read_mask(save(tmp_path / f"a.{ending}", array.astype(np.uint8) if array.dtype == np.int64 else array))
    assert doubt in mask.doubts
    assert mask.found


@pytest.mark.parametrize("width", [1, 2])
def test_a_thin_edge_of_one_value_is_no_trimap(tmp_path, width):
    array = np.where(RADIUS < 20, 255, np.where(RADIUS - width < 20, 128, 0)).astype(np.uint8)
    assert not read_mask(save(tmp_path / "a.png", array)).doubts


@pytest.mark.parametrize("levels", [5, 7, 15])
@pytest.mark.parametrize("width", [3, 40])
@pytest.mark.parametrize("scale", [1, 4, 9])
def test_soft_edges_of_few_levels_are_no_areas_of_grey(tmp_path, levels, width, scale):
    soft = np.rint(np.clip((28 - RADIUS) / width, 0, 1) * levels) * (255 / levels)
    array = np.kron(soft.astype(np.uint8), np.ones((scale, scale), np.uint8))
    assert FLAT not in read_mask(save(tmp_path / "a.png", array)).doubts


@pytest.mark.parametrize("other", [(64, 0, 0), (0, 0, 255), (30, 30, 0)])
@pytest.mark.parametrize("side", [3, 20])
def test_an_object_of_another_colour_is_not_lost_however_small_or_alike(tmp_path, other, side):
    colours = painted((128, 0, 0))
    colours[:side, :side] = other
    mask = read_mask(save(tmp_path / "a.png", colours))
    alike = other == (64, 0, 0) and side == 3  # too small to be told from an edge
    assert alike or (np.array_equal(mask.values > 0.5, colours.any(-1)) and mask.notes == (COLOURS,))


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_an_object_of_another_colour_beside_a_soft_one_is_not_lost(tmp_path, ending):
    colours = (SOFT[..., None] * (255, 0, 0)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    colours[:12, :12] = (0, 0, 255)  # 0.2 % of the pixels
    assert PHOTO in read_mask(save(tmp_path / f"a.{ending}", colours, quality=90)).doubts


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 128, 0), (30, 60, 250)])
def test_one_colour_stays_one_colour_in_a_compressed_file(tmp_path, quality, colour):
    large = painted(colour).repeat(12, 0).repeat(12, 1)
    mask = read_mask(save(tmp_path / "a.jpg", large, quality=quality))
    assert mask.notes == (ONE_COLOUR,)
    assert np.mean((mask.values > 0.5) == large.any(-1)) > 0.98


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 7, -0.5, 1e9])
def test_floats_out_of_every_range_are_refused(tmp_path, value):
    array = SOFT.astype(np.float32)
    array[0, 0] = value
    path = save(tmp_path / "a.tif", array)
    for labels in (True, False):
        with pytest.raises(DatasetError, match=r"a\.tif has values from .*must be in \[0, 1\]"):
            read_mask(path, labels=labels)


@pytest.mark.parametrize("colours", ["photo", "white", "black", "grey photo", "same"])
@pytest.mark.parametrize("top", [255, 128, 1])
def test_the_alpha_channel_is_the_mask_of_a_cutout(tmp_path, colours, top):
    rgb = {
        "photo": PHOTOGRAPH, "white": np.full_like(PHOTOGRAPH, 255), "black": np.zeros_like(PHOTOGRAPH),
        "grey photo": PHOTOGRAPH[..., :1].repeat(3, -1), "same": painted((255, 255, 255)),
    }[colours]  # fmt: skip
    mask = read_mask(save(tmp_path / "a.png", np.dstack([rgb, two(0, top, np.uint8)])))
    assert np.array_equal(mask.values > 0.5, DISC)
    assert ALPHA_MASK in mask.notes
    assert not mask.doubts


@pytest.mark.parametrize("values", [(0, 128, 255), (0, 255, 100)])
def test_half_transparent_areas_of_an_alpha_channel_are_no_labels(tmp_path, values):
    alpha = two_objects(*values)
    path = save(tmp_path / "a.png", np.dstack([PHOTOGRAPH, alpha]))
    for mask in (read_mask(path), read_cutout(path)[1]):
        assert np.array_equal(mask.pixels, alpha) and not mask.doubts
    assert read_mask(save(tmp_path / "b.png", alpha)).doubts == (FLAT,)


def test_an_opaque_alpha_channel_says_nothing_and_another_mask_in_it_is_doubted(tmp_path):
    opaque = read_mask(save(tmp_path / "a.png", np.dstack([painted((255, 0, 0)), np.full((60, 80), 255, np.uint8)])))
    assert np.array_equal(opaque.values > 0.5, DISC)
    assert opaque.notes == (ONE_COLOUR,)
    left = np.where(X < 40, 255, 0).astype(np.uint8)
    other = read_mask(save(tmp_path / "b.png", np.dstack([painted((255, 255, 255)), left])))
    assert other.doubts == (ALPHA,)


@pytest.mark.parametrize("colours", [(0, 0, 0, 200, 0, 0), (200, 0, 0, 0, 0, 0), (10, 20, 30, 200, 0, 0)])
def test_black_is_the_background_of_a_palette_wherever_it_stands(tmp_path, colours):
    black_second = colours[3:] == (0, 0, 0)
    image = Image.fromarray(np.where(DISC ^ black_second, 1, 0).astype(np.uint8), "P")
    image.putpalette([*colours, *[7] * 750])
    image.save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png")
    assert np.array_equal(mask.values > 0.5, DISC)
    assert mask.notes == (PALETTE,)


@pytest.mark.parametrize("colours", [[0] * 768, [255] * 768, [7, 8, 9] * 256, [0, 0, 0]])
def test_labels_of_a_palette_without_different_colours_are_told_by_their_numbers(tmp_path, colours):
    image = Image.fromarray(DISC.astype(np.uint8), "P")
    image.putpalette(colours)
    image.save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png")
    assert np.array_equal(mask.values > 0.5, DISC)
    assert mask.notes == (PALETTE,)


@pytest.mark.parametrize(("border", "doubts"), [(255, (IGNORED,)), (3, ()), (15, ())])
def test_index_255_beside_small_ones_is_doubted_in_a_palette_as_in_grey(tmp_path, border, doubts):
    image = Image.fromarray(three(0, border, 15, np.uint8), "P")
    image.putpalette([0, 0, 0, *[200, 10, 40] * 255])
    image.save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").doubts == doubts


@pytest.mark.parametrize("bits", [1, 8, 16])
@pytest.mark.parametrize("labels", [True, False])
def test_files_in_which_0_is_white_are_not_inverted(tmp_path, bits, labels):
    dark = {1: np.packbits(~DISC, axis=1), 8: two(255, 0, np.uint8), 16: two(65535, 0, "<u2")}[bits].tobytes()
    tags = {256: 80, 257: 60, 258: bits, 259: 1, 262: 0, 273: 200, 277: 1, 278: 60, 279: len(dark)}
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    head += b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags.items())
    (tmp_path / "a.tif").write_bytes(head.ljust(200, b"\0") + dark)
    assert np.array_equal(read_mask(tmp_path / "a.tif", labels=labels).values > 0.5, DISC)


@pytest.mark.parametrize("top", [0, 1, 255, 4095, 65535])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_that_are_lost_in_reading_are_doubted(tmp_path, top, channels):
    pixels = two(0, top, np.uint16)[..., None].repeat(channels, -1)
    assert cv2.imwrite(str(tmp_path / "a.png"), pixels)
    mask = read_mask(tmp_path / "a.png")
    assert (FAINT in mask.doubts) == (top < 65535)
    assert top < 65535 or np.array_equal(mask.values > 0.5, DISC)


@pytest.mark.parametrize(
    ("ending", "others"),
    [("tif", [80]), ("tif", [40]), ("tif", [100]), ("tif", [40, 20]), ("tif", [40, 80]), ("gif", [80]), ("png", [80]),
     ("webp", [80])],
)  # fmt: skip
def test_only_the_first_of_several_masks_in_a_file_is_no_mask(tmp_path, ending, others):
    frames = [Image.fromarray(two(0, 255, np.uint8))]
    frames += [Image.fromarray(two(255, 0, np.uint8)).resize((width, 60)) for width in others]
    options = {"lossless": True} if ending == "webp" else {}
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:], **options)
    thumbnail = max(others) == 40
    assert read_mask(tmp_path / f"a.{ending}").doubts == (() if thumbnail else (FRAMES,))
    assert FRAMES not in read_mask(tmp_path / f"a.{ending}", labels=False).notes


@pytest.mark.parametrize("ending", ["tif", "png", "webp"])
def test_only_the_first_of_several_cutouts_in_a_file_is_no_mask(tmp_path, ending):
    frames = [Image.fromarray(np.dstack([PHOTOGRAPH, two(*values, np.uint8)])) for values in ((0, 255), (255, 0))]
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
    assert read_cutout(tmp_path / f"a.{ending}")[1].doubts == (FRAMES,)


def test_transparency_of_a_palette_is_an_alpha_channel(tmp_path):
    image = Image.fromarray(DISC.astype(np.uint8), "P")
    image.putpalette([200, 10, 10] * 2 + [0] * 750)
    image.save(tmp_path / "a.png", transparency=0)
    mask = read_mask(tmp_path / "a.png")
    assert np.array_equal(mask.values > 0.5, DISC)
    assert mask.notes == (ALPHA_MASK,)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_masks_are_turned_as_images_are(tmp_path, orientation, ending):
    from birefnet_core.images import read_image

    array = np.zeros((40, 60), np.uint8)
    array[:20, :20], array[:20, 20:40] = 255, 120
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(array).save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    expected = read_image(path).mean(-1).numpy()
    for labels in (True, False):
        assert np.abs(read_mask(path, labels=labels).values - expected).max() < 0.1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_keep_a_mask_from_being_read(tmp_path):
    for number, exif in enumerate((b"II*\0\xff\xff\xff\xff", b"nonsense", b"MM\0*\0\0\0\x08\xff\xff")):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(two(0, 255, np.uint8)).save(path, exif=b"Exif\0\0" + exif)
        assert np.array_equal(read_mask(path).values > 0.5, DISC)


def test_every_doubt_is_a_sentence_after_a_mask():
    assert all(doubt.split()[0] in ("like", "of", "without", "with") for doubt in DOUBTS)
