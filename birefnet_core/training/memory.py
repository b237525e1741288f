"""Activation checkpointing: activations are recomputed in the backward pass instead of being kept."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..network import BiRefNet
from ..network.reconstruction import ReconstructionModule
from ..network.reconstruction_block import AsppBranch

# Rows of the image whose inward reference is made at once: its 64 channels at full resolution are the largest map.
BAND = 128
# Rows beside a band that its result depends on: two convolutions of 3 x 3.
MARGIN = 2


def checkpoint_activations(model: BiRefNet) -> None:
    """Makes a network keep little for the backward pass; its numbers stay the same but for the order of sums.

    - Encoder blocks, decoder stages and the squeeze keep their inputs only.
    - Within a stage, while it is recomputed, each receptive field keeps what its convolution gave only: the fields are
      wider than all else in the stage.
    - The inward reference at full resolution is made in bands of rows, each of which keeps nothing.
    """
    for i, block in enumerate(encoder_blocks(model.localization.encoder.backbone)):
        block.forward = functools.partial(_run, block, block.forward, trim=i < 2)  # the largest maps, the last ones
    for stage in (model.localization.squeeze, *model.reconstruction.blocks):
        stage.forward = functools.partial(_run, stage, stage.forward, trim=True)
    for module in model.modules():
        if isinstance(module, AsppBranch):
            _replace(module, "project", functools.partial(_run, module.norm, module.project))
    reconstruction = model.reconstruction
    in_bands = functools.partial(_in_bands, reconstruction, reconstruction.reference_logits)
    _replace(reconstruction, "reference_logits", in_bands)


def _replace(module: nn.Module, method: str, function: Callable[..., Any]) -> None:
    """Gives one module another method than its class has."""
    setattr(module, method, function)


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
