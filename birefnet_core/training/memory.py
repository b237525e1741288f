"""Activation checkpointing: activations are recomputed in the backward pass instead of being kept."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..network import BiRefNet


def checkpoint_activations(model: BiRefNet) -> None:
    """Makes every encoder block and every decoder stage keep its inputs only; the numbers stay the same."""
    blocks = [*encoder_blocks(model.localization.encoder.backbone), *model.reconstruction.blocks]
    blocks += [model.localization.squeeze]
    if model.reconstruction.inward is not None:
        blocks.append(model.reconstruction.inward)
    for block in blocks:
        block.forward = functools.partial(_run, block, block.forward)


def encoder_blocks(backbone: nn.Module) -> list[nn.Module]:
    """The repeated blocks of an encoder: children of a ``blocks`` list, or the parts of a plain network."""
    blocks = [block for name, module in backbone.named_modules() if name.endswith("blocks") for block in module]
    return blocks or list(getattr(backbone, "parts", ()))


def _run(block: nn.Module, forward: Callable[..., Any], *args: Any) -> Any:
    if not (torch.is_grad_enabled() and any(p.requires_grad for p in block.parameters())):
        return forward(*args)
    return checkpoint(
        forward, *args, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), _statistics_kept(block))
    )


@contextlib.contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """BatchNorm saw the batch in the forward pass; while it is recomputed, it counts it on copies."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
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
