"""Makes a failing case smaller as long as it fails in the same way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .mutations import Mutation, apply

_MOST_BYTES = 1 << 16  # of a file from which single bytes are taken


def fewer_mutations(source: bytes, mutations: Sequence[Mutation], suffix: str, fails: Callable[[bytes], bool]) -> list:
    """Leaves out mutations that the failure does not need.

    Args:
        source: The sound file.
        mutations: What was done to it.
        suffix: Its ending.
        fails: Whether a file fails in the same way.
    """
    kept = list(mutations)
    for mutation in mutations:
        fewer = list(kept)
        fewer.remove(mutation)
        if fails(apply(source, fewer, suffix)):
            kept = fewer
    return kept


def fewer_bytes(content: bytes, fails: Callable[[bytes], bool], seconds: float) -> bytes:
    """Cuts off the end, and takes out blocks of ever smaller sizes, from large ones down to single bytes.

    Args:
        content: A file that fails.
        fails: Whether a file fails in the same way.
        seconds: How long to try.
    """
    end = time.monotonic() + seconds
    size = len(content) // 2
    while size and time.monotonic() < end:
        start = len(content) - size
        while start >= 0 and time.monotonic() < end:
            shorter = content[:start] + content[start + size :]
            if fails(shorter):
                content = shorter
            start -= size
        size = min(size // 2, len(content) // 2)
        if size < 256 and len(content) > _MOST_BYTES:
            break
    return content
