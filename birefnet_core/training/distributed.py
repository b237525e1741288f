"""Several processes, by ``torch.distributed``.

Started by ``torchrun --nproc-per-node N train/finetune.py ...``. Without it there is a single process, for which
everything here does nothing.

An error in one process, interrupts included, is written to the store through which the processes found each other. The
others raise it too, where they wait for that process or when a collective fails because it has gone.
"""

from __future__ import annotations

import builtins
import contextlib
import datetime
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .. import errors, stop_signal
from ..errors import ConfigError, TrainingError
from ..torchrun import current_process

# Time limit of a collective on tensors: of gradients and losses, for which all processes have the same work.
PROCESS_GROUP_TIMEOUT = datetime.timedelta(minutes=10)
# Waiting for another process's validation or files is not limited: its end is noticed without a time limit.
CONTROL_TIMEOUT = datetime.timedelta(days=7)
Result = TypeVar("Result")
_WATCH_SECONDS = 0.2  # between checks for errors of other processes
_POLL_SECONDS = 0.02  # between checks whether all processes have reached a barrier
_GRACE_SECONDS = 5.0  # a process with an error stays so long for the others to read it: the store may end with it


class Ranks:
    """The processes of a training.

    Args:
        rank: Of this process.
        world_size: Number of processes.
        device: What this process computes on.
        store: Of the processes; None for a single one.
    """

    def __init__(
        self,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        store: dist.Store | None = None,
    ) -> None:
        self.rank, self.world_size, self.device = rank, world_size, torch.device(device)
        self._failure: BaseException | None = None
        self._store = store
        self._closed = threading.Event()
        if store is not None:
            self._control: Any = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
            self._watcher = threading.Thread(target=self._watch, args=(store,), daemon=True)
            self._watcher.start()

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        if self.world_size == 1:
            return list(values)
        sums = torch.tensor(values, device=self.device, dtype=torch.float32)
        dist.all_reduce(sums)
        return sums.tolist()

    def in_all(self, call: Callable[[], Result]) -> Result:
        """Calls something in every process. Where it fails in one, no process goes on to wait for that one's gradients.

        Raises:
            Exception: What was raised in this process, or else in another one.
        """
        if self.world_size == 1:
            return call()
        try:
            result = call()
        except Exception:
            with contextlib.suppress(RuntimeError):  # another process has gone, too
                self.all_reduce_sum([1.0])
            raise
        if self.all_reduce_sum([0.0])[0]:
            self.barrier()  # raises the error of the other process
        return result

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites the tensors of every process by those of the main one."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def all_gather_object(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        self.barrier()
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def broadcast_object(self, value: Any) -> Any:
        """The value of the main process."""
        if self.world_size == 1:
            return value
        self.barrier()
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._control)
        return values[0]

    def barrier(self) -> None:
        """Waits until all processes are here, however long that takes.

        Raises:
            Exception: Whatever ended another process.
        """
        if self.world_size == 1:
            return
        work: Any = dist.barrier(self._control, async_op=True)
        while not work.is_completed():
            self.raise_failure()
            time.sleep(_POLL_SECONDS)
        work.wait()
        self.raise_failure()

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[bool]:
        """A block that the main process runs before all others.

        Yields:
            Whether this process is the main one.
        """
        if not self.is_main:
            self.barrier()
        yield self.is_main
        if self.is_main:
            self.barrier()

    def raise_failure(self) -> None:
        """Raises the error of another process, if there is one. Cheap enough for every iteration of a loop."""
        if self._failure is not None:
            raise self._failure

    def first_failure(self, error: BaseException) -> BaseException:
        """Tells the other processes of an error, and returns the one that came first in any of them."""
        if self._store is None or self._failure is not None:
            return self._failure or error
        own = _encode(error)
        try:
            first = self._store.compare_set("failure", "", own)
            self._store.add("failures", 1)
            end = time.monotonic() + _GRACE_SECONDS
            while self._store.add("noticed", 0) < self.world_size and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
        except RuntimeError:  # the store has gone with another process
            return self._failure or error
        return error if first == own.encode() else _decode(first)

    def close(self) -> None:
        """Leaves the processes."""
        if self._store is not None:
            self._closed.set()
            self._watcher.join(_GRACE_SECONDS)
            dist.destroy_process_group()

    def _watch(self, store: dist.Store) -> None:
        """Checks for errors of other processes, in a thread: the main thread may be blocked by a collective."""
        with contextlib.suppress(RuntimeError):  # the store has gone with another process
            while not self._closed.wait(_WATCH_SECONDS):
                if store.add("failures", 0):
                    self._failure = _decode(store.get("failure"))
                    store.add("noticed", 1)
                    return


SINGLE_PROCESS = Ranks()


@contextlib.contextmanager
def init_distributed(device: torch.device) -> Iterator[Ranks]:
    """Joins the processes that torchrun started, and leaves them at the end.

    Args:
        device: Of this process; "cuda" becomes the GPU of its local rank.

    Raises:
        ConfigError: More processes on a machine than it has GPUs.
        Exception: Whatever ended another process.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks(device=device)
        return
    if device.type == "cuda":
        local = current_process().local_rank
        if local >= torch.cuda.device_count():
            raise ConfigError(f"process {local} has no GPU: this machine has {torch.cuda.device_count()}.")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    store, rank, world_size = next(dist.rendezvous("env://"))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore("process_group", store),
        rank=rank, world_size=world_size, timeout=PROCESS_GROUP_TIMEOUT,
    )  # fmt: skip
    ranks = Ranks(rank, world_size, device, dist.PrefixStore("failures", store))
    try:
        yield ranks
    except BaseException as error:
        first = ranks.first_failure(error)
        if first is error:
            raise
        raise first from error
    finally:
        ranks.close()


def _encode(error: BaseException) -> str:
    """An error as text: the name of its type and its arguments."""
    try:
        return json.dumps([type(error).__name__, error.args])
    except TypeError:
        return json.dumps([type(error).__name__, [str(error)]])


def _decode(text: bytes) -> BaseException:
    """The error, if it is one of this package's or Python's; else a TrainingError that names its type."""
    name, arguments = json.loads(text)
    kind = next((getattr(m, name) for m in (errors, stop_signal, builtins) if hasattr(m, name)), None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        with contextlib.suppress(TypeError):
            return kind(*arguments)
    return TrainingError(f"{name}: {', '.join(map(str, arguments))}")
