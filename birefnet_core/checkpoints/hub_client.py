"""The Hub's client, which reads its settings from the environment when it is imported."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

from ..errors import CheckpointError
from ..text import enumerate_names, first_line, printable

_PREFIXES = ("HF_", "TQDM_")  # of the variables that it and its progress bars read


def hub_client(module: str) -> ModuleType:
    """A module of huggingface_hub.

    Args:
        module: Its name in the package, such as "constants".

    Raises:
        CheckpointError: A variable of the environment has a value at which the import fails.
    """
    try:
        return import_module(f"huggingface_hub.{module}")
    except ValueError as error:
        reason = first_line(error)
        variables = {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES)}
        # The error shows the value alone. Where it shows none, any of them may be meant.
        meant = {name: value for name, value in variables.items() if repr(value) in reason} or variables
        found = enumerate_names([f"{name}={value!r}" for name, value in sorted(meant.items())], len(meant))
        raise CheckpointError(
            f"huggingface_hub cannot be imported with the environment's {found or 'variables'} "
            f"({printable(reason)}). Expected a number: correct it, or unset it."
        ) from error
