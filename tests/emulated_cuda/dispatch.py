"""Operations on tensors of the device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .graphs import Graph, forbid_while_capturing
from .memory import MEMORY

aten = torch.ops.aten

WAITING = {  # for a number or a size that the device computes
    aten.item.default, aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default,
    aten.equal.default, aten.is_nonzero.default,
}  # fmt: skip
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}

# Operators of the project, by name: with kernels of their own, which torch would not find for this device.
OPERATORS: dict[str, Callable[..., Any]] = {}

_moving = threading.local()


def move(tensor: Tensor, device: torch.device, **options: Any) -> Tensor:
    """A copy on the other kind of device.

    Args:
        tensor: The tensor.
        device: Where to.
        options: Of ``aten._to_copy``.
    """
    _moving.now = True
    try:
        return aten._to_copy.default(tensor, device=device, **options)
    finally:
        _moving.now = False


class EmulatedCuda(TorchDispatchMode):
    """Marks what operations on marked tensors make, and checks that all they read is marked."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func.namespace == "birefnet":
            with self:
                return OPERATORS[func.__name__.partition(".")[0]](*args, **kwargs)
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        to_device = self._destination(func, args, kwargs)
        here = any(map(MEMORY.holds, tensors))
        backward = torch._C._current_graph_task_id() != -1
        if not here and not to_device:
            result = func(*args, **kwargs)
            if backward:  # C++ makes zeros for gradients where it thinks that they are: on the CPU
                self._each(result, MEMORY.mark_later)
            return result
        if func is aten._has_compatible_shallow_copy_type.default:  # of the CPU and CUDA, as in truth
            return func(*args, **kwargs)
        if here:
            self._each(tensors, MEMORY.mark_if_unclear)
        crossing = to_device is not None and func is aten._to_copy.default and MEMORY.holds(args[0]) != to_device
        if func is aten.copy_.default:
            crossing = MEMORY.holds(args[0]) != MEMORY.holds(args[1])
        elif here and not crossing and not backward:
            self._check(func, tensors)
        if crossing or func in WAITING:
            forbid_while_capturing(str(func))
        try:
            result = func(*args, **kwargs)
        except RuntimeError as error:
            if "can't allocate memory" in str(error):  # not even as much as the machine has
                raise torch.OutOfMemoryError("CUDA out of memory.") from error
            raise
        if func is aten.copy_.default and not MEMORY.holds(args[0]):
            return result
        if to_device is False:
            return pytree.tree_map_only(Tensor, lambda t: t.clone() if MEMORY.holds(t) else t, result)
        self._each(result, MEMORY.mark)
        if Graph.recording is not None:
            Graph.recording.record(func, args, kwargs, result)
        return result

    @staticmethod
    def _destination(func: Any, args: tuple, kwargs: dict) -> bool | None:
        """Whether the result is to be on the device; None where that follows from what is read. Mends ``kwargs``."""
        device = kwargs.get("device")
        if device is None:
            return None
        if torch.device(device).type == "cuda":
            kwargs["device"] = torch.device("cpu")
            return True
        if getattr(_moving, "now", False):
            return False
        # C++ names the CPU, where it thinks that a tensor is, in changes of the precision and in the backward pass.
        named = func is aten._to_copy.default or torch._C._current_graph_task_id() != -1
        return None if named and args and MEMORY.holds(args[0]) else False

    @staticmethod
    def _check(func: Any, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            number = tensor.dim() == 0 or tensor.untyped_storage().nbytes() == 0
            index = func in INDEXING and tensor.dtype in (torch.int64, torch.bool)
            if not (MEMORY.holds(tensor) or number or index):
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                    f"({func})"
                )

    @staticmethod
    def _each(values: Any, use: Callable[[Tensor], None]) -> None:
        for value in pytree.tree_leaves(values):
            if isinstance(value, Tensor) and value.layout == torch.strided:
                use(value)


MODE = EmulatedCuda()
