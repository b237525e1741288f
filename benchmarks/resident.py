"""How much of this process is in memory, from Linux's /proc."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path


def giving_back() -> dict[str, str]:
    """The environment of a process whose malloc (glibc's) gives freed memory back at once.

    So what a process holds is seen, and not what its heap keeps for later: one pass of Swin-T at 1024 x 1024 holds
    101 MiB, and is seen to take 140 to 220 by chance. Slower.
    """
    return {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}


def mebibytes(field: str) -> float:
    """A field of this process's status, such as VmRSS (resident now) or VmHWM (its peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


@dataclasses.dataclass
class Resident:
    """MiB that were resident before some work, and at its peak."""

    before: float
    peak: float = 0.0

    @property
    def above(self) -> float:
        return self.peak - self.before


@contextlib.contextmanager
def watched() -> Iterator[Resident]:
    """Measures what happens inside."""
    found = Resident(mebibytes("VmRSS"))
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    yield found
    found.peak = mebibytes("VmHWM")
