"""What tensors of a file must be before they are used: plain, floating point, finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import CheckpointError
from ..text import enumerate_names

VARIANCE = "running_var"
_COMPARED = (torch.float16, torch.bfloat16, torch.float32)
_ZERO = ("offset_conv.weight", "modulator_conv.weight", "offset.weight", "modulator.weight")  # before training
_MOST_ZEROS = 1e-3  # of all numbers of a network, in tensors that are zero everywhere
_CHUNK = 2**16  # numbers that stay in a processor's cache
_INTEGERS = ("relative_position_index", "num_batches_tracked")  # buffers that are counts or positions


def check_file(path: object, tensors: Mapping[str, Tensor]) -> None:
    """All checks below for tensors of a file, which the messages name."""
    try:
        check_tensors(tensors)
        check_types(tensors)
        refuse_values(tensors, magnitudes_of(tensors))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Refuses tensors that hold no plain numbers, or more of them than their memory: copying would not end.

    Raises:
        CheckpointError: The message names them.
    """
    odd = [f"{name} ({kind})" for name, value in tensors.items() if (kind := _odd_kind(value))]
    if odd:
        raise CheckpointError(
            f"{len(odd)} tensors are not plain ones: {enumerate_names(odd)}. Expected dense tensors of numbers; save "
            "the network's state_dict() anew."
        )


def is_plain(value: Tensor) -> bool:
    """Whether ``check_tensors`` lets a tensor pass."""
    return not _odd_kind(value)


def _odd_kind(value: Tensor) -> str:
    if value.is_meta:
        return "meta, without values"
    if value.is_nested:
        return "nested"
    if value.is_quantized:
        return "quantized"
    if value.layout is not torch.strided:
        return str(value.layout).removeprefix("torch.")
    if value.is_complex():
        return "complex"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"{' x '.join(map(str, value.shape))} values over {value.untyped_storage().nbytes()} bytes"
    return ""


def check_types(tensors: Mapping[str, Tensor]) -> None:
    """Refuses integers and booleans where weights are expected, and weights rounded to float8.

    Args:
        tensors: By their names in the file.

    Raises:
        CheckpointError: The message names them.
    """
    wrong = [f"{n} ({v.dtype})" for n, v in tensors.items() if not (n.endswith(_INTEGERS) or v.is_floating_point())]
    _refuse(wrong, "not floating point")
    _refuse([n for n, v in tensors.items() if _is_float8(v)], "float8, which keeps 2 or 3 bits of each")


