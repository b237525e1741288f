"""What the values of a ground truth mean: which of them are the object, and which files hold no mask at all.

Masks are written at many scales: 0 and 255, labels such as 0, 1, 2, bytes in files of 16 bits, floats from 0 to 255,
one colour on black. Each is brought to the range of its type; a note says what was done. An ambiguous mask
is left unchanged, and its note is one of ``DOUBTS``.

Shapes: H W pixels.
"""

from __future__ import annotations

import numpy as np

COLOUR = "in colour, converted to grey"
ONE_COLOUR = "in one colour on black, which is taken as the object"
COLOURS = "in several colours, all but black of which are taken as the object"
PALETTE = "with a palette of colours, all but black (or the first) of which are taken as the object"
ALPHA = "with an alpha channel, which was ignored (is the mask in there?)"
ALPHA_MASK = "with an alpha channel, which is taken as the mask"
LABELS = "of the labels 0 and 1, read as 0 and 255"
VALUES = "of labels, all but 0 of which are taken as the object"
RESCALED = "of another scale than its type has, brought to 0 ... 1"

TRIMAP = "like a trimap: a band of one value lies between object and background, and what it means is not known"
FAINT = "of values that do not reach half of their range: their scale is not known"
BRIGHT = "of values in the upper half of their range alone: which of them is the background is not known"
NO_BACKGROUND = "without 0 (black) among its labels or colours: which of them is the background is not known"
IGNORED = "of small labels and a far greater value, often 'ignore': which of them is the object is not known"
FLAT = "with areas of flat grey, labels or half transparent: which of them is the object is not known"
LOSSY = "of labels in a JPEG, whose compression changes them: which pixels are the object is not known"
FRAMES = "of several frames or pages, of which only the first was read"
PHOTO = "of many colours, as a photo; read as grey"

LABEL_NOTES = frozenset({LABELS, VALUES, PALETTE, COLOURS})
# A training stops on these; an evaluation scores the pixels as they are and warns.
DOUBTS = frozenset({TRIMAP, FAINT, BRIGHT, NO_BACKGROUND, IGNORED, FLAT, LOSSY, FRAMES, PHOTO, ALPHA})

Read = tuple[np.ndarray, str, tuple[str, ...]]  # pixels, the values in the file in words, notes

# libpng's integer weights (of 2**15) of red, green and blue, with which OpenCV, and so every published evaluation,
# reads a colour file as grey.
_RED, _GREEN, _BLUE = 9797, 19234, 3737

_MOST_LABELS = 32  # distinct values of a file of labels
_GREATEST_LABEL = 63
_LEVELS = 8  # fewer labels without a gap may well lie in the order of their numbers
_DEPTHS = (1023, 4095, 16383)  # greatest values of 10, 12 and 14 bits, stored in 16
_OVERSHOOT = 0.05  # of floats that were resized with a kernel that overshoots
_SAME_COLOUR = 24  # greatest distance of two colours that compression may cause
_SAMPLE = 1 << 16  # pixels that are tried before all are
_VOID = 0xE0E0C0  # colour of the pixels of Pascal VOC that are to be ignored
_JUMP = 0.25  # fraction of the range between neighbours that soft edges of a few levels do not reach
_NOISE = 0.05  # fraction of the range that compression makes of one value
_FULL = 0.9  # fraction of the range from which on a single value beside 0 is white


def grey(pixels: np.ndarray) -> np.ndarray:
    """Colours H, W, 3 or more -> bytes, as OpenCV's reader converts them."""
    red, green, blue = (pixels[:, :, band].astype(np.int32) for band in range(3))
    return ((red * _RED + green * _GREEN + blue * _BLUE) >> 15).astype(np.uint8)


