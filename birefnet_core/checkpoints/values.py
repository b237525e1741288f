"""What tensors of a file must be before they are used: plain, floating point, finite."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import CheckpointError
from ..text import enumerate_names

_INFINITY = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80, torch.float32: 0x7F800000}  # in bits
_ZERO = ("offset_conv.weight", "modulator_conv.weight", "offset.weight", "modulator.weight")  # before training
_MOST_ZEROS = 1e-3  # of all numbers of a network, in tensors that are zero everywhere
_CHUNK = 2**16  # numbers that stay in a processor's cache
_INTEGERS = ("relative_position_index", "num_batches_tracked")  # buffers that are counts or positions


def check_file(path: object, tensors: Mapping[str, Tensor]) -> None:
    """All checks below for tensors of a file, which the messages name."""
    try:
        check_tensors(tensors)
        check_types(tensors)
        check_values(tensors)
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


def check_values(tensors: Mapping[str, Tensor]) -> None:
    """Refuses weights that a network computes no mask with.

    Args:
        tensors: By their names in the file.

    Raises:
        CheckpointError: NaN or infinite values (in float32), or a negative variance; the message names them.
    """
    refuse_values(tensors, {name for name, value in tensors.items() if not is_finite(value)})


def refuse_values(tensors: Mapping[str, Tensor], not_finite: Collection[str]) -> None:
    """``check_values`` where it is known which tensors hold NaN or infinite values."""
    _refuse([name for name in tensors if name in not_finite], "NaN or infinite")
    variances = {name: value for name, value in tensors.items() if name.endswith("running_var")}
    _refuse([name for name, value in variances.items() if (value.float() < 0).any()], "negative variances")


def _is_float8(value: Tensor) -> bool:
    return value.is_floating_point() and value.dtype.itemsize == 1


def refuse_zeros(tensors: Mapping[str, Tensor]) -> None:
    """Refuses a network whose weights are partly there, as downloads that provide space for the whole file leave it.

    Args:
        tensors: By their names in the file.

    Raises:
        CheckpointError: Whole tensors are zero, and too large to be so by intention; the message names them.
    """
    matrices = {n: v for n, v in tensors.items() if v.ndim > 1 and v.is_floating_point() and not n.endswith(_ZERO)}
    zeros = [name for name, value in matrices.items() if _is_zero(value)]
    missing = sum(matrices[name].numel() for name in zeros)
    if len(zeros) < len(matrices) and missing > _MOST_ZEROS * sum(value.numel() for value in matrices.values()):
        raise CheckpointError(
            f"{len(zeros)} weights are zero everywhere ({enumerate_names(zeros)}), as an incomplete download leaves "
            "them. Delete the file and download it again."
        )


def _is_zero(value: Tensor) -> bool:
    value = value.detach()
    return value.numel() > 0 and not value[(-1,) * value.ndim].any() and not value.any()


def _refuse(names: list[str], what: str) -> None:
    if names:
        raise CheckpointError(
            f"{len(names)} weights are {what} ({enumerate_names(names)}). They are damaged, badly converted, or come "
            "from a training that diverged: use another checkpoint."
        )


def is_finite(value: Tensor) -> bool:
    """Whether all values are finite in float32."""
    bits = bits_of(value)
    if bits is None:
        return bool(value.float().isfinite().all())
    return all(are_finite(bits[i : i + _CHUNK], value.dtype) for i in range(0, bits.size, _CHUNK))


def bits_of(value: Tensor) -> NDArray[np.signedinteger] | None:
    """The bits of a tensor's numbers as integers, flat, without a copy; None for tensors where that cannot be."""
    if value.dtype not in _INFINITY or not (value.is_cpu and value.is_contiguous()) or value.is_neg():
        return None
    integer = torch.int16 if value.dtype.itemsize == 2 else torch.int32
    return value.detach().reshape(-1).view(integer).numpy()


def are_finite(bits: NDArray[np.signedinteger], dtype: torch.dtype) -> bool:
    """Whether none of some numbers is NaN or infinite, which are the largest of their sign in bits.

    Args:
        bits: See ``bits_of``. As signed integers the positive numbers are the largest, as unsigned the negative.
        dtype: Of the numbers.
    """
    if not bits.size:
        return True
    infinity, sign = _INFINITY[dtype], 1 << (8 * bits.itemsize - 1)
    unsigned = bits.view(f"u{bits.itemsize}")
    return int(np.maximum.reduce(bits)) < infinity and int(np.maximum.reduce(unsigned)) < sign + infinity
