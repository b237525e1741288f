"""Short texts for messages: first lines, spelling hints, lists of names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def first_line(error: BaseException | str) -> str:
    """The first line of an error's message, or the name of its class where it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def did_you_mean(value: object, known: Iterable[object]) -> str:
    """" Did you mean 'swin_v1_l'?" for a value spelled nearly like a known one, else an empty string."""
    close = difflib.get_close_matches(str(value), [str(k) for k in known], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def enumerate_names(names: Sequence[str], most: int = 3) -> str:
    """ "a, b, c and 4 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
