"""What a file is by its first bytes: checkpoints under the wrong ending, and what was saved in place of weights."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from ..placeholders import LFS, PAGE, ZEROS, as_utf8, placeholder

AGAIN = "Delete it and download it again."
MOST_HEADER = 100 * 2**20  # bytes of a safetensors header, the library's own limit
_HEAD = 512  # bytes read of a file
_EXCERPT = 60  # characters of a text that a message shows
# What aria2, axel and lftp have beside a file that they are downloading, which has its full size from the start, with
# zeros wherever nothing has come yet.
_CONTROL = (".aria2", ".st", ".lftp-pget-status")
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")
_OTHERS = (
    (b"\x89HDF", "an HDF5 file, as Keras writes them"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
)


@contextlib.contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """A file's path, or where the system has other bytes for it than UTF-8, as torch does, one that leads to it.

    Those are names that are not UTF-8, and all names beyond ASCII in a locale that is not.
    """
    if os.fsencode(path) == str(path).encode(errors="replace"):
        yield str(path)
    else:
        with open(path, "rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"  # of Linux; elsewhere all names are UTF-8


def problem_of(path: Path, *, safetensors: bool) -> str | None:
    """What is wrong with a file, and what to do; None where its first bytes are those of the format.

    Args:
        path: The file.
        safetensors: Whether its ending says safetensors; otherwise it says that torch saved it.
    """
    controls = (path.with_name(path.name + ending) for ending in _CONTROL)
    if control := next((file.name for file in controls if os.path.isfile(file)), None):
        return (
            f"a download of this file has not ended: {control} is beside it. Let aria2, axel or lftp go on with it, or "
            f"delete both and download it again; if the file is whole, delete {control} only."
        )
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if len(head) < 8:
        return f"the file has only {len(head)} bytes, no checkpoint is that small. {AGAIN}"
    kind = placeholder(head)
    if kind == LFS:
        return "this is a Git LFS pointer, a text in place of the weights. Run `git lfs pull`, or download the file."
    if kind == PAGE:
        return f"this is a web page, not weights: the link led to a page. {AGAIN}"
    if kind == ZEROS:
        return f"the file holds zeros in place of weights, as an interrupted download leaves them. {AGAIN}"
    head = as_utf8(head)
    if _is_safetensors(head):
        renamed = f"this is a safetensors file under another ending. Rename it to {path.stem}.safetensors."
        return None if safetensors else renamed
    if head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
        return "this is an archive (gzip, tar, 7z or the like). Unpack it."
    other = next((name for magic, name in _OTHERS if head.startswith(magic)), None)
    if other:
        return f"this is {other}, not weights of torch."
    excerpt = _text(head)
    if excerpt:
        kind = "JSON" if excerpt[0] in "{[" else "text"
        wanted = "not a safetensors file" if safetensors else "no weights"
        return f"{wanted} but {kind} that begins with {excerpt!r}, perhaps a server's error message. {AGAIN}"
    if not safetensors:
        return None
    if head.startswith(b"PK"):
        return "this is a zip archive, perhaps a .pth file under another name. Give it its own ending back."
    if head[0] == 0x80 and 2 <= head[1] <= 5:
        return "this is a pickle, perhaps a .pth file under another name. Give it its own ending back."
    return f"not a safetensors file ({size} bytes that do not start with a safetensors header). {AGAIN}"


def _is_safetensors(head: bytes) -> bool:
    (header,) = struct.unpack("<Q", head[:8])
    return head[8:9] == b"{" and header <= MOST_HEADER


def _text(head: bytes) -> str:
    """The beginning of a text; empty for bytes that are none."""
    text = head.decode("utf-8", "ignore").strip()  # a character may be cut in two
    whole = len(text.encode()) + 4 > len(head.strip())
    return text[:_EXCERPT] if whole and all(c.isprintable() or c.isspace() for c in text) else ""
