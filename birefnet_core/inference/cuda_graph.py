"""CUDA graphs: a forward pass recorded once and replayed for later inputs of the same shape.

A pass is thousands of kernels, which a CPU launches more slowly than a GPU runs them. A graph launches them at once.

A graph refers to memory by address. It is captured again when any weight was moved or replaced; weights that were
changed in place are simply read. All graphs share one private memory pool, as large as the largest pass, which
``release`` frees.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..network import BiRefNetOutput
from ..ops.deform_conv import backend_in_use
from ..ops.execution import memory_level
from ..out_of_memory import empty_cache, is_out_of_memory
from ..text import first_line

logger = logging.getLogger(__name__)

MOST_GRAPHS = 4  # whole images and tiles, full batches and the last one
MOST_SEEN = 32  # input shapes remembered without a graph
# Pixels of a pass. Beyond them even an H100 computes longer than its host launches (Swin-L in float16), so that a graph
# gains nothing, and its memory is better left to others.
MOST_PIXELS = 2 * 1024**2
SWITCH = "BIREFNET_CUDA_GRAPHS"

_capturing = threading.Lock()  # CUDA captures one graph at a time in a process

Run = Callable[[Tensor], Tensor]


def graphs_wanted(option: bool | Literal["auto"]) -> bool:
    """Whether an option of Segmenter, or else the environment, allows graphs."""
    return os.environ.get(SWITCH, "1") != "0" if option == "auto" else option


class Graph(Protocol):
    """A captured pass."""

    def replay(self, x: Tensor) -> Tensor:
        """The output for an input of the captured shape, in memory of its own."""

    def reset(self) -> None:
        """Frees its memory."""


class SharedByGraphs(NamedTuple):
    """What the graphs of a network share.

    Attributes:
        pool: Memory pool, from ``torch.cuda.graph_pool_handle``.
        stream: Captured on by all, as the allocator reuses memory of a pool within one stream only.
        done: Recorded after each replay; the next one waits for it, of whichever graph it is.
    """

    pool: Any  # without a public type
    stream: torch.cuda.Stream
    done: torch.cuda.Event


class CudaGraph:
    """A pass captured with ``torch.cuda.CUDAGraph``.

    Args:
        run: The pass; must not wait for the device.
        x: An input of the shape to capture.
        shared: What all graphs of the network share.
    """

    def __init__(self, run: Run, x: Tensor, shared: SharedByGraphs) -> None:
        self._x = x.clone()  # preserves the memory format
        self._graph, self._done = torch.cuda.CUDAGraph(), shared.done
        current, side, pool = torch.cuda.current_stream(x.device), shared.stream, shared.pool
        # The outer context restores the stream where ending a failed capture raises before torch does so.
        with torch.cuda.device(x.device), torch.cuda.stream(current):
            side.wait_stream(current)
            with torch.cuda.stream(side):
                self._y = torch.empty_like(run(self._x))  # sets up what libraries create at first use
            current.wait_stream(side)
            _clear_workspaces()
            try:
                # Other threads of the process may use CUDA meanwhile: "thread_local".
                with torch.cuda.graph(self._graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                    self._y.copy_(run(self._x))
            except BaseException:
                _end_recording(x.device, pool)
                raise
            finally:
                _clear_workspaces()

    def replay(self, x: Tensor) -> Tensor:
        """The output for an input of the captured shape, in memory of its own."""
        stream = torch.cuda.current_stream(x.device)
        stream.wait_event(self._done)  # of the replay before, which may have run on another stream
        self._x.copy_(x)
        self._graph.replay()
        y = self._y.clone()
        self._done.record(stream)
        return y

    def reset(self) -> None:
        """Frees its memory."""
        self._graph.reset()


def _end_recording(device: torch.device, pool: Any) -> None:
    """Ends what torch before 2.12 leaves recording where a capture was invalidated, see pytorch/pytorch#180395.

    Otherwise emptying the allocator's cache would fail from then on, and so would random numbers on the device.
    """
    names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")  # the second before torch 2.7
    end = next((getattr(torch._C, name) for name in names if hasattr(torch._C, name)), None)
    if end is not None:
        with contextlib.suppress(RuntimeError):  # ended already
            end(device.index, pool)
            torch._C._cuda_releasePool(device.index, pool)
    generator = torch.cuda.default_generators[device.index]
    generator.graphsafe_set_state(generator.clone_state())


def _clear_workspaces() -> None:
    """Lets cuBLAS allocate workspaces in the graph's pool, so that they are freed with it; as torch.compile does."""
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()


