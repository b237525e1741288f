"""Which row of the catalogue a name, a repository or a path speaks of."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from .catalogue import GENERIC_FILE, REPO_ID, WEIGHT_SUFFIXES, CatalogueEntry, checkpoints


def find_entry(source: str | os.PathLike[str]) -> CatalogueEntry | None:
    """The row a name, repository or path speaks of, or None.

    Compared without regard to case: names and repositories as in ``find_published``, and a path's own name without
    its weight suffix. A file called ``model.safetensors`` is known by its folder, spelt exactly, or by the Hub
    cache it lies in. Folders say nothing about files with names of their own: ``birefnet/my_finetune.safetensors``
    is not "BiRefNet"; nor is the repository ``someone/BiRefNet``.
    """
    text = os.fspath(source).strip()
    entry = find_published(text)
    if entry is not None:
        return entry
    path = Path(text)
    if REPO_ID.fullmatch(text) and path.suffix.lower() not in WEIGHT_SUFFIXES and not os.path.exists(path):
        return None  # a repository the catalogue does not have
    return _by_path(path)


def find_published(name: str) -> CatalogueEntry | None:
    """The row of a catalogue name, repository or mirror, without regard to case and to a trailing ``@revision``.

    Where a repository has several rows, the first of them.
    """
    key = name.partition("@")[0].casefold()
    for entry in checkpoints():
        if entry.name.casefold() == key:
            return entry
    return next((entry for entry in checkpoints() if key in (repo.casefold() for repo in entry.repos)), None)


def suggest(name: str, limit: int = 3) -> list[str]:
    """The catalogue names nearest to a misspelt one, best first; possibly none."""
    key = name.strip().rpartition("/")[2].casefold()
    known = {entry.name.casefold(): entry.name for entry in checkpoints()}
    return [known[match] for match in difflib.get_close_matches(key, known, n=limit, cutoff=0.6)]


def _by_path(path: Path) -> CatalogueEntry | None:
    """Files of users called as a bundled one are theirs: only rows of the Hub are looked at."""
    stem = path.stem if path.suffix.lower() in WEIGHT_SUFFIXES else path.name
    entry = find_published(stem)
    if entry is not None and entry.repo:
        return entry
    rows = [row for row in checkpoints() if row.repo]
    for row in rows:
        if row.distinctive_file and row.distinctive_file.casefold() == path.name.casefold():
            return row
    if path.name.casefold() != GENERIC_FILE:
        return None
    folder = path.parent.name.partition("@")[0]
    return next((row for row in rows if row.name == folder), None) or _by_cache_folder(path)


def _by_cache_folder(path: Path) -> CatalogueEntry | None:
    # The Hub cache keeps owner/name in a folder called models--owner--name.
    for part in reversed(path.parts):
        if part.startswith("models--"):
            return find_published(part.removeprefix("models--").replace("--", "/"))
    return None
