"""Activation checkpointing: activations are recomputed in the backward pass instead of being kept."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..network import BiRefNet
from ..network.reconstruction import ReconstructionModule
from ..network.reconstruction_block import Aspp, AsppBranch

# Rows of the image whose inward reference is made at once: its 64 channels at full resolution are the largest map.
BAND = 128
# Rows beside a band that its result depends on: two convolutions of 3 x 3.
MARGIN = 2


def checkpoint_activations(model: BiRefNet) -> None:
    """Makes a network keep little for the backward pass; its numbers stay the same but for the order of sums.

    - Encoder blocks, decoder stages and the squeeze keep their inputs only.
    - Within a stage, while it is recomputed, the joined receptive fields are brought to the block's width one by one,
      and each keeps what its convolution gave only: they are five times as wide as all else in the stage.
    - The inward reference at full resolution is made in bands of rows, each of which keeps nothing.
    """
    for i, block in enumerate(encoder_blocks(model.localization.encoder.backbone)):
        block.forward = functools.partial(_run, block, block.forward, trim=i < 2)  # the largest maps, the last ones
    for stage in (model.localization.squeeze, *model.reconstruction.blocks):
        stage.forward = functools.partial(_run, stage, stage.forward, trim=True)
    for module in model.modules():
        if isinstance(module, Aspp):
            module.forward = functools.partial(_join_one_by_one, module)
    reconstruction = model.reconstruction
    reconstruction.reference_logits = functools.partial(_in_bands, reconstruction, reconstruction.reference_logits)


def encoder_blocks(backbone: nn.Module) -> list[nn.Module]:
    """The repeated blocks of an encoder: children of a ``blocks`` list, or the parts of a plain network."""
    blocks = [block for name, module in backbone.named_modules() if name.endswith("blocks") for block in module]
    return blocks or list(getattr(backbone, "parts", ()))


def _run(module: nn.Module, forward: Callable[..., Any], *args: Any, trim: bool = False) -> Any:
    """Runs a part of a module; what it makes is made again in the backward pass.

    Args:
        module: The module.
        forward: Of it, or of a part of it.
        *args: Of ``forward``.
        trim: Whether to give free memory back to the system before it is run again.
    """
    inputs = (arg for arg in args if isinstance(arg, Tensor))
    if not (torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *module.parameters()))):
        return forward(*args)
    contexts = (contextlib.nullcontext(), _again(module, trim=trim))
    return checkpoint(forward, *args, use_reentrant=False, context_fn=lambda: contexts)


def _join_one_by_one(aspp: Aspp, x: Tensor) -> Tensor:
    """``Aspp.forward``, whose joining convolution is split by the fields it joins. B, C, H, W -> B, C, H, W."""
    weights = aspp.conv.weight.split(aspp.conv.in_channels // (len(aspp.branches) + 1), dim=1)
    y = F.conv2d(aspp.pool(x.mean(dim=(2, 3), keepdim=True)), weights[-1])  # B C 1 1
    for branch, weight in zip(aspp.branches, weights, strict=False):
        y = y + _run(branch.norm, functools.partial(_project, branch), branch.conv(x), weight)
    # Laid out as the plain form's map: what dropout drops depends on it.
    return aspp.dropout(aspp.relu(aspp.norm(y.contiguous())))


def _project(branch: AsppBranch, field: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(branch.relu(branch.norm(field)), weight)


def _in_bands(reconstruction: ReconstructionModule, forward: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """``ReconstructionModule.reference_logits`` in bands of rows."""
    assert reconstruction.inward is not None
    bands, height = [], image.shape[2]
    for top in range(0, height, BAND):
        low, bottom = max(0, top - MARGIN), min(top + BAND, height)
        band = image[:, :, low : bottom + MARGIN]  # there are no rows beyond the image
        band = _run(reconstruction.inward, forward, band, trim=bottom == height)  # the backward pass begins there
        bands.append(band[:, :, top - low : bottom - low])
    return torch.cat(bands, dim=2)


@functools.cache
def _trimmer() -> Callable[[int], int] | None:
    """glibc's function that gives free memory back to the system; None with other C libraries."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


def _trim() -> None:
    """Gives free memory back: glibc keeps freed maps of up to 32 MiB, between which larger ones find no place."""
    trimmer = _trimmer()
    if trimmer is not None:
        trimmer(0)


@contextlib.contextmanager
def _again(module: nn.Module, *, trim: bool) -> Iterator[None]:
    """While a module is run again. BatchNorm saw the batch in the forward pass; now it counts it on copies."""
    if trim:
        _trim()
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    kept = [(norm, dict(norm.named_buffers(recurse=False))) for norm in norms]
    for norm, buffers in kept:
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in kept:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
