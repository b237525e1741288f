"""The fast CRC-32 is zlib's, for every size and start."""

import random
import zlib

import numpy as np
import pytest

from birefnet_core.checkpoints.crc32 import BLOCK, Crc32

LEAST = 2 * BLOCK  # bytes from which on words are moved
SIZES = [0, 1, 3, 4, BLOCK - 1, BLOCK, LEAST - 1, LEAST, LEAST + 1, LEAST + 3, LEAST + BLOCK, LEAST + BLOCK + 2]


def crc32(computer: Crc32, data: np.ndarray) -> int:
    computer.start(data.nbytes)
    for start in range(0, data.nbytes, BLOCK):
        computer.add(data.view(np.uint8)[start : start + BLOCK])
    return computer.total()


@pytest.fixture(scope="module")
def computer():
    return Crc32()


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).integers(0, 256, LEAST + 6 * BLOCK, dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_it_is_that_of_zlib(computer, data, size):
    assert crc32(computer, data[:size]) == zlib.crc32(data[:size])


def test_it_is_that_of_zlib_for_any_size(computer, data):
    draw = random.Random(1)
    for size in [draw.randrange(len(data)) for _ in range(60)]:
        assert crc32(computer, data[:size]) == zlib.crc32(data[:size]), size


def test_every_flipped_bit_changes_it(computer, data):
    whole, draw = zlib.crc32(data), random.Random(2)
    for at in [0, len(data) - 1, *(draw.randrange(len(data)) for _ in range(40))]:
        changed = data.copy()
        changed[at] ^= 1 << draw.randrange(8)
        assert crc32(computer, changed) not in (whole, 0)


def test_zeros_and_ones(computer):
    for value in (0, 255):
        data = np.full(LEAST + 3 * BLOCK + 5, value, np.uint8)
        assert crc32(computer, data) == zlib.crc32(data)


def test_numbers_of_any_type(computer):
    numbers = np.arange(LEAST // 4, dtype=np.float32)
    computer.start(numbers.nbytes)
    for start in range(0, numbers.size, BLOCK // 4):
        computer.add(numbers[start : start + BLOCK // 4])
    assert computer.total() == zlib.crc32(numbers)
