"""Rescales convolution and BatchNorm pairs, so that large running variances fit into float16."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from ..network.layers import BATCH_NORMS
from .values import largest_magnitude

VARIANCE_LIMIT = 1e4  # below the 65504 of float16, so that sums of such values fit, too
_METADATA = "birefnet_scales"


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
    fitted = scale_convolutions(model, weights, float16_scales(model, weights) if scales is None else scales)
    wide = [name for name, value in fitted.items() if value.is_floating_point() and value.dtype != torch.float16]
    refuse_too_large({name: largest_magnitude(fitted[name]) for name in wide})
    return fitted


def refuse_too_large(magnitudes: Mapping[str, float]) -> None:
    """Refuses weights that do not fit into float16.

    Args:
        magnitudes: The largest of each; what is not finite is no matter of the precision.

    Raises:
        CheckpointError: The message names the first.
    """
    limit = torch.finfo(torch.float16).max
    for name, largest in magnitudes.items():
        if limit < largest < math.inf:
            raise CheckpointError(f"{name} holds {largest:g}, and float16 ends at {limit:g}: use fp32 or bf16.")


def undo_float16(
    model: nn.Module, weights: Mapping[str, Tensor], scales: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Takes back what ``fit_float16`` did, so that adapters, averages and trainings see the same weights as before it.

    Args:
        model: See there.
        weights: Its state dict.
        scales: Name of a weight -> C, the factors; NaN where they are not known.

    Returns:
        The weights, and what is left to take back: NaN where it is not known, else 1.

    Raises:
        CheckpointError: Scales of other weights, or not one positive factor for each output channel.
    """
    known = {f"{conv}.weight" for conv, _ in norm_pairs(model)}
    for name, scale in scales.items():
        if name not in known or scale.shape != weights[name].shape[:1] or (scale <= 0).any() or scale.isinf().any():
            raise CheckpointError(
                f"its metadata say by what {name} was multiplied to fit into float16, and it is no weight before a "
                "norm, or not one positive number for each of its channels. They are damaged or of another file."
            )
    undone = scale_convolutions(model, weights, {name: 1 / scale.nan_to_num(1.0) for name, scale in scales.items()})
    return undone, {name: scale * 0 + 1 for name, scale in scales.items() if scale.isnan().any()}


def unknown_scales(model: nn.Module) -> dict[str, Tensor]:
    """Those of a network from a file of version 0.1, which noted none: NaN where a norm has the very limit."""
    weights = model.state_dict()
    scaled = {conv: weights[f"{norm}.running_var"] == VARIANCE_LIMIT for conv, norm in norm_pairs(model)}
    return {f"{conv}.weight": torch.where(some, math.nan, 1.0) for conv, some in scaled.items() if some.any()}


def combine_scales(first: Mapping[str, Tensor], then: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scales of weights that were scaled twice, on the CPU."""
    both = {name: scale.cpu() for name, scale in first.items()}
    for name, scale in then.items():
        both[name] = both[name] * scale.cpu() if name in both else scale.cpu()
    return both


def write_scales(scales: Mapping[str, Tensor]) -> dict[str, str]:
    """Metadata of a file that say what its weights were multiplied by; names are as in the file."""
    lists = {name: [None if math.isnan(s) else s for s in scale.tolist()] for name, scale in scales.items()}
    return {_METADATA: json.dumps(lists)}


def read_scales(metadata: Mapping[str, str]) -> dict[str, Tensor] | None:
    """What ``write_scales`` wrote, None where it wrote nothing.

    Raises:
        ValueError: Something else; also TypeError, AttributeError and RecursionError.
    """
    if _METADATA not in metadata:
        return None
    lists = json.loads(metadata[_METADATA])
    numbers = {n: [math.nan if s is None else float(s) for s in values] for n, values in lists.items()}
    return {n: torch.tensor(values, dtype=torch.float32, device="cpu") for n, values in numbers.items()}


def scale_convolutions(
    model: nn.Module, weights: Mapping[str, Tensor], scales: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Multiplies convolutions, by name of the weight, and the statistics of the norms after them."""
    scaled = dict(weights)
    for scale, variance, others in _scaled_names(model, scales):
        scaled[variance] = weights[variance].float() * scale**2
        for name in others:
            if name in weights:
                value = weights[name].float()
                scaled[name] = value * scale.view(-1, *[1] * (value.ndim - 1))
    return scaled


def names_of_scaled(model: nn.Module, scales: Mapping[str, Tensor]) -> set[str]:
    """What ``scale_convolutions`` changes; a network need not have all of it."""
    return {name for _, variance, others in _scaled_names(model, scales) for name in (variance, *others)}


def _scaled_names(model: nn.Module, scales: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, str, tuple[str, ...]]]:
    """The scale, the name of the variance, and those of what is scaled by it once."""
    for conv, norm in norm_pairs(model):
        if (scale := scales.get(f"{conv}.weight")) is not None:
            yield scale, f"{norm}.running_var", (f"{norm}.running_mean", f"{conv}.bias", f"{conv}.weight")


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
            if isinstance(norm, BATCH_NORMS):
                kernel = "" if isinstance(conv, nn.Conv2d) else ".kernel"
                yield f"{parent}.{before}{kernel}".lstrip("."), f"{parent}.{name}".lstrip(".")
