"""What Python sees of the device: ``torch.cuda``, and attributes and methods of tensors."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from . import graphs
from .dispatch import MODE, move
from .graphs import CUDA
from .memory import MEMORY, TOTAL

CAPABILITY = 9, 0  # compute capability

_device, _to, _numpy = Tensor.device, Tensor.to, Tensor.numpy


def _device_of(tensor: Tensor) -> torch.device:
    return CUDA if MEMORY.holds(tensor) else _device.__get__(tensor)


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, device: torch.device, options: dict) -> Tensor:
        ctx.before = tensor.device, tensor.dtype
        return move(tensor, device, **options)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient.to(*ctx.before), None, None


def to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``Tensor.to``."""
    rest, device, dtype = list(args), kwargs.pop("device", None), kwargs.pop("dtype", None)
    if rest and isinstance(rest[0], Tensor):
        other = rest.pop(0)
        device, dtype = other.device, other.dtype
    elif rest and (rest[0] is None or isinstance(rest[0], str | int | torch.device)):
        device = rest.pop(0)
    if rest and isinstance(rest[0], torch.dtype):
        dtype = rest.pop(0)
    options = {**dict(zip(("non_blocking", "copy"), rest, strict=False)), **kwargs}
    options = {name: value for name, value in options.items() if value is not None}
    device = tensor.device if device is None else torch.device(device)
    options["dtype"] = dtype or tensor.dtype
    if device.type not in ("cpu", "cuda"):
        return _to(tensor, device, **options)
    if (device.type == "cuda") == MEMORY.holds(tensor):
        return _to(tensor, **options)
    options.pop("copy", None)
    if torch.is_grad_enabled() and tensor.requires_grad:
        return _Move.apply(tensor, device, options)
    return move(tensor, device, **options)


def _to_numpy(tensor: Tensor, **options: Any) -> Any:
    if MEMORY.holds(tensor):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first.")
    return _numpy(tensor, **options)


