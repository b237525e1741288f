"""Options of other types than theirs, such as numbers as text: told with their names, before any work."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TypeGuard

import numpy as np

from .errors import ConfigError


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, numpy's included, and no switch."""
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def check_number(name: str, value: object, *, whole: bool = False) -> None:
    """Raises a ConfigError for what is no number, or NaN, or no whole number where one is wanted."""
    if not is_whole(value) and (whole or not isinstance(value, Real) or isinstance(value, bool | np.bool_)):
        raise ConfigError(f"{name} is {_found(value)}, expected a {'whole ' * whole}number.")
    if math.isnan(value):  # type: ignore[arg-type]  # of Real, too
        raise ConfigError(f"{name} is NaN, expected a number.")


def check_switch(name: str, value: object) -> None:
    """Raises a ConfigError for what is neither True nor False: any text, "false" included, would count as True."""
    if not isinstance(value, int | np.bool_) or value not in (0, 1):
        raise ConfigError(f"{name} is {_found(value)}, expected True or False.")


def check_choice(name: str, value: object, known: Iterable[str | None]) -> None:
    """Raises a ConfigError for what is none of the known values."""
    known = tuple(known)
    if not isinstance(value, str | None) or value not in known:
        raise ConfigError(f"{name} is {_found(value)}, expected one of {', '.join(map(str, known))}.")


def check_kind(name: str, value: object, kind: type) -> None:
    """Raises a ConfigError for what is no object of that class."""
    if not isinstance(value, kind):
        raise ConfigError(f"{name} is {_found(value)}, expected a {kind.__name__}.")


def _found(value: object) -> str:
    return repr(value)[:80] if value is None or isinstance(value, str | int | float) else f"a {type(value).__name__}"
