"""birefnet checkpoints"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from ..checkpoints import CatalogueEntry, list_checkpoints, present_locally
from ..text import printable
from .console import say

COLUMNS = ("name", "size", "purpose", "licence", "backbone", "download", "here")
DESCRIPTION = "Lists the known checkpoints. Nothing is downloaded, and the network is not used."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--folder", action="append", default=[], type=Path, help="also search this folder (may be repeated)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the catalogue."""
    for folder in args.folder:
        if not os.path.isdir(os.path.expanduser(folder)):
            say(printable(f"note: --folder {folder}: no such folder, so nothing was looked for in it"), error=True)
    rows = [(entry, present_locally(entry, folders=args.folder)) for entry in list_checkpoints()]
    say(as_json(rows) if args.json else as_table(rows))
    return 0


def as_table(rows: list[tuple[CatalogueEntry, Path | None]]) -> str:
    """The catalogue for people to read."""
    cells = [COLUMNS, *(_cells(entry, path) for entry, path in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    lines += ["", *(f"{entry.name}: {entry.description}{_page(entry)}" for entry, _ in rows)]
    return "\n".join(lines)


def _page(entry: CatalogueEntry) -> str:
    return f" https://huggingface.co/{entry.repo}" if entry.repo else ""


def _cells(entry: CatalogueEntry, path: Path | None) -> tuple[str, ...]:
    size = "any" if entry.any_size else "{} x {}".format(*entry.training_size)
    download = f"{entry.size_bytes / 1e6:.0f} MB" if entry.size_bytes else "?" if entry.repo else "in the pack"
    here = printable(path) if path else "-" if entry.loadable else "cannot be loaded"
    return entry.name, size, entry.purpose, entry.licence, entry.backbone, download, here


def as_json(rows: list[tuple[CatalogueEntry, Path | None]]) -> str:
    """The catalogue for programs to read."""
    entries = [
        {
            "name": entry.name,
            "repo": entry.repo,
            "file": entry.file,
            "backbone": entry.backbone,
            "training_size": list(entry.training_size),
            "any_size": entry.any_size,
            "purpose": entry.purpose,
            "description": entry.description,
            "licence": entry.licence,
            "trained_on": entry.trained_on,
            "size_bytes": entry.size_bytes,
            "patch_order": entry.patch_order.value if entry.patch_order else None,
            "gated": entry.gated,
            "loadable": entry.loadable,
            "path": str(path) if path else None,
        }
        for entry, path in rows
    ]
    return json.dumps(entries, indent=2)
