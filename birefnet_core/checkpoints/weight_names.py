"""Which of several files holds the weights, by their names; in a folder as in a repository of the Hub."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from .catalogue import GENERIC_FILE, PICKLED, SAFETENSORS, SHARD, WEIGHT_SUFFIXES

_ENDINGS = (SAFETENSORS, PICKLED[:2], PICKLED[2:])  # those that are taken first


def weight_files(names: Iterable[str]) -> list[str]:
    """The paths that look like weights, without hidden files and names that lead out of their folder or a line."""
    paths = [PurePosixPath(name) for name in names if name.lower().endswith(WEIGHT_SUFFIXES) and name.isprintable()]
    inside = [p for p in paths if not (p.is_absolute() or ".." in p.parts or "\\" in str(p))]
    return sorted(str(path) for path in inside if not path.name.startswith("."))


def pick_weights(names: Iterable[str], preferred: str = GENERIC_FILE) -> str | None:
    """The one weight file among paths that is meant, or None where there is none or several could be.

    In this order: ``preferred``, or the only file of that name in another folder; ``model.safetensors``, likewise; the
    only safetensors file; the only .pth or .pt file; the only file of another ending.
    """
    weights = weight_files(names)
    for name in (preferred, GENERIC_FILE):
        same = [path for path in weights if PurePosixPath(path).name == PurePosixPath(name).name]
        if name in same or len(same) == 1:
            return name if name in same else same[0]
    by_ending = ([p for p in weights if p.lower().endswith(e)] for e in _ENDINGS)
    found = next(filter(None, by_ending), [])
    return found[0] if len(found) == 1 else None


def first_shard(names: Iterable[str]) -> str | None:
    """The first shard of the only checkpoint among names, or None where there are other weights beside it."""
    by_ending = ([n for n in sorted(names) if n.lower().endswith(e)] for e in _ENDINGS)
    found = [SHARD.fullmatch(name) for name in next(filter(None, by_ending), [])]
    checkpoints = {(shard[1], shard[3]) if shard else None for shard in found}
    return found[0][0] if len(checkpoints) == 1 and found[0] else None
