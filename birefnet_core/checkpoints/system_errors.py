"""What torch and safetensors make of errors of the system: such a file is not damaged."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import BiRefNetError, CheckpointError, MemoryLimitError
from ..text import first_line

_NO_MEMORY = re.compile(  # 8, 14 and 1455 are numbers of Windows: the last is "The paging file is too small"
    r"allocate memory|not enough memory|bad_alloc|start new thread|os error (8|12|14|1455)\)", re.IGNORECASE
)
_WANTED = re.compile(r"tried to allocate (\d+) bytes")
_MOST = 8  # times its size, what reading a file may want at once: more is damage
_NOT_READ = re.compile(r"os error \d+\)|unable to (open|mmap|stat)")


def system_error(path: Path, error: BaseException) -> BiRefNetError | None:
    """The error to raise for one that ended the reading of a file, None where it is not the system's.

    Args:
        path: The file.
        error: Of any class; libraries put the system's words into errors of their own.
    """
    if isinstance(error, BiRefNetError):
        return None
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        size, wanted = path.stat().st_size, _WANTED.search(str(error))
        if wanted and int(wanted[1]) > _MOST * size:
            return None
        return MemoryLimitError(
            f"{path}: too little memory to read this file of {size / 2**20:.0f} MiB ({first_line(error)}). Close other "
            "programs, give the system more virtual memory (swap, page file), or take a smaller checkpoint."
        )
    if _NOT_READ.search(str(error)):
        return CheckpointError(f"{path}: cannot be read ({first_line(error)}). Try again, or copy it to another disk.")
    return None
