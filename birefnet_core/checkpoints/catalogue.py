"""The published checkpoints: repository, file, licence and input size of each, from ``catalogue.json``.

Patch orders are inferred from release dates (published code changed the order on 5 November 2024); a row without one
leaves it to the weights. Sizes in bytes are approximate.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from ..config import BACKBONES, PatchOrder
from ..errors import ConfigError

# Endings of files that can be read.
SAFETENSORS = (".safetensors", ".sft")
PICKLED = (".pth", ".pt", ".ckpt", ".bin")
WEIGHT_SUFFIXES = SAFETENSORS + PICKLED

SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")  # a part of a checkpoint, as accelerate names it

GENERIC_FILE = "model.safetensors"  # what most repositories call their weights; says nothing about which they are
DEMO = "demo"  # the checkpoint that comes with this package
DTYPES = ("fp16", "fp32", None)
GENERATIONS = ("current", "march-2024")
REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Folders of models in which other packs give checkpoints short names: ComfyUI_BiRefNet_ll, RemoveBackground_SET.
SHORT_NAME_FOLDERS = ("birefnet", "rembg")
_RELEASE = re.compile(r"(birefnet[-_].+)[-_]epoch_\d+")  # files of the author's releases: task, then epoch
ASSETS = Path(__file__).resolve().parents[1] / "assets"  # files that come with this package


@dataclasses.dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """One published checkpoint.

    Attributes:
        name: What users type; never removed or changed.
        repo: Hub repository, ``owner/name``; None for a file that comes with this package.
        file: Weight file in that repository, or in ``ASSETS`` without a repository.
        backbone: One of ``config.BACKBONES``.
        training_size: Width and height in pixels the network was trained at, the best size to run it at.
        any_size: Trained at many sizes; ``training_size`` is then only the default.
        purpose: One word, such as "general", "matting" or "anime".
        description: One sentence for lists and tooltips.
        licence: As its repository states it.
        size_bytes: Approximate size of the file, or None.
        dtype: Of the weights in the file, "fp16", "fp32" or None where not known.
        patch_order: Layout of the patch convolutions (see PatchOrder), or None where only the weights can tell.
        gated: Downloading needs an account that has accepted the licence.
        mirrors: Repositories with the same weights.
        many_files: Its repository holds other checkpoints too, so that the repository's id alone does not mean it.
        aliases: Other names of the same weights, as files (without the ending, and the epoch of the author's
            releases), in other packs, or as a former repository.
        short_name: What its file is called in ``SHORT_NAME_FOLDERS``; means nothing elsewhere.
        trained_on: Data sets, as far as its author names them, else empty.
        generation: "current", or "march-2024" for files of an older network without the coarsest patch
            injection, which no ``BiRefNetConfig`` describes.

    Raises:
        ConfigError: A value out of range.
    """

    name: str
    repo: str | None
    file: str = GENERIC_FILE
    backbone: str = "swin_v1_l"
    training_size: tuple[int, int] = (1024, 1024)
    any_size: bool = False
    purpose: str
    description: str
    licence: str = "MIT"
    size_bytes: int | None = None
    dtype: str | None = None
    patch_order: PatchOrder | None = None
    gated: bool = False
    mirrors: tuple[str, ...] = ()
    many_files: bool = False
    aliases: tuple[str, ...] = ()
    short_name: str = ""
    trained_on: str = ""
    generation: str = "current"

    def __post_init__(self) -> None:
        for field, choices in (("backbone", BACKBONES), ("dtype", DTYPES), ("generation", GENERATIONS)):
            if getattr(self, field) not in choices:
                known = ", ".join(map(repr, choices))
                raise ConfigError(f"{self.name}: {field}={getattr(self, field)!r} is not known; choose one of {known}.")
        if self.repo is None and self.mirrors:
            raise ConfigError(f"{self.name}: a file that comes with this package has no mirrors.")
        for repo in self.repos:
            if not REPO_ID.fullmatch(repo):
                raise ConfigError(f"{self.name}: repository {repo!r}; expected 'owner/name'.")
        if len(self.training_size) != 2 or any(side <= 0 or side % 32 for side in self.training_size):
            raise ConfigError(f"{self.name}: training_size={self.training_size}; expected (width, height), each 32n.")

    @property
    def repos(self) -> tuple[str, ...]:
        """The repository and its mirrors; none for a file that comes with this package."""
        return () if self.repo is None else (self.repo, *self.mirrors)

    @property
    def bundled(self) -> Path | None:
        """The file that comes with this package, or None for a checkpoint of the Hub."""
        return ASSETS / self.file if self.repo is None else None

    @property
    def loadable(self) -> bool:
        """Whether this package has the network these weights belong to."""
        return self.generation == "current"

    @property
    def distinctive_file(self) -> str | None:
        """The file's own name where it tells which checkpoint it is, else None."""
        name = self.file.rpartition("/")[2]
        return None if name == GENERIC_FILE else name


