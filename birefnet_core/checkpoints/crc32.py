"""The checksum of zip archives, faster than zlib's for large entries.

A CRC is the remainder of the data, read as a polynomial over GF(2), by a polynomial P of degree 32. P divides
x^91639 + x^41678 + 1, and so the same with all exponents times 32: without changing the remainder, a word of 32 bits
may be moved: added (exclusive or) to the words 91639 - 41678 and 91639 places after it. Doing so from the first word
on leaves the last 91639 words with the CRC of all the data, at the speed of adding arrays. zlib computes that.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

_FAR = 91639  # of all trinomials that zlib's polynomial divides, the one of least degree
_NEAR = _FAR - 41678  # words, as _FAR
_ONES = 0xFFFFFFFF  # a CRC starts from ones, which is the same as inverting the first word
BLOCK = 4 * _FAR  # bytes


class Crc32:
    """CRC-32 of one piece of data after another, in 367 kB that stay in a processor's cache. Not for several threads.

    The words of a block replace those of the block before, each of which is added to the word in its own place.
    """

    def __init__(self) -> None:
        self._words = np.zeros(_FAR, np.uint32)
        step = _FAR - _NEAR
        # Parts of a block, from where to where, and where the words begin that are added to them, too: those of the
        # first two belong to the block before.
        parts = ((0, step, step), (step, _NEAR, 2 * step), (_NEAR, _FAR, 0))
        self._parts = [(slice(i, j), self._words[i:j], self._words[near : near + j - i]) for i, j, near in parts]
        self.start(0)

    def start(self, size: int) -> None:
        """Begins with data of ``size`` bytes."""
        self._left = max(0, size // BLOCK - 1)  # blocks to move
        self._total = 0
        if self._left:
            self._words[:] = 0
            self._words[0] = _ONES
            self._total = _ONES  # which zlib inverts: what it goes on with starts from zeros
        self._moved = self._words.view(np.uint8)[:0]  # what is to be added to the next bytes

    def add(self, data: NDArray[np.generic]) -> None:
        """Adds the next bytes.

        Args:
            data: A contiguous array: ``BLOCK`` bytes, or those that are left in the end.
        """
        if self._left:
            words = data.view(np.uint32)
            for span, part, near in self._parts:
                np.bitwise_xor(part, words[span], out=part)
                np.bitwise_xor(part, near, out=part)
            self._left -= 1
            if not self._left:
                self._words[:_NEAR] ^= self._words[-_NEAR:]
                self._moved = self._words.view(np.uint8)
            return
        data = data.view(np.uint8)
        if count := min(data.size, self._moved.size):
            moved, self._moved = self._moved[:count], self._moved[count:]
            self._total = zlib.crc32(np.bitwise_xor(moved, data[:count], out=moved).data, self._total)
        self._total = zlib.crc32(data[count:].data, self._total)

    def total(self) -> int:
        """The CRC-32 of all that was added, as ``zlib.crc32`` computes it."""
        return self._total
