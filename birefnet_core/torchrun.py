"""What torchrun tells each of the processes it starts."""

from __future__ import annotations

import os
from typing import NamedTuple


class TorchrunProcess(NamedTuple):
    """This process's place; rank 0 of 1 without torchrun."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def current_process() -> TorchrunProcess:
    """Reads the environment torchrun sets; a single process where it does not."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return TorchrunProcess()
    return TorchrunProcess(*(int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