@cache
def list_checkpoints() -> tuple[CatalogueEntry, ...]:
    """All known checkpoints, the most useful first."""
    rows = json.loads(Path(__file__).with_name("catalogue.json").read_text(encoding="utf-8"))
    return tuple(_entry(row) for row in rows)


def _entry(row: dict[str, Any]) -> CatalogueEntry:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in row.items()}
    order = values.pop("patch_order", None)
    return CatalogueEntry(**values, patch_order=PatchOrder(order) if order else None)


def bare_name(name: str) -> str:
    """A name as names are compared: without case, ``@revision``, and the epoch of the author's releases."""
    name = name.partition("@")[0].casefold()
    release = _RELEASE.fullmatch(name)
    return release[1] if release else name


def find_published(name: str) -> CatalogueEntry | None:
    """The entry of a catalogue name, alias, repository or mirror; case and a trailing ``@revision`` are ignored.

    Where a repository has several entries, the first of them.
    """
    return _entries_by_key().get(bare_name(name))


@cache
def _entries_by_key() -> dict[str, CatalogueEntry]:
    found = {entry.name.casefold(): entry for entry in list_checkpoints()}
    for entry in list_checkpoints():
        for name in entry.aliases if entry.many_files else (*entry.repos, *entry.aliases):
            found.setdefault(name.casefold(), entry)
    return found


def find_by_short_name(name: str) -> CatalogueEntry | None:
    """The entry of a short name of other packs, such as "General-HR"; case is ignored."""
    return next((e for e in list_checkpoints() if e.short_name and e.short_name.casefold() == name.casefold()), None)


def find_entry(source: str | os.PathLike[str]) -> CatalogueEntry | None:
    """Matches a name, repository or path to a catalogue entry.

    Case is ignored. A path is matched by its file name without the weight suffix, by a short name of other packs only
    in their folders; a file called ``model.safetensors`` by its folder, spelt exactly, or by the folder of its
    repository in the Hub's cache. Other files say nothing by their folder: ``birefnet/my_finetune.safetensors`` is not
    "BiRefNet", nor is the repository ``someone/BiRefNet``.
    """
    text = os.fspath(source).strip()
    path = Path(text)
    is_path = path.suffix.lower() in WEIGHT_SUFFIXES or not REPO_ID.fullmatch(text) or os.path.exists(path)
    return find_published(text) or (_by_path(path) if is_path else None)


def suggest(name: str, limit: int = 3) -> list[str]:
    """The catalogue names nearest to a misspelt one, best first; possibly none."""
    key = name.strip().rpartition("/")[2].casefold()
    known = {entry.name.casefold(): entry.name for entry in list_checkpoints()}
    return [known[match] for match in difflib.get_close_matches(key, known, n=limit)]


def _by_path(path: Path) -> CatalogueEntry | None:
    """The entry of a file; never that of a bundled file, which users' files may be called like."""
    rows = [entry for entry in list_checkpoints() if entry.repo]
    stem = path.stem if path.suffix.lower() in WEIGHT_SUFFIXES else path.name
    entry = find_published(stem)
    if entry is not None and entry.repo:
        return entry
    for entry in rows:
        if entry.distinctive_file and entry.distinctive_file.casefold() == path.name.casefold():
            return entry
    if path.parent.name.casefold() in SHORT_NAME_FOLDERS and (entry := find_by_short_name(stem)):
        return entry
    if path.name.casefold() != GENERIC_FILE:
        return None
    folder = path.parent.name.partition("@")[0]
    cached = next((part for part in reversed(path.parts) if part.startswith("models--")), None)  # models--owner--name
    repo = cached.removeprefix("models--").replace("--", "/") if cached else ""
    return next((entry for entry in rows if entry.name == folder), None) or find_published(repo)
