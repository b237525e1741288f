"""The ways to compute a deformable convolution. Each is a module with two functions:

- ``unavailable(device, dtype) -> str | None``: why it cannot be used for maps of that kind, or None;
- ``run(x, offset, weight, mask, geometry, epilogue) -> Tensor``, differentiable unless ``epilogue.into`` is given.

``run`` may raise ``BackendUnavailableError``, before it has changed anything. A new backend is a new file here and a
name in ``BACKENDS``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

import torch

from ...text import first_line

BACKENDS = ("torchvision", "gather", "embedding_bag", "triton")

_failures: dict[tuple[str, torch.device, torch.dtype], str] = {}


class BackendUnavailableError(RuntimeError):
    """A backend turned out not to run here, such as one whose kernels cannot be compiled."""


@cache
def load(name: str) -> ModuleType:
    """The module of a backend, which imports the library it needs.

    Args:
        name: One of ``BACKENDS``.

    Raises:
        ImportError: Its library is missing.
    """
    return import_module(f".{name}", __name__)


def unavailable(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a backend cannot be used.

    Args:
        name: One of ``BACKENDS``.
        device: Where the maps are.
        dtype: Of the maps.

    Returns:
        The reason; None where the backend can be used.
    """
    try:
        return load(name).unavailable(device, dtype) or _failures.get((name, device, dtype))
    except ImportError as error:
        return first_line(error)


def remember_failure(name: str, device: torch.device, dtype: torch.dtype, reason: str) -> None:
    """Makes ``unavailable`` give this reason from now on, so that a backend that failed is not tried again.

    Args:
        name: One of ``BACKENDS``.
        device: Where the maps were.
        dtype: Of the maps.
        reason: What went wrong.
    """
    _failures[name, device, dtype] = reason
