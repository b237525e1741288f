"""Errors as ComfyUI's page shows them: the type, then the message, cut after about a hundred characters.

ComfyUI writes an error's module before its name, and the module of a pack is the path of its folder, so that nothing
of the message would be left. What matters stands at the beginning of our messages.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..birefnet_core.errors import BiRefNetError


def readable_errors(execute: Callable[..., Any]) -> Callable[..., Any]:
    """A node's execute whose errors are shown without a module path. Others than those of this pack pass unchanged."""

    @functools.wraps(execute)
    def run(*args: Any, **inputs: Any) -> Any:
        try:
            return execute(*args, **inputs)
        except BiRefNetError as error:
            raise _without_module(type(error))(_name_first(str(error))) from error

    run.errors_are_readable = True  # type: ignore[attr-defined]
    return run


@functools.cache
def _without_module(kind: type[BiRefNetError]) -> type[BiRefNetError]:
    """The same error, which ComfyUI calls "BiRefNet", without a module as it does Python's own."""
    return type("BiRefNet", (kind,), {"__module__": "builtins"})


def _name_first(message: str) -> str:
    """A message that begins with the path of a file, with the file's name there and its folder at the end."""
    path, separator, rest = message.partition(": ")
    if not separator or not os.path.isabs(path):
        return message
    return f"{Path(path).name}: {rest} The file is in {Path(path).parent}."
