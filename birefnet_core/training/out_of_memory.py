"""Too little memory for a training, said in a sentence: with what less is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..errors import MemoryLimitError
from ..out_of_memory import is_out_of_memory
from .recipe import Recipe


@contextlib.contextmanager
def memory_as_limit_error(recipe: Recipe) -> Iterator[None]:
    """Makes it a MemoryLimitError that a device, or a process that reads data, has too little memory."""
    try:
        yield
    except MemoryLimitError:
        raise
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not is_out_of_memory(error):
            raise
        raise MemoryLimitError(_message(recipe, error)) from error


def _message(recipe: Recipe, error: Exception) -> str:
    width, height = (max(side, *recipe.dynamic, *recipe.growth, 0) for side in recipe.size)
    lines = str(error).splitlines() or ["out of memory"]
    reason = lines[-1 if lines[0].startswith("Caught") else 0].rstrip(". ")  # raised in a worker, with its traceback
    less = [
        "--checkpoint-activations" if not recipe.checkpoint_activations else "",
        f"--batch-size 1 --accumulate {recipe.batch_size * recipe.accumulate}" if recipe.batch_size > 1 else "",
        "--train decoder" if recipe.train == "all" else "",
        "a smaller --size",
    ]
    return (
        f"too little memory for batches of {recipe.batch_size} at {width} x {height} pixels ({reason}). Start a new "
        f"folder with {', or '.join(filter(None, less))}; where other programs had the memory, go on with --resume."
    )
