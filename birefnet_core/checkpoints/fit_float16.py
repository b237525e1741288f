"""Rescales convolution and BatchNorm pairs, so that large running variances fit into float16."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import CheckpointError

VARIANCE_LIMIT = 1e4  # below the 65504 of float16, so that sums of such values fit, too


def fit_float16(
    model: nn.Module, weights: Mapping[str, Tensor], scales: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Makes weights fit into float16 without changing what the network computes.

    Where the variance of a BatchNorm is too large, the convolution before it is scaled down, and with it the norm's
    mean and variance: the norm divides by the standard deviation, so the scale cancels.

    Args:
        model: The network, for its structure; it is left alone.
        weights: Its state dict.
        scales: What ``float16_scales`` gives for them; None to call it.

    Returns:
        The same names; what need not change is the same tensor.

    Raises:
        CheckpointError: Something else is too large.
    """
    fitted, scales = dict(weights), float16_scales(model, weights) if scales is None else scales
    for conv, norm in norm_pairs(model):
        scale = scales.get(f"{conv}.weight")
        if scale is None:
            continue
        fitted[f"{norm}.running_var"] = weights[f"{norm}.running_var"].float() * scale**2
        for name in (f"{norm}.running_mean", f"{conv}.bias", f"{conv}.weight"):
            if name in weights:
                value = weights[name].float()
                fitted[name] = value * scale.view(-1, *[1] * (value.ndim - 1))
    limit = torch.finfo(torch.float16).max
    for name, value in fitted.items():
        if value.dtype == torch.float16 or not (value.is_floating_point() and value.numel()):
            continue
        largest = max(abs(extreme.item()) for extreme in value.aminmax())
        if limit < largest < math.inf:
            raise CheckpointError(f"{name} holds {largest:g}, and float16 ends at {limit:g}: use fp32 or bf16.")
    return fitted


def float16_scales(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What ``fit_float16`` multiplies convolutions by: name of a weight -> C, one factor for each output channel."""
    scales = {}
    for conv, norm in norm_pairs(model):
        variance = weights[f"{norm}.running_var"]
        if variance.max() > VARIANCE_LIMIT:
            scales[f"{conv}.weight"] = (VARIANCE_LIMIT / variance.float().clamp(min=VARIANCE_LIMIT)).sqrt()
    return scales


def norm_pairs(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of each BatchNorm and the convolution before it.

    Modules register their layers in the order they run, so that convolution is in the sibling registered before the
    norm: the sibling itself, or the ``kernel`` of a deformable convolution.
    """
    for parent, module in model.named_modules():
        children = list(module.named_children())
        for (before, conv), (name, norm) in pairwise(children):
            if isinstance(norm, nn.BatchNorm2d):
                kernel = "" if isinstance(conv, nn.Conv2d) else ".kernel"
                yield f"{parent}.{before}{kernel}".lstrip("."), f"{parent}.{name}".lstrip(".")