def read_integers(pixels: np.ndarray) -> Read:
    """Whole numbers of any type -> uint8, or uint16 where they are greater than bytes."""
    low, high, bits = int(pixels.min()), int(pixels.max()), 8 * pixels.itemsize
    deep = pixels.dtype != np.uint8
    values = _few_values(pixels)
    found = _in_words([*values] if values is not None else [low, high], whole=values is not None)
    found += f" in {bits} bits" if deep else ""
    full = 255 if high <= 255 else 65535
    scaled = pixels.clip(0, min(full, np.iinfo(pixels.dtype).max)).astype(np.uint8 if full == 255 else np.uint16)
    if low < 0:
        return scaled, found, (NO_BACKGROUND if values is not None else FAINT,)
    if values is not None and len(values) <= 2 and low in (0, high):
        if high == 0 or (_FULL * full <= high <= full):
            return scaled, found, (RESCALED,) if deep and full == 255 and high else ()
        if low == 0 or high == 1:  # labels of one object; a file of 1 alone is full
            return (pixels > 0).astype(np.uint8) * np.uint8(255), found, (LABELS if high == 1 else VALUES,)
        return scaled, found, (FAINT,)
    if values is not None and high <= _GREATEST_LABEL:
        if low > 0:
            return scaled, found, (NO_BACKGROUND,)
        if len(values) == 3 and _touch(pixels == values[0], pixels == values[2]) == 0:
            return scaled, found, (TRIMAP,)
        if len(values) == high + 1 >= _LEVELS and _are_steps(pixels):
            return scaled, found, (FAINT,)
        return (pixels > 0).astype(np.uint8) * np.uint8(255), found, (VALUES,)
    if high in _DEPTHS:
        exact = ((pixels.astype(np.uint32) * 65535 + high // 2) // high).astype(np.uint16)
        doubt = _doubt_of_levels(exact, 65535)
        return exact, found, (RESCALED, doubt) if doubt else (RESCALED,)
    if high <= full // 2 or high > full:
        return scaled, found, (FAINT,)
    if values is not None and _has_ignored_labels(scaled, values):
        return scaled, found, (IGNORED,)
    if doubt := _doubt_of_levels(scaled, full):
        return scaled, found, (doubt,)
    if full // 2 < low < (full if values is not None and len(values) == 2 else _FULL * full):
        return scaled, found, (BRIGHT,)  # 254 and 255 are inverted labels, more values near white a full mask
    return scaled, found, (RESCALED,) if deep and full == 255 else ()


def read_floats(pixels: np.ndarray) -> Read | None:
    """Finite floats -> float32 in [0, 1], or whole numbers; None for a range that no mask has."""
    low, high = float(pixels.min()), float(pixels.max())
    whole = 127 < high <= 65535 and low >= 0 and bool((pixels == np.rint(pixels)).all())
    if whole:
        scaled, found, others = read_integers(pixels.astype(np.uint8 if high <= 255 else np.uint16))
        return scaled, found.split(" in ")[0] + " as floats", tuple(dict.fromkeys((*others, RESCALED)))
    found = _in_words([low, high], whole=False) + " as floats"
    notes: tuple[str, ...] = ()
    if 127 < high <= 255 * (1 + _OVERSHOOT) and low >= -255 * _OVERSHOOT:
        pixels, high, notes = pixels / np.float32(255), high / 255, (RESCALED,)
    elif not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
        return None
    pixels = pixels.clip(0, 1).astype(np.float32)
    if 0 < high < _FULL and bool(((pixels == 0) | (pixels == high)).all()) and low <= 0:
        return (pixels > 0).astype(np.float32), found, (VALUES,)
    if 0 < high < 0.5:
        notes = (*notes, FAINT)
    elif doubt := _doubt_of_levels(np.rint(pixels * 255).astype(np.uint8), 255):
        notes = (*notes, doubt)
    elif 0.5 < pixels.min() < _FULL:
        notes = (*notes, BRIGHT)
    return pixels, found, notes


def read_palette(indices: np.ndarray) -> Read:
    """Indices of a palette of colours, the background's 0."""
    values = np.unique(indices)
    notes: tuple[str, ...] = (PALETTE,) if values[0] == 0 else (PALETTE, NO_BACKGROUND)
    if len(values) > 2 and values[-1] == 255 and values[-2] <= _GREATEST_LABEL:
        notes = (*notes, IGNORED)
    return (indices > 0).astype(np.uint8) * np.uint8(255), "a palette", notes


def read_colours(pixels: np.ndarray) -> Read:
    """Bytes H, W, 3: grey in three channels, one colour or several on black, or a photo."""
    greatest, least = pixels.max(axis=2), pixels.min(axis=2)
    spread, top = int((greatest - least).max()), int(greatest.max())
    if spread == 0 or (spread <= _SAME_COLOUR and top >= 128):
        scaled, found, notes = read_integers(grey(pixels))
        return scaled, found, (COLOUR, *notes)
    few = _few_colours(pixels)
    one = _one_colour(pixels, greatest, top, exact=few is not None)
    if one is not None and (_few_values(one) is None or not _is_flat(one, 255)):
        return one, "one colour on black", (ONE_COLOUR,)
    if few is None:
        return grey(pixels), "many colours", (PHOTO,)
    codes, distinct = few
    if distinct[0] != 0:
        return grey(pixels), f"{len(distinct)} colours without black", (NO_BACKGROUND,)
    notes = (COLOURS, IGNORED) if _VOID in distinct else (COLOURS,)
    return (codes != 0).astype(np.uint8) * np.uint8(255), f"black and {len(distinct) - 1} colours", notes


def are_changed_labels(pixels: np.ndarray) -> bool:
    """Whether grey levels of a JPEG are labels: its noise makes others of them, at edges as far as its blocks reach."""
    return 0 < pixels.max() <= _GREATEST_LABEL and len(np.unique(pixels)) > 2


def read_transparency(alpha: np.ndarray) -> Read:
    """An alpha channel, in which areas of one value are no labels, but half transparent."""
    scaled, found, notes = read_integers(alpha)
    return scaled, found, tuple(note for note in notes if note not in (FLAT, BRIGHT))


def read_alpha(colours: Read, alpha: np.ndarray, *, flat: bool) -> Read:
    """The mask of a file with an alpha channel: in the channel, unless the colours are another mask.

    Args:
        colours: As ``read_colours`` or ``read_integers`` read them.
        alpha: The channel, H, W bytes.
        flat: Whether the colours are the same everywhere.
    """
    if alpha.min() >= 250 or alpha.min() == alpha.max():  # opaque: says nothing
        return colours
    scaled, found, notes = read_transparency(alpha)
    pixels = colours[0]
    half = (255 if pixels.dtype == np.uint8 else 65535) / 2
    decided = np.abs(pixels.astype(np.float32) - half).mean() > 0.7 * half  # a mask is black or white nearly everywhere
    agree = ((pixels > half) == (scaled > scaled.max() / 2)).mean() > 0.98
    if flat or agree or not decided or not DOUBTS.isdisjoint(colours[2]):
        return scaled, f"{found} in the alpha channel", (*notes, ALPHA_MASK)
    return pixels, colours[1], (*colours[2], ALPHA)


def _one_colour(pixels: np.ndarray, greatest: np.ndarray, top: int, *, exact: bool) -> np.ndarray | None:
    """How much of the brightest colour each pixel has, in bytes, where all lie between black and it; else None.

    Where the colours are not exact, because of compression, single pixels at edges may have others.
    """
    tolerance = min(_SAME_COLOUR, top / 4)
    if greatest.min() > tolerance:
        return None
    colour = pixels[greatest >= max(1, top // 2)].mean(axis=0, dtype=np.float64).astype(np.float32)
    colour *= top / colour.max()

    def measure(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        amount = (rows @ colour) / (colour @ colour)
        distance = np.abs(rows - amount[..., None] * colour).max(axis=-1)
        return np.rint(amount.clip(0, 1) * 255).astype(np.uint8), distance > tolerance

    step = max(1, int((greatest.size / _SAMPLE) ** 0.5))
    if measure(pixels[::step, ::step])[1].mean() > 0.01:
        return None
    rows = max(1, 16 * _SAMPLE // greatest.shape[1])  # at a time, for their floats take sixteen times their bytes
    parts = [measure(pixels[first : first + rows]) for first in range(0, len(pixels), rows)]
    others = np.concatenate([other for _, other in parts])
    if others.any() if exact else others.mean() > 0.005 or _thick(_thick(others)).any():
        return None
    return np.concatenate([part for part, _ in parts])


def _few_colours(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Colours H, W, 3 as one number each, and the distinct ones; None where there are more than labels would have."""
    step = max(1, int((pixels.size / _SAMPLE) ** 0.5))
    if _few_values(_codes(pixels[::step, ::step])) is None:
        return None
    codes = _codes(pixels)
    distinct = _few_values(codes)
    return None if distinct is None else (codes, distinct)


def _codes(pixels: np.ndarray) -> np.ndarray:
    codes = pixels[..., 0].astype(np.int32)
    for band in (1, 2):
        codes <<= 8
        codes |= pixels[..., band]
    return codes


def _few_values(pixels: np.ndarray) -> np.ndarray | None:
    """The distinct values, sorted; None where there are more than labels would be."""
    flat = pixels.ravel()
    if len(np.unique(flat[:: max(1, flat.size // 4096)])) > _MOST_LABELS:  # most soft masks end here
        return None
    if flat.min() >= 0 and flat.max() <= 0xFFFF:
        counts = np.zeros(0x10000, np.int64)
        for first in range(0, flat.size, 16 * _SAMPLE):  # numpy counts in eight bytes a pixel
            counts += np.bincount(flat[first : first + 16 * _SAMPLE], minlength=0x10000)
        values = np.flatnonzero(counts)
    else:
        values = np.unique(flat)
    return values if len(values) <= _MOST_LABELS else None


def _has_ignored_labels(pixels: np.ndarray, values: np.ndarray) -> bool:
    """Whether all values but the greatest are small, and the small ones are no noise."""
    small = values[-2] <= (_GREATEST_LABEL if values[-1] <= 255 else 255)
    return bool(small) and float(((pixels > 0) & (pixels < values[-1])).mean()) >= 0.01


def _doubt_of_levels(pixels: np.ndarray, full: int) -> str | None:
    """What keeps grey levels, black to white, from being taken for a mask's."""
    if _is_trimap(pixels, full):
        return TRIMAP
    is_flat = _is_nearly_flat if _few_values(pixels) is None else _is_flat
    return FLAT if is_flat(pixels, full) else None


def _is_flat(pixels: np.ndarray, full: int) -> bool:
    """Whether areas of one grey begin with a jump, as labels do. Of few values alone."""
    if min(pixels.shape) < 3:
        return False
    step = max(1, min(pixels.shape) // 96)  # so that enlarged pixels of an edge are no areas
    pixels = pixels[::step, ::step].astype(np.int32)
    grey, solid = _is_grey(pixels, full), _solid(pixels, 0)
    return float((solid & grey).mean()) >= 0.005 and _jumps(pixels, solid, grey, full, apart=1)


def _is_nearly_flat(pixels: np.ndarray, full: int) -> bool:
    """The same of many values: of as many labels, or of few that are compressed or have soft edges.

    Most of the grey is in such areas; that of a matte is at edges, or of all levels.
    """
    step = max(1, min(pixels.shape) // 96, _enlarged(pixels))
    pixels = pixels[::step, ::step].astype(np.int32)
    if min(pixels.shape) < 3:
        return False
    grey, solid = _is_grey(pixels, full), _solid(pixels, 0)
    if not _is_most(solid, grey):
        solid = _solid(pixels, _NOISE * full)
        if not _is_most(solid, grey) or not _is_near_three_levels(pixels[solid & grey], full):
            return False
    return float((solid & grey).mean()) >= 0.01 and _jumps(pixels, solid, grey, full, apart=4)


def _is_grey(pixels: np.ndarray, full: int) -> np.ndarray:
    return (pixels > (1 - _FULL) * full) & (pixels < _FULL * full)


def _is_most(part: np.ndarray, whole: np.ndarray) -> bool:
    return bool(2 * np.count_nonzero(part & whole) > np.count_nonzero(whole))


def _enlarged(pixels: np.ndarray) -> int:
    """The side of the squares that pixels were enlarged to, by repeating them."""
    down, across = (pixels[1:] != pixels[:-1]).any(axis=1), (pixels[:, 1:] != pixels[:, :-1]).any(axis=0)
    gaps = np.concatenate([np.diff(np.flatnonzero(down)), np.diff(np.flatnonzero(across))])
    return int(gaps.min()) if gaps.size else 1


def _solid(pixels: np.ndarray, tolerance: float) -> np.ndarray:
    """Where a pixel is in a square of nine that are equal up to a tolerance, as the pixels of soft edges are not."""
    rows, columns = pixels.shape[0] - 2, pixels.shape[1] - 2
    places = [np.s_[top : top + rows, left : left + columns] for top in range(3) for left in range(3)]
    squares = [pixels[place] for place in places]
    same = np.maximum.reduce(squares) - np.minimum.reduce(squares) <= tolerance
    solid = np.zeros(pixels.shape, bool)
    for place in places:
        solid[place] |= same
    return solid


def _jumps(pixels: np.ndarray, solid: np.ndarray, grey: np.ndarray, full: int, *, apart: int) -> bool:
    """Whether solid areas of grey and of something else are so many pixels apart, and their values far."""
    for one, other in ((np.s_[apart:], np.s_[:-apart]), (np.s_[:, apart:], np.s_[:, :-apart])):
        edge = solid[one] & solid[other] & (grey[one] | grey[other])
        if np.count_nonzero(edge & (np.abs(pixels[one] - pixels[other]) > _JUMP * full)) >= 4:
            return True
    return False


def _is_near_three_levels(values: np.ndarray, full: int) -> bool:
    """Whether nearly all of the values are near three of them."""
    counts, found = np.bincount(values * 255 // full, minlength=256), 0
    for _ in range(3):
        nearby = _counts_nearby(counts)
        centre = int(nearby.argmax())
        found += int(nearby[centre])
        counts[max(0, centre - 8) : centre + 9] = 0
    return bool(found >= 0.9 * values.size)


def _counts_nearby(counts: np.ndarray) -> np.ndarray:
    """Of 256 levels, how many pixels are within eight of each, which is what compression makes of one."""
    return np.convolve(counts, np.ones(17, np.int64), "same")


def _thick(region: np.ndarray) -> np.ndarray:
    """Where nine pixels, three across and three down, are in a region."""
    thick = region[:-2] & region[1:-1] & region[2:]
    return thick[:, :-2] & thick[:, 1:-1] & thick[:, 2:]


def _are_steps(pixels: np.ndarray) -> bool:
    """Whether values change by one nearly everywhere, as in a faint soft mask, where those of labels change to any."""
    values = pixels.astype(np.int32)
    ones, others, grounds = 0, 0, 0  # the last beside 0
    for one, other in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1])):
        steps, ground = np.abs(one - other), (one == 0) | (other == 0)
        ones += int(np.count_nonzero((steps == 1) & ~ground))
        others += int(np.count_nonzero((steps > 1) & ~ground))
        grounds += int(np.count_nonzero((steps > 0) & ground))
    return ones > 4 * others and ones + others > grounds


def _is_trimap(pixels: np.ndarray, full: int) -> bool:
    """Whether nearly all soft pixels have one value, in a band that parts black from white and is no soft edge."""
    middle = (pixels > 0.2 * full) & (pixels < 0.8 * full)
    if middle.mean() < 0.005:
        return False
    counts = np.bincount((pixels[middle] >> (0 if full == 255 else 8)).astype(np.uint8), minlength=256)
    soft = (pixels > 0.05 * full) & (pixels < 0.95 * full)
    if _counts_nearby(counts).max() < 0.5 * soft.sum():
        return False
    low, high = pixels <= 0.2 * full, pixels >= 0.8 * full
    border = np.count_nonzero(middle[:, 1:] != middle[:, :-1]) + np.count_nonzero(middle[1:] != middle[:-1])
    return bool(_thick(middle).any() and low.any() and high.any() and _touch(low, high) < 0.02 * border)


def _touch(one: np.ndarray, other: np.ndarray) -> int:
    """Number of neighbours, across and down, of which one lies in the one region and one in the other."""
    return sum(
        int(np.count_nonzero(a[:, 1:] & b[:, :-1])) + int(np.count_nonzero(a[1:] & b[:-1]))
        for a, b in ((one, other), (other, one))
    )


def _in_words(values: list, *, whole: bool) -> str:
    """ "0 and 255", "0, 1, 2", "0 to 255"."""
    named = [f"{value:.4g}" if isinstance(value, float) else str(int(value)) for value in values]
    if not whole or len(named) > 5:
        return f"{named[0]} to {named[-1]}"
    return " and ".join(named) if len(named) <= 2 else ", ".join(named)
