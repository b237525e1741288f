"""Too little memory for a training, said in a sentence: with what less is needed."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ..out_of_memory import out_of_memory_as
from .recipe import Recipe


def memory_as_limit_error(recipe: Recipe) -> AbstractContextManager[None]:
    """Makes it a MemoryLimitError that a device, or a process that reads data, has too little memory."""
    return out_of_memory_as(lambda reason: _message(recipe, reason))


def _message(recipe: Recipe, reason: str) -> str:
    width, height = (max(side, *recipe.dynamic, *recipe.growth, 0) for side in recipe.size)
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
