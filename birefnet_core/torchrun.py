"""What torchrun tells each of the processes it starts, and how they wait for each other without a process group."""

from __future__ import annotations

import datetime
import json
import os
import time
from types import TracebackType
from typing import Any, NamedTuple

from .errors import ConfigError
from .text import first_line, printable

_TIMEOUT = datetime.timedelta(days=7)  # one process may have much more to do than another
_POLL_SECONDS = 0.05
_GRACE_SECONDS = 10.0  # the process that holds the store stays so long for the others to leave


class TorchrunProcess(NamedTuple):
    """This process's place; rank 0 of 1 without torchrun."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def current_process() -> TorchrunProcess:
    """Reads the environment torchrun sets; a single process where it does not.

    Raises:
        ConfigError: It holds what torchrun does not set: no numbers, or a rank beyond the number of processes.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return TorchrunProcess()
    found = {name: os.environ.get(name, "0") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    try:
        process = TorchrunProcess(*map(int, found.values()))
    except ValueError:
        process = None
    if process is None or not (0 <= process.rank < process.world_size and process.local_rank >= 0):
        listed = " ".join(f"{name}={printable(value)}" for name, value in found.items())
        raise ConfigError(
            f"the environment has {listed}, expected the numbers of one of torchrun's processes: RANK from 0 to "
            "WORLD_SIZE - 1. Start with torchrun, or unset RANK and WORLD_SIZE."
        )
    return process


class ProcessStore:
    """The key-value store through which torchrun's processes found each other; a context manager.

    A process that ended earlier than others with an exit code above 0 would have torchrun end those. A single process,
    and processes that were told no address, do not wait.

    Raises:
        ConfigError: The environment is not torchrun's, or nobody answers at its address.
    """

    def __init__(self) -> None:
        self.rank, self.world_size, self.local_rank = current_process()
        self._store: Any = None
        if self.world_size > 1 and "MASTER_ADDR" in os.environ:
            import torch.distributed as dist  # here, because reading the environment needs no torch

            try:
                self._store = next(dist.rendezvous("env://", timeout=_TIMEOUT))[0]
            except (ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"the processes cannot meet at MASTER_ADDR and MASTER_PORT ({first_line(error)}). Start with "
                    "torchrun, or unset RANK and WORLD_SIZE."
                ) from error

    def all_gather(self, name: str, value: Any = None) -> list[Any]:
        """Waits for all processes; their values, in the order of their ranks.

        Args:
            name: Of this meeting; each is used once.
            value: This process's, of types JSON has.
        """
        if self._store is None:
            return [value]
        self._store.set(f"{name}/{self.rank}", json.dumps(value))
        keys = [f"{name}/{rank}" for rank in range(self.world_size)]
        while not self._store.check(keys):  # not wait(), during which no signal is handled
            time.sleep(_POLL_SECONDS)
        return [json.loads(self._store.get(key)) for key in keys]

    def __enter__(self) -> ProcessStore:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._store is None or error is not None:
            return
        end = time.monotonic() + _GRACE_SECONDS
        try:
            self._store.add("left", 1)
            while self.rank == 0 and self._store.add("left", 0) < self.world_size and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
        except RuntimeError:  # the store has gone with the process that held it
            return