def _made_on_the_cpu(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """For functions that make tensors of numbers of Python, which C++ does without asking the dispatcher."""

    def make(data: Any, *args: Any, device: Any = None, **options: Any) -> Tensor:
        tensor = function(data, *args, **options)
        return tensor if device is None else to(tensor, device)

    return make


def _new_tensor(tensor: Tensor, data: Any, *, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
    return torch.tensor(data, dtype=dtype or tensor.dtype, device=device or tensor.device, **options)


def install() -> None:
    """Replaces the functions, for the whole process."""
    _install_tensors()
    _install_torch_cuda()
    _install_autocast()
    run = threading.Thread.run

    def run_on_the_device(thread: threading.Thread) -> None:  # modes belong to one thread
        with MODE:
            run(thread)

    threading.Thread.run = run_on_the_device  # type: ignore[method-assign]


def _install_tensors() -> None:
    Tensor.device, Tensor.is_cuda = property(_device_of), property(MEMORY.holds)
    Tensor.is_cpu = property(lambda tensor: tensor.device.type == "cpu")
    Tensor.get_device = lambda tensor: 0 if MEMORY.holds(tensor) else -1
    Tensor.to, Tensor.numpy, Tensor.new_tensor = to, _to_numpy, _new_tensor
    Tensor.cpu = lambda tensor, **options: to(tensor, "cpu", **options)
    Tensor.cuda = lambda tensor, device=None, non_blocking=False, **options: to(tensor, CUDA, **options)
    Tensor.pin_memory = lambda tensor, device=None: tensor
    torch.tensor, torch.as_tensor = _made_on_the_cpu(torch.tensor), _made_on_the_cpu(torch.as_tensor)
    generator = torch.Generator
    torch.Generator = lambda device="cpu": generator()  # type: ignore[assignment,misc]


def _allocator() -> str:
    """What the environment asks for, as ComfyUI's does on most cards."""
    options = os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
    return "cudaMallocAsync" if "cudaMallocAsync" in options else "native"


def _properties(device: Any = None) -> SimpleNamespace:
    major, minor = CAPABILITY
    return SimpleNamespace(name="Emulated", major=major, minor=minor, total_memory=TOTAL, multi_processor_count=132)


def _statistics(device: Any = None) -> dict:
    in_use = {"all": {"current": MEMORY.count()}}
    return {"reserved_bytes": in_use, "allocated_bytes": in_use, "active_bytes": in_use}


def _flat_statistics(device: Any = None) -> dict:
    return {f"{name}.all.current": value["all"]["current"] for name, value in _statistics().items()}


def _summary(device: Any = None, abbreviated: bool = False) -> str:
    return f"{MEMORY.count()} bytes in use, {MEMORY.peak} at the peak, of {MEMORY.limit}"


def _reset_peak(device: Any = None) -> None:
    MEMORY.peak = MEMORY.count()


def _set_limit(fraction: float, device: Any = None) -> None:
    MEMORY.limit = int(fraction * TOTAL)


def _synchronize(device: Any = None) -> None:
    graphs.forbid_while_capturing("synchronize")


@contextlib.contextmanager
def _nothing(*_: Any) -> Iterator[None]:
    yield


def _install_torch_cuda() -> None:
    replaced = {
        "_lazy_init": lambda: None, "is_available": lambda: True, "is_initialized": lambda: True,
        "device_count": lambda: 1, "current_device": lambda: 0, "set_device": lambda device: None,
        "device": _nothing, "device_of": _nothing, "get_device_name": lambda device=None: "Emulated",
        "get_device_capability": lambda device=None: CAPABILITY, "get_device_properties": _properties,
        "get_allocator_backend": _allocator, "is_bf16_supported": lambda *_, **__: True,
        "mem_get_info": lambda device=None: (MEMORY.limit - MEMORY.count(), TOTAL),
        "memory_allocated": lambda device=None: MEMORY.count(), "memory_reserved": lambda device=None: MEMORY.count(),
        "max_memory_allocated": lambda device=None: MEMORY.peak, "reset_peak_memory_stats": _reset_peak,
        "max_memory_reserved": lambda device=None: MEMORY.peak, "memory_stats": _flat_statistics,
        "memory_stats_as_nested_dict": _statistics, "set_per_process_memory_fraction": _set_limit,
        "empty_cache": lambda: None, "ipc_collect": lambda: None, "synchronize": _synchronize,
        "manual_seed": lambda seed: None, "manual_seed_all": lambda seed: None,
        "Stream": graphs.Stream, "Event": graphs.Event, "stream": graphs.use_stream,
        "current_stream": lambda device=None: graphs.Stream.current, "CUDAGraph": graphs.Graph,
        "default_stream": lambda device=None: graphs.Stream.current, "graph": graphs.graph,
        "graph_pool_handle": lambda: (0, 1), "is_current_stream_capturing": graphs.Stream.current.is_capturing,
        "default_generators": [SimpleNamespace(graphsafe_set_state=lambda state: None, clone_state=lambda: None)],
    }  # fmt: skip
    for name, value in replaced.items():
        setattr(torch.cuda, name, value)
    # ComfyUI prints it where memory ran out, and takes it from the module.
    torch.cuda.memory_summary = torch.cuda.memory.memory_summary = _summary
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool", "_cuda_clearCublasWorkspaces"):
        setattr(torch._C, name, lambda *_: None)
    accelerator = {
        "is_available": lambda: True, "device_count": lambda: 1, "synchronize": _synchronize,
        "current_accelerator": lambda *_, **__: torch.device("cuda"), "current_device_index": lambda: 0,
        "set_device_index": lambda index: None, "current_stream": lambda device=None: graphs.Stream.current,
    }  # fmt: skip
    for name, value in accelerator.items():
        setattr(torch.accelerator, name, value)


def _install_autocast() -> None:
    """That of the device is that of the CPU, whose operations it is made of."""
    autocast = torch.autocast

    class Autocast(autocast):  # type: ignore[misc,valid-type]
        def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True, **options: Any) -> None:
            if device_type == "cuda":
                device_type, dtype = "cpu", dtype or torch.float16
            super().__init__(device_type, dtype=dtype, enabled=enabled, **options)

    torch.autocast = torch.amp.autocast = torch.amp.autocast_mode.autocast = Autocast  # type: ignore[misc]
    for name in ("is_autocast_enabled", "get_autocast_dtype"):
        function = getattr(torch, name)
        setattr(torch, name, lambda device="cuda", f=function: f("cpu" if device == "cuda" else device))
    torch.amp.is_autocast_available = lambda device: device in ("cpu", "cuda")
