"""Activation checkpointing: parts of the network are computed again in the backward pass instead of being kept.

Modules that can do so have a flag ``grad_checkpointing``, as timm's have; ``BiRefNet.set_grad_checkpointing`` sets it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint as torch_checkpoint


def checkpoint(module: nn.Module, function: Callable[..., Any], *args: Any) -> Any:
    """Computes ``function(*args)`` and keeps for the backward pass no more than ``args``.

    Where no gradients are wanted it is a plain call.

    Args:
        module: Holds all parameters that ``function`` reads. Its BatchNorm statistics are updated once only.
        function: The module, or a method of it.
        *args: Its arguments: tensors, tuples of tensors, or constants.
    """
    wants_gradients = any(tensor.requires_grad for tensor in (*_tensors(args), *module.parameters()))
    if not (torch.is_grad_enabled() and wants_gradients):
        return function(*args)
    contexts = contextlib.nullcontext(), _StatisticsRestored(module)
    return torch_checkpoint(function, *args, use_reentrant=False, context_fn=lambda: contexts)


def _tensors(args: Iterable[Any]) -> Iterator[Tensor]:
    for arg in args:
        if isinstance(arg, Tensor):
            yield arg
        elif isinstance(arg, tuple):
            yield from _tensors(arg)


class _StatisticsRestored(contextlib.AbstractContextManager):
    """Restores the running statistics of BatchNorm after recomputation: the forward pass has updated them."""

    def __init__(self, module: nn.Module) -> None:
        self.norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
        self.buffers: list[dict[str, Tensor]] = []

    def __enter__(self) -> None:
        self.buffers = [dict(norm.named_buffers(recurse=False)) for norm in self.norms]
        for norm, buffers in zip(self.norms, self.buffers, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())

    def __exit__(self, *exception: object) -> None:
        for norm, buffers in zip(self.norms, self.buffers, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
