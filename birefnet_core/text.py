"""Short texts for messages: first lines, spelling hints, lists of names, names of files, times."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence

_UNSAFE = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, line and paragraph separators
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
LONGEST_NAME = 200  # characters of a name that a list of names shows
_LONGEST_LINE = 1000  # characters


def printable(text: object, *, keep: str = "") -> str:
    """A name or message as a terminal or a log may show it, whatever a file was called.

    Args:
        text: A path, or anything else that becomes text by ``str``.
        keep: Characters that stay, such as line breaks of a message that has several lines by intention.

    Returns:
        The text with escapes such as ``\\x1b`` and ``\\n`` for characters that move the cursor, change colours, forge
        lines, turn the direction of writing, or cannot be encoded.
    """
    shown = os.fsdecode(text) if isinstance(text, os.PathLike) else str(text)
    if shown.isprintable():
        return shown
    return "".join(c if c in keep or not _is_unsafe(c) else c.encode("unicode_escape").decode() for c in shown)


def drawable(text: object) -> str:
    """``printable`` without characters that Pillow's own font does not have, which older Pillow raises at."""
    return printable(text).encode("latin-1", "replace").decode("latin-1")


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE or character in _BIDIRECTIONAL


def first_line(error: BaseException | str) -> str:
    """The first line of an error's message, or the name of its class where it has no message.

    Of a long one, as of readers that quote what they found in a damaged file, the beginning and the end.
    """
    lines = str(error).strip().splitlines()
    line = lines[0].strip() if lines else type(error).__name__
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"


def did_you_mean(value: object, known: Iterable[object], compared: Callable[[str], str] = str) -> str:
    """ " Did you mean 'swin_v1_l'?" for a value spelled nearly like a known one, else an empty string.

    Args:
        value: What was given.
        known: What it could have been.
        compared: The part of each that is compared, such as names without endings that all have.
    """
    names = {compared(str(k)): str(k) for k in known}
    close = difflib.get_close_matches(compared(str(value))[:LONGEST_NAME], list(names), n=1)
    return f" Did you mean {names[close[0]]!r}?" if close else ""


def enumerate_names(names: Sequence[str], most: int = 3) -> str:
    """ "a, b, c and 4 more", for names that others chose: escaped, and long ones cut."""
    more = len(names) - most
    shown = [printable(name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "...") for name in names[:most]]
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def clock_time(seconds: float) -> str:
    """Hours, minutes and seconds: 75 -> "1:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
