"""float16 ends at 65504, and a network's weights may not: statistics of norms are squares of what passes them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import CheckpointError

VARIANCE_LIMIT = 1e4  # leaves float16 room for the sums around it
_VARIANCE = ".running_var"


def fit_float16(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Makes weights fit into float16 without changing what the network computes.

    Where the variance of a norm is too large, the convolution before it is scaled down, and with it the norm's mean
    and variance: the norm divides it out again.

    Args:
        weights: State dict under our own names, where a norm and its convolution differ in "norm" and "conv".

    Returns:
        The same names; what need not change is the same tensor.

    Raises:
        CheckpointError: Something else is too large.
    """
    fitted = dict(weights)
    for name, variance in weights.items():
        norm = name.removesuffix(_VARIANCE)
        if norm == name or variance.max() <= VARIANCE_LIMIT:
            continue
        conv = re.sub(r"(norm|bn)(?=[^.]*$)", "conv", norm)
        if conv == norm or f"{conv}.weight" not in weights:
            continue
        scale = (VARIANCE_LIMIT / variance.float().clamp(min=VARIANCE_LIMIT)).sqrt()  # C
        fitted[name] = variance.float() * scale**2
        for other in (f"{norm}.running_mean", f"{conv}.bias", f"{conv}.weight"):
            if other in weights:
                value = weights[other].float()
                fitted[other] = value * scale.view(-1, *[1] * (value.ndim - 1))
    largest = torch.finfo(torch.float16).max
    for name, value in fitted.items():
        if value.is_floating_point() and value.numel() and value.isfinite().all() and value.abs().max() > largest:
            raise CheckpointError(
                f"{name} holds {value.abs().max().item():g}, and float16 ends at {largest:g}: use fp32 or bf16."
            )
    return fitted