def magnitudes_of(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """``largest_magnitude`` of each."""
    return {name: largest_magnitude(value) for name, value in tensors.items()}


def refuse_values(tensors: Mapping[str, Tensor], magnitudes: Mapping[str, float]) -> None:
    """Refuses weights that a network computes no mask with.

    Args:
        tensors: By their names in the file.
        magnitudes: See ``magnitudes_of``.

    Raises:
        CheckpointError: NaN or infinite values (in float32), or a negative variance; the message names them.
    """
    _refuse([name for name in tensors if not math.isfinite(magnitudes[name])], "NaN or infinite")
    variances = {name: value for name, value in tensors.items() if name.endswith(VARIANCE)}
    _refuse([name for name, value in variances.items() if (value.float() < 0).any()], "negative variances")


def _is_float8(value: Tensor) -> bool:
    return value.is_floating_point() and value.dtype.itemsize == 1


def refuse_zeros(tensors: Mapping[str, Tensor], magnitudes: Mapping[str, float]) -> None:
    """Refuses a network whose weights are partly there, as downloads that provide space for the whole file leave it.

    Args:
        tensors: By their names in the file; only shapes and types are looked at.
        magnitudes: The largest of each.

    Raises:
        CheckpointError: Whole tensors are zero, and too large to be so by intention; the message names them.
    """
    sizes = {
        name: value.numel()
        for name, value in tensors.items()
        if value.ndim > 1 and value.is_floating_point() and not name.endswith(_ZERO)
    }
    zeros = [name for name, size in sizes.items() if size and magnitudes[name] == 0]
    missing = sum(sizes[name] for name in zeros)
    if len(zeros) < len(sizes) and missing > _MOST_ZEROS * sum(sizes.values()):
        raise CheckpointError(
            f"{len(zeros)} weights are zero everywhere ({enumerate_names(zeros)}), as an incomplete download leaves "
            "them. Delete the file and download it again."
        )


def _refuse(names: list[str], what: str) -> None:
    if names:
        raise CheckpointError(
            f"{len(names)} weights are {what} ({enumerate_names(names)}). They are damaged, badly converted, or come "
            "from a training that diverged: use another checkpoint."
        )


def largest_magnitude(value: Tensor) -> float:
    """The largest absolute value of a tensor in float32; 0 where there is none, NaN or infinite where any value is."""
    bits = _bits_of(value)
    if bits is None:
        magnitudes = value.detach().float().abs()
        return float(magnitudes.max()) if magnitudes.numel() else 0.0
    largest = max((largest_in_bits(bits[i : i + _CHUNK]) for i in range(0, bits.size, _CHUNK)), default=0)
    return magnitude_of(largest, value.dtype)


def integers_of(dtype: torch.dtype) -> type[np.signedinteger] | None:
    """As which integers ``largest_in_bits`` compares numbers of a type; None for types where it cannot."""
    if dtype not in _COMPARED:
        return None
    return np.int16 if dtype.itemsize == 2 else np.int32


def largest_in_bits(bits: NDArray[np.signedinteger]) -> int:
    """The largest magnitude of some numbers, in bits: larger numbers have larger ones, and NaN the largest of all.

    Args:
        bits: Of the numbers, at least one, as integers. Signed, the positive numbers are the largest of them;
            unsigned, the negative.
    """
    return _larger(np.maximum.reduce(bits), np.maximum.reduce(bits.view(f"u{bits.itemsize}")))


def largest_of_parts(values: Tensor, sizes: Sequence[int]) -> list[float]:
    """``largest_magnitude`` of every second part of a tensor, from the first on.

    Args:
        values: Flat, contiguous, on the CPU.
        sizes: How many numbers each part has, which together are all; the last is none of those left out, which may be
            empty.
    """
    bits = _bits_of(values)
    if bits is None:
        return [largest_magnitude(part) for part in values.split([*sizes])[::2]]
    starts = np.cumsum([0, *sizes[:-1]])
    signed = np.maximum.reduceat(bits, starts)[::2]
    unsigned = np.maximum.reduceat(bits.view(f"u{bits.itemsize}"), starts)[::2]
    return [magnitude_of(_larger(*both), values.dtype) for both in zip(signed, unsigned, strict=True)]


def _larger(signed: np.signedinteger, unsigned: np.unsignedinteger) -> int:
    """The larger magnitude of the largest number by signed bits, and that by unsigned ones, without its sign."""
    return max(int(signed), int(unsigned) - (1 << (8 * unsigned.itemsize - 1)))


def magnitude_of(bits: int, dtype: torch.dtype) -> float:
    """The number that ``largest_in_bits`` found."""
    if dtype == torch.bfloat16:  # the upper half of the same number in float32
        bits <<= 16
    floats = np.float16 if dtype == torch.float16 else np.float32
    return float(np.array(bits, f"i{floats().itemsize}").view(floats))


def bytes_of(value: Tensor) -> NDArray[np.uint8]:
    """The memory of a contiguous tensor on the CPU.

    A tensor of one number, or of none, is contiguous with any strides, which torch refuses to view as bytes.
    """
    return value.detach().as_strided((value.numel(),), (1,)).view(torch.uint8).numpy()


def _bits_of(value: Tensor) -> NDArray[np.signedinteger] | None:
    """The bits of a tensor's numbers as integers, flat, without a copy; None for tensors where that cannot be."""
    integer = integers_of(value.dtype)
    if integer is None or not (value.is_cpu and value.is_contiguous()) or value.is_neg():
        return None
    return bytes_of(value).view(integer)
