"""What tensors of a file must be before they are used: plain, floating point, finite."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError
from ..text import enumerate_names

_EXPONENTS = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80}  # the bits of a number that are its exponent
_CHUNK = 2**17  # numbers that stay in a processor's cache
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
    """Refuses integers and booleans where weights are expected.

    Args:
        tensors: By their names in the file.

    Raises:
        CheckpointError: The message names them.
    """
    wrong = [f"{n} ({v.dtype})" for n, v in tensors.items() if not (n.endswith(_INTEGERS) or v.is_floating_point())]
    _refuse(wrong, "not floating point")


def check_values(tensors: Mapping[str, Tensor]) -> None:
    """Refuses weights that a network computes no mask with.

    Args:
        tensors: By their names in the file.

    Raises:
        CheckpointError: NaN or infinite values (in float32), or a negative variance; the message names them.
    """
    _refuse([name for name, value in tensors.items() if not is_finite(value)], "NaN or infinite")
    variances = {name: value for name, value in tensors.items() if name.endswith("running_var")}
    _refuse([name for name, value in variances.items() if (value.float() < 0).any()], "negative variances")


def _refuse(names: list[str], what: str) -> None:
    if names:
        raise CheckpointError(
            f"{len(names)} weights are {what} ({enumerate_names(names)}). They are damaged, badly converted, or come "
            "from a training that diverged: use another checkpoint."
        )


def is_finite(value: Tensor) -> bool:
    """Whether all values are finite in float32, in one pass without a copy for most."""
    if value.dtype in _EXPONENTS and value.is_cpu and value.is_contiguous() and not value.is_neg():
        return _is_finite_half(value, _EXPONENTS[value.dtype])
    if is_float8(value):  # which has no sums
        value = value.float()
    total = value.sum(dtype=torch.float32).item()  # NaN and infinity stay in it; large values may overflow
    return math.isfinite(total) or bool(value.float().isfinite().all())


def _is_finite_half(value: Tensor, exponent: int) -> bool:
    """Whether no value has all bits of the exponent, in half the time of a sum."""
    numbers = value.detach().reshape(-1).view(torch.int16).numpy()
    part = np.empty(min(_CHUNK, numbers.size), numbers.dtype)
    for start in range(0, numbers.size, _CHUNK):
        bits = np.bitwise_and(numbers[start : start + _CHUNK], exponent, out=part[: numbers.size - start])
        if bits.max() == exponent:
            return False
    return True


def is_float8(value: Tensor) -> bool:
    """Whether a tensor is of one of the float8 types, which most operations do not know."""
    return value.is_floating_point() and value.dtype.itemsize == 1
