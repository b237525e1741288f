"""A CUDA device whose memory is the CPU's, so that what runs on a GPU runs, with numbers, on a machine without one.

    python -m pytest -p tests.emulated_cuda -m gpu tests/gpu

Tensors of the device are tensors of the CPU whose memory is marked: ``device`` and ``is_cuda`` say "cuda:0", memory of
both kinds in one operation is an error, copies between them are copies. Memory is counted and can run out. CUDA graphs
are recorded and replayed, and waiting for the device while one is recorded is an error. Triton's kernels are replaced
by what the CPU computes (``kernels``); in Triton's interpreter, tests/ops runs the kernels themselves.

Not emulated: time, several streams at once, several devices, memory that captures share, torch.compile.

A module must begin this before it imports ``birefnet_core``; pytest does so with ``-p``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

_started = False


def active() -> bool:
    """Whether the device is emulated in this process."""
    return _started


def side(pixels: int, emulated: int | None = None) -> int:
    """A side of an image: less where the device is emulated, half of it unless said."""
    return pixels if not _started else pixels // 2 if emulated is None else emulated


def start() -> None:
    """Emulates the device from now on, in this thread and all threads that it starts."""
    global _started
    assert "birefnet_core" not in sys.modules, "the package is imported already"
    os.environ["TRITON_INTERPRET"] = "1"  # Triton's own functions need a driver
    import timm  # noqa: F401 (as of torch, what they hold is not to be replaced while they are imported)
    import torch._dynamo  # noqa: F401
    import torchvision  # noqa: F401

    from . import dispatch, kernels, python_api

    python_api.install()
    kernels.install()
    dispatch.MODE.__enter__()
    _started = True


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: Any) -> None:
    """For ``-p``: before any conftest.py imports the package."""
    start()
