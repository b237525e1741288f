"""CUDA graphs, streams and events: one stream, on which everything is done when it is called."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

CUDA = torch.device("cuda", 0)


def forbid_while_capturing(what: str) -> None:
    """Ends a capture that waits for the device, as CUDA does."""
    if Graph.recording is not None:
        Graph.recording.broken = True
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")


class Graph:
    """``torch.cuda.CUDAGraph``: operations with the memory they read and wrote, done again by ``replay``.

    Attributes:
        recording: The graph that is being captured, of all.
    """

    recording: Graph | None = None

    def __init__(self, keep_graph: bool = False) -> None:
        self.broken = False
        self._steps: list[Callable[[], None]] = []

    def record(self, function: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
        """Notes a call. When it is done again, what it returns takes the place of the result."""

        def again() -> None:
            found = pytree.tree_leaves(function(*args, **kwargs))
            for new, old in zip(found, pytree.tree_leaves(result), strict=True):
                if isinstance(new, Tensor) and new.data_ptr() != old.data_ptr():
                    old.copy_(new)

        self._steps.append(again)

    def capture_begin(self, *_: Any, **__: Any) -> None:
        """Records from now on."""
        if Graph.recording is not None:
            raise RuntimeError("a graph is being captured already")
        Graph.recording = self

    def capture_end(self) -> None:
        """Ends recording."""
        Graph.recording = None
        if self.broken:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def replay(self) -> None:
        """Does all again."""
        assert self._steps, "nothing was captured, or it was reset"
        with _disable_current_modes(), torch.no_grad():
            for step in self._steps:
                step()

    def reset(self) -> None:
        """Frees its memory."""
        self._steps = []

    def pool(self) -> tuple[int, int]:
        """That of ``graph_pool_handle``."""
        return 0, 1


@contextlib.contextmanager
def graph(
    cuda_graph: Graph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"
) -> Iterator[None]:
    """``torch.cuda.graph``."""
    forbid_while_capturing("synchronize")
    cuda_graph.capture_begin()
    try:
        yield
    finally:
        cuda_graph.capture_end()


class Stream:
    """``torch.cuda.Stream``."""

    device = CUDA
    current: Stream

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        pass

    def wait_stream(self, stream: Stream) -> None:
        """Everything is done already."""

    def wait_event(self, event: Event) -> None:
        """Everything is done already."""

    def synchronize(self) -> None:
        """Everything is done already."""
        forbid_while_capturing("synchronize")

    def is_capturing(self) -> bool:
        """Whether a graph is being captured."""
        return Graph.recording is not None


Stream.current = Stream()


@contextlib.contextmanager
def use_stream(stream: Stream | None) -> Iterator[None]:
    """``torch.cuda.stream``."""
    before, Stream.current = Stream.current, stream or Stream.current
    try:
        yield
    finally:
        Stream.current = before


class Event:
    """``torch.cuda.Event``."""

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        self.seconds = 0.0

    def record(self, stream: Stream | None = None) -> None:
        """Notes the time."""
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        """Everything is done already."""
        forbid_while_capturing("synchronize")

    def elapsed_time(self, other: Event) -> float:
        """Milliseconds."""
        return 1000 * (other.seconds - self.seconds)
