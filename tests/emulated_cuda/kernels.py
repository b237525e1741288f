"""The Triton kernels' results, computed by what the CPU takes: the interpreter would need minutes for each layer.

Arguments are checked as a launch would: all memory must be the device's.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from .dispatch import OPERATORS
from .graphs import Graph
from .memory import MEMORY

_import_module = importlib.import_module
_run_thread = threading.Thread.run
_done: set[str] = set()
_lock = threading.RLock()


def install() -> None:
    """Replaces what launches the kernels as soon as that is imported, under whatever name the package has."""
    importlib.import_module = _import_and_replace  # type: ignore[assignment]


def _import_and_replace(name: str, package: str | None = None) -> ModuleType:
    module = _import_module(name, package)
    with _lock:  # a module that another thread has just imported is not to be used before it is replaced
        for ending, replace in _REPLACED.items():
            if module.__name__.endswith(ending) and module.__name__ not in _done:
                _done.add(module.__name__)
                replace(module)
    return module


def _recorded(launch: Callable[..., Any]) -> Callable[..., Any]:
    """A launch that checks its arguments, puts results on the device and is part of a graph."""

    def run(*args: Any, **kwargs: Any) -> Any:
        for leaf in pytree.tree_leaves((args, kwargs)):
            assert not isinstance(leaf, Tensor) or MEMORY.holds(leaf), "a kernel is given memory of the CPU"

        def compute(*args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes():
                return launch(*args, **kwargs)

        result = compute(*args, **kwargs)
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                MEMORY.mark(leaf)
        if Graph.recording is not None:
            Graph.recording.record(compute, args, kwargs, result)
        return result

    return run


def _float32(tensor: Tensor | None) -> Tensor | None:
    """A copy on the CPU."""
    return None if tensor is None else tensor.detach().to(torch.float32, copy=True)


def _replace_deform_conv(triton: ModuleType) -> None:
    launch, operators = triton.launch, triton.ops
    package = sys.modules[str(triton.__package__)]
    epilogue_of, reference = launch.Epilogue, package.load("embedding_bag").run

    def convolve(
        out: Tensor, x: Tensor, offset: Tensor, weight: Tensor, mask: Any, geometry: Any, epilogue: Any
    ) -> None:
        exact = epilogue_of(_float32(epilogue.bias), epilogue.activation, _float32(epilogue.projection))
        with torch.no_grad():
            y = reference(_float32(x), _float32(offset), _float32(weight), _float32(mask), geometry, exact)
            out.copy_(y if epilogue.into is None else out + y)

    def gradients(by_out: Tensor, *tensors: Tensor | None, geometry: Any) -> list[Tensor | None]:
        found: list[Tensor | None] = []

        def compute() -> None:
            leaves = [None if tensor is None else _float32(tensor).requires_grad_() for tensor in tensors]  # type: ignore[union-attr]
            y = reference(*leaves, geometry, epilogue_of())
            some = iter(torch.autograd.grad(y, [leaf for leaf in leaves if leaf is not None], _float32(by_out)))
            found.extend(None if leaf is None else next(some) for leaf in leaves)

        thread = threading.Thread(target=compute)  # an operator has no gradients in its own thread
        thread.run = lambda: _run_thread(thread)  # type: ignore[method-assign]
        thread.start()
        thread.join()
        return found

    def backward_samples(
        by_out: Tensor, x: Tensor, offset: Tensor, weight: Tensor, mask: Any, geometry: Any, wanted: Any = (True, True)
    ) -> tuple[Tensor, ...]:
        by_x, by_offset, _, by_mask = gradients(by_out, x, offset, weight, mask, geometry=geometry)
        assert by_x is not None and by_offset is not None
        by_mask = by_offset[:, ::2] if by_mask is None else by_mask  # that of no mask is not used
        return by_x, by_offset.to(offset.dtype), by_mask.to(offset.dtype, copy=True)

    def backward_weight(
        by_out: Tensor, x: Tensor, offset: Tensor, weight: Tensor, mask: Any, geometry: Any
    ) -> Tensor | None:
        return gradients(by_out, x, offset, weight, mask, geometry=geometry)[2]

    launch.INTERPRETED = False  # what says so would be refused on a GPU
    launch.convolve = _recorded(convolve)
    launch.backward_samples, launch.backward_weight = _recorded(backward_samples), _recorded(backward_weight)
    for name in ("deform_conv2d", "deform_conv2d_out", "deform_conv2d_backward"):
        OPERATORS[name] = getattr(operators, name)._init_fn


def _replace_attention(triton: ModuleType) -> None:
    attention = sys.modules[f"{triton.__package__}.window_attention"]

    def launch(
        kernel: Any, qkv: Tensor, qkv_bias: Tensor, relative_bias: Tensor, window: int, shift_y: int, shift_x: int,
        num_heads: int, settings: Any = None,
    ) -> Tensor:  # fmt: skip
        exact = [_float32(tensor) for tensor in (qkv, qkv_bias, relative_bias)]
        options = {"window": window, "num_heads": num_heads, "shift": (shift_y, shift_x)}
        with torch.no_grad():
            return attention.window_attention(*exact, **options).to(qkv.dtype)

    triton._launch = _recorded(launch)


_REPLACED = {".ops.deform_backends.triton": _replace_deform_conv, ".ops._window_attention_triton": _replace_attention}