class CudaGraphs:
    """Captures graphs in one memory pool."""

    def __init__(self) -> None:
        self._shared: SharedByGraphs | None = None

    def unavailable(self, device: torch.device) -> str | None:
        """Why there are no graphs on a device; None where there are."""
        if device.type != "cuda":
            return f"{device.type} has none"
        if torch.cuda.is_current_stream_capturing():
            return "the caller is capturing a graph itself"
        allocator = torch.cuda.get_allocator_backend()
        if allocator != "native":  # memory allocated in a capture has no address yet, which Triton's launcher refuses
            return f"PyTorch allocates with {allocator}, under which Triton's kernels cannot be captured"
        return None

    def capture(self, run: Run, x: Tensor) -> Graph:
        """Captures a pass."""
        shared = self._shared
        if shared is None:
            pool, stream, done = torch.cuda.graph_pool_handle(), torch.cuda.Stream(x.device), torch.cuda.Event()
            shared = SharedByGraphs(pool, stream, done)
        graph = CudaGraph(run, x, shared)
        self._shared = shared  # only now: a pool without graphs must not be used again
        return graph

    def release(self, device: torch.device) -> None:
        """Frees the pool, once all graphs are reset."""
        self._shared = None
        empty_cache(device)


class GraphedNetwork(nn.Module):
    """A network whose passes are replayed from CUDA graphs.

    The first pass of an input shape runs eagerly, as most shapes are never seen again. The second one is captured,
    unless it is of more than ``MOST_PIXELS``. On devices without graphs, and wherever capturing fails, all passes run
    eagerly; the reason is logged once.

    Args:
        network: Takes B, 3, H, W and returns ``.logits``.
        backend: Captures graphs.
    """

    def __init__(self, network: nn.Module, backend: CudaGraphs | None = None) -> None:
        super().__init__()
        self.network = network
        self._backend = backend or CudaGraphs()
        self._graphs: OrderedDict[tuple, Graph] = OrderedDict()  # least recently used first
        self._seen: OrderedDict[tuple, bool] = OrderedDict()  # -> whether it may be captured
        self._tensors: list[Mapping[str, Tensor | None]] = []  # what the graphs read
        self._addresses: list[int] = []
        self._impossible = False
        self._lock = threading.Lock()

    @torch.inference_mode()
    def forward(self, x: Tensor) -> BiRefNetOutput:
        """B, 3, H, W -> BiRefNetOutput with logits in memory of their own."""
        large = x[:, 0].numel() > MOST_PIXELS
        if large or self._impossible:
            return self.network(x)
        reason = self._backend.unavailable(x.device)
        if reason is not None:
            if x.device.type == "cuda":
                _log_once(reason)
            return self.network(x)
        with self._lock:
            if self._graphs and self._addresses != _addresses(self._tensors):
                self._release()
            autocast = torch.is_autocast_enabled(x.device.type) and torch.get_autocast_dtype(x.device.type)
            key = (tuple(x.shape), x.dtype, x.device, x.stride(), memory_level(), backend_in_use(), autocast)
            graph = self._graphs.get(key)
            if graph is None and self._seen_before(key):
                graph = self._capture(key, x)
            if graph is not None:
                self._graphs.move_to_end(key)
                return BiRefNetOutput(graph.replay(x))
        return self.network(x)

    def release(self) -> bool:
        """Drops all graphs and frees their memory.

        Returns:
            Whether there were any.
        """
        with self._lock:
            return self._release()

    def _release(self) -> bool:
        graphs, self._graphs = self._graphs, OrderedDict()
        self._seen.clear()
        for graph in graphs.values():
            graph.reset()
        if graphs:
            self._backend.release(next(self.network.parameters()).device)
        return bool(graphs)

    def _seen_before(self, key: tuple) -> bool:
        """Whether a key comes again and may be captured."""
        if key in self._seen:
            self._seen.move_to_end(key)
            return self._seen[key]
        self._seen[key] = True
        if len(self._seen) > MOST_SEEN:
            self._seen.popitem(last=False)
        return False

    def _capture(self, key: tuple, x: Tensor) -> Graph | None:
        """A new graph; None where it does not fit into memory or cannot be captured."""
        while len(self._graphs) >= MOST_GRAPHS:
            self._graphs.popitem(last=False)[1].reset()
        try:
            with _capturing:
                graph = self._backend.capture(lambda x: self.network(x).logits, x)
        except RuntimeError as error:
            reason, full = first_line(error), is_out_of_memory(error)
        else:
            self._graphs[key] = graph
            modules = list(self.network.modules())
            self._tensors = [tensors for m in modules for tensors in (m._parameters, m._buffers) if tensors]
            self._addresses = _addresses(self._tensors)
            return graph
        # Outside the except block: the error's traceback holds the activations.
        self._release()
        empty_cache(x.device)
        self._seen[key] = False
        if full:
            logger.warning("too little memory for a CUDA graph of %s: running without", tuple(x.shape))
        else:
            self._impossible = True
            logger.warning("a CUDA graph could not be captured (%s): running without", reason)
        return None


@functools.cache
def _log_once(reason: str) -> None:
    logger.info("running without CUDA graphs: %s", reason)


def _addresses(tensors: Iterable[Mapping[str, Tensor | None]]) -> list[int]:
    """Where tensors are; 0.05 ms for those of Swin-L, so that it can be compared before each replay."""
    return [tensor.data_ptr() for named in tensors for tensor in named.values() if tensor is not None]
