"""Precision that is decided by the code itself: a caller's autocast or half precision would lower it unasked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

DEVICES = ("cpu", "cuda", "xpu", "mps")


def at_least_float32(x: Tensor) -> Tensor:
    """float32 for anything narrower; float64 stays, so that gradients can be checked."""
    return x if x.dtype == torch.float64 else x.float()


def autocast_disabled(kind: str) -> AbstractContextManager:
    """Disables autocast on a type of device, such as "cuda", where it has one."""
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Runs a function in the precision of its tensors, on all devices."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as stack:
            for kind in DEVICES:
                if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                    stack.enter_context(autocast_disabled(kind))
            return function(*args, **kwargs)

    return run
