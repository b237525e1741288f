"""Thinning of binary masks to skeletons one pixel wide.

T. Y. Zhang, C. Y. Suen: "A Fast Parallel Algorithm for Thinning Digital Patterns", CACM 1984, with the exceptions
scikit-image's ``skeletonize`` makes; the result equals that function's pixel by pixel. As long as many pixels fall,
passes go over the whole image. Then they follow the border: a pixel can only become removable when a neighbour was
removed, so only the neighbours of the pixels removed in the two passes before are tested.

Shapes: H W size of the mask; single pixels are indices into its flat copy with one pixel of background around.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# Bit k of a neighbourhood's code is neighbour k; bit _OPPOSITE[k] is this pixel as seen from neighbour k.
_NEIGHBOURS = ("NW", "N", "NE", "SW", "S", "SE", "W", "E")
_STEPS = ((-1, -1), (-1, 0), (-1, 1), (1, -1), (1, 0), (1, 1), (0, -1), (0, 1))
_OPPOSITE = (5, 4, 3, 2, 1, 0, 7, 6)

_FIRST, _SECOND, _EITHER = 1, 2, 3  # the two passes, as bits
_FEW = 64  # following the border pays once fewer than one pixel in this many falls in a pass

# Neighbourhoods scikit-image treats differently from the paper: removed in no pass, the first, the second, or both.
_EXCEPTIONS = {
    0: ("SE S", "NW W"),
    1: ("NW N", "N NE", "NE E", "N NE E", "NW N W", "NW N E", "N NE W", "NW S W", "N SW W", "N NE SW W"),
    2: ("E SE", "E SE S", "S SW", "SW W", "S SW W", "N E SE", "E S SW", "NE E S SW", "SE S W"),
    3: ("N E", "E S", "N W", "S W"),
}


def skeletonize(mask: np.ndarray, watched: np.ndarray | None = None) -> np.ndarray:
    """Thins a mask.

    Args:
        mask: bool (H, W); outside the image is background.
        watched: bool (H, W). If given, only the skeleton's pixels in here are wanted, and thinning ends as soon as
            none of them can be left.

    Returns:
        bool (H, W), the skeleton (the part that is watched).
    """
    wanted = mask if watched is None else mask & watched
    alive = np.pad(mask, 1)
    _thin(alive, np.flatnonzero(np.pad(wanted, 1)))
    return alive[1:-1, 1:-1] & wanted


def _thin(alive: np.ndarray, wanted: np.ndarray) -> None:
    """Removes pixels from ``alive`` in alternating passes until nothing changes or nothing wanted is left."""
    flat, codes = alive.reshape(-1), np.zeros(alive.shape, np.uint8)  # flat is a view
    which = _FIRST
    while wanted.size:
        _neighbourhoods(alive, codes)
        removed = _falls(codes, which)
        if np.count_nonzero(removed) * _FEW < flat.size:
            steps = [row * alive.shape[1] + column for row, column in _STEPS]
            _follow(flat, codes.reshape(-1), np.flatnonzero(_falls(codes, _EITHER)), which, steps, wanted)
            return
        alive ^= removed
        wanted = wanted[flat[wanted]]
        which ^= _EITHER


def _follow(
    alive: np.ndarray, codes: np.ndarray, newer: np.ndarray, which: int, steps: list[int], wanted: np.ndarray
) -> None:
    """Continues thinning with the pixels ``newer`` that may be removable; arrays are flat."""
    ticket_of = np.zeros(alive.size, np.int32)
    older, idle = np.empty(0, np.intp), 0
    while wanted.size and idle < 2:
        found = np.concatenate((older, newer))
        found = found[_falls(codes.take(found), which)]
        tickets = np.arange(found.size, dtype=np.int32)
        ticket_of[found] = tickets  # of equal pixels the last one keeps its ticket
        removed = found[ticket_of.take(found) == tickets]
        older, newer = newer, _remove(removed, alive, codes, steps)
        idle = 0 if removed.size else idle + 1
        wanted = wanted[alive[wanted]]
        which ^= _EITHER


def _remove(removed: np.ndarray, alive: np.ndarray, codes: np.ndarray, steps: list[int]) -> np.ndarray:
    """Takes pixels away; returns those neighbours that are removable now, some of them repeatedly."""
    alive[removed] = False
    codes[removed] = 0  # never removable again
    touched = np.empty((len(steps), removed.size), np.intp)
    for neighbours, step, opposite in zip(touched, steps, _OPPOSITE, strict=True):
        np.add(removed, step, out=neighbours)
        codes[neighbours] = codes.take(neighbours) & np.uint8(0xFF ^ (1 << opposite))
    every = touched.reshape(-1)
    return every[_falls(codes.take(every), _EITHER)]


def _falls(codes: np.ndarray, passes: int) -> np.ndarray:
    """bool, like ``codes``: whether pixels with these neighbourhoods are removed in (one of) the passes."""
    looked_up = codes.tobytes().translate(_tables()[passes])  # several times faster than indexing
    return np.frombuffer(looked_up, bool).reshape(codes.shape)


def _neighbourhoods(alive: np.ndarray, codes: np.ndarray) -> None:
    """Writes which neighbours of every living pixel live, and 0 for all other pixels, into ``codes``.

    Multiplied, not shifted: numpy vectorises bytes only so. New arrays of this size cost more than the arithmetic.
    """
    living = alive.view(np.uint8)
    left, middle, right = living[:, :-2], living[:, 1:-1], living[:, 2:]
    row, term = right * np.uint8(4), middle * np.uint8(2)
    row |= term
    row |= left
    term, inner = term[1:-1], codes[1:-1, 1:-1]
    np.multiply(row[2:], np.uint8(8), out=inner)
    inner |= row[:-2]
    for neighbours, bit in ((left, 64), (right, 128)):
        np.multiply(neighbours[1:-1], np.uint8(bit), out=term)
        inner |= term
    inner *= middle[1:-1]


@lru_cache(maxsize=1)
def _tables() -> dict[int, bytes]:
    """By passes: for each of the 256 neighbourhoods 1 if a pixel with it is removed, else 0.

    Zhang and Suen, conditions (a) to (d): two to six neighbours; exactly one change from background to foreground
    around the pixel; and on three of the four sides, which differ between the passes, something is background.
    """
    table = np.zeros(256, np.uint8)
    for code in range(256):
        lives = {name: code >> bit & 1 for bit, name in enumerate(_NEIGHBOURS)}
        ring = [lives[name] for name in ("N", "NE", "E", "SE", "S", "SW", "W", "NW")]
        changes = sum(not a and b for a, b in zip(ring, ring[1:] + ring[:1], strict=True))
        if 2 <= sum(ring) <= 6 and changes == 1:
            north, east, south, west = ring[::2]
            first = not (east and south and (north or west))
            second = not (north and west and (east or south))
            table[code] = _FIRST * first + _SECOND * second
    for passes, neighbourhoods in _EXCEPTIONS.items():
        for names in neighbourhoods:
            table[sum(1 << _NEIGHBOURS.index(name) for name in names.split())] = passes
    return {passes: ((table & passes) != 0).tobytes() for passes in (_FIRST, _SECOND, _EITHER)}
