"""What servers, Git, Xcode and interrupted copies leave in the place of a file."""

from __future__ import annotations

import contextlib
from pathlib import Path

LFS, PAGE, ZEROS = "a Git LFS pointer", "a web page or other XML", "zeros, as incomplete copies and downloads have"
XCODE = "Apple's own kind of PNG (CgBI), from an app for the iPhone"
_PAGES = (b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<svg")
_HEAD = 512  # bytes that decide


def placeholder(head: bytes) -> str | None:
    """``LFS``, ``PAGE``, ``XCODE`` or ``ZEROS`` by the first bytes of a file; None for anything else."""
    if head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"CgBI":
        return XCODE
    head = as_utf8(head).lstrip()
    if head.startswith(b"version https://git-lfs"):
        return LFS
    if head.lower().startswith(_PAGES):
        return PAGE
    return ZEROS if head and not head.strip(b"\0") else None


def as_utf8(head: bytes) -> bytes:
    """Bytes that may be a text, without a mark of their encoding."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", "ignore").encode()
    return head.removeprefix(b"\xef\xbb\xbf")


def advice(kind: str) -> str:
    """What to do about a placeholder."""
    if kind == XCODE:
        return "save it as PNG anew on a Mac, with Preview for example"
    return "run `git lfs pull`, or download the file" if kind == LFS else "download or copy it again"


def what_it_holds(head: bytes) -> str | None:
    """A phrase on the placeholder that a file is, by its first bytes, and what to do; None for anything else."""
    kind = placeholder(head)
    return f"it holds {kind}: {advice(kind)}" if kind else None


def what_is_in(path: str | Path) -> str | None:
    """``what_it_holds`` of a file; None where it cannot be read, too."""
    with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:
        return what_it_holds(file.read(_HEAD))
    return None
