"""Several processes, on torch's own engine.

Started by ``torchrun --nproc-per-node N train/finetune.py ...``; a process started by itself is a world of one, for
which everything here does nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ConfigError

# A process that waits longer for the others takes them for dead. Preflight and saving take far less.
PATIENCE = datetime.timedelta(minutes=10)


class World:
    """The processes of a training.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        device: What this process computes on.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, device=self.device, dtype=torch.float32)
        dist.all_reduce(sums)
        return sums.tolist()

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process the first one's values."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def gather(self, value: Any) -> list[Any]:
        """What every process has, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        """What the first process has."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    @contextlib.contextmanager
    def first_does(self) -> Iterator[bool]:
        """A block that only the first process runs; the others wait, and fail if it does.

        Yields:
            Whether this process is the one.
        """
        failure: BaseException | None = None
        try:
            yield self.first
        except Exception as error:
            failure = error
        told = self.share(None if failure is None else str(failure))
        if failure is not None:
            raise failure
        if told is not None:
            raise ConfigError(f"the first process stopped: {told}")


@contextlib.contextmanager
def world(device: torch.device) -> Iterator[World]:
    """Joins the processes that torchrun started, and leaves them at the end.

    Args:
        device: Of this process; "cuda" becomes the GPU of its own.

    Raises:
        ConfigError: More processes on a machine than it has GPUs.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield World(0, 1, device)
        return
    rank, size, local = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ConfigError(f"process {local} has no GPU: this machine has {torch.cuda.device_count()}.")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()
