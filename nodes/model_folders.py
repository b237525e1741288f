"""Model folders and the list of models that the nodes offer."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import folder_paths

from ..birefnet_core import CheckpointError
from ..birefnet_core.checkpoints import CatalogueEntry, find_entry, list_checkpoints, present_locally
from ..birefnet_core.checkpoints.catalogue import DEMO, WEIGHT_SUFFIXES, find_by_short_name, find_published
from ..birefnet_core.files import file_version
from ..birefnet_core.text import did_you_mean
from .comfy_compat import io

logger = logging.getLogger(__name__)

PERMISSIVE = ("MIT", "Apache-2.0")  # licences that a label need not name
MODEL_FOLDER = "birefnet"  # models/birefnet, our own
ADAPTER_FOLDER = "adapters"  # models/birefnet/adapters
NO_ADAPTER = "none"
SHARED_FOLDER = "background_removal"  # models/background_removal, which ComfyUI's own BiRefNet nodes read too
OTHER_PACKS = "birefnet_other_packs"  # where other packs keep the same checkpoints; read, never written
OTHER_PACKS_FOLDERS = ("BiRefNet", "RMBG/BiRefNet", "RMBG", "rembg/BiRefNet", "rembg")  # of models; first that of _ll
FOLDERS = (MODEL_FOLDER, SHARED_FOLDER, OTHER_PACKS)
DEFAULT_MODEL = "BiRefNet"
COMMIT = re.compile(r"[0-9a-f]{7,40}")
PURPOSES = ("general", "fast", "matting", "portrait", "anime", "effects", "benchmark", "legacy")  # in this order
NOT_BIREFNET = ("swin_", "pvt_")  # weights of encoders alone, which other packs keep beside the checkpoints


def register_model_folders() -> None:
    """Tells ComfyUI about models/birefnet; folders named in extra_model_paths.yaml are kept."""
    for name in (MODEL_FOLDER, SHARED_FOLDER):
        folder = os.path.join(folder_paths.models_dir, name)
        folder_paths.add_model_folder_path(name, folder)
        paths, endings = folder_paths.folder_names_and_paths[name]
        # A folder that ComfyUI does not know by itself starts without file endings, and would list everything.
        folder_paths.folder_names_and_paths[name] = (paths, endings or set(WEIGHT_SUFFIXES))
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            logger.warning("BiRefNet: %s cannot be created (%s); published checkpoints need it", folder, error)
    for name in OTHER_PACKS_FOLDERS:
        folder_paths.add_model_folder_path(OTHER_PACKS, os.path.join(folder_paths.models_dir, *name.split("/")))
    paths = folder_paths.get_folder_paths(OTHER_PACKS)
    folder_paths.folder_names_and_paths[OTHER_PACKS] = (paths, set(WEIGHT_SUFFIXES))


def model_folders() -> list[Path]:
    """Every folder in which weights may lie, our own first."""
    return [Path(p) for name in FOLDERS for p in folder_paths.get_folder_paths(name)]


def catalogue() -> dict[str, CatalogueEntry]:
    """The published checkpoints by name."""
    return {entry.name: entry for entry in list_checkpoints() if entry.loadable}


def model_names() -> list[str]:
    """What the load node offers: what is on this disk, then the rest of the catalogue by purpose.

    Files that were downloaded under a catalogue name, ``<name>/<file>``, are not offered twice, and those of other
    packs by the catalogue's names where it has them. Nothing else is left out: ComfyUI's page marks a saved value that
    is not in the list as missing.
    """
    names = catalogue()
    found = {name: present_locally(entry, model_folders()) for name, entry in names.items()}
    here = {name: path for name, path in found.items() if path}
    downloaded = {path.parts[-2:] for name, path in here.items() if path.parent.name == name}
    files = {f for name in (MODEL_FOLDER, SHARED_FOLDER) for f in folder_paths.get_filename_list(name)}
    files = {f for f in files if Path(f).parts[0] != ADAPTER_FOLDER and Path(f).parts not in downloaded}
    own = sorted(files | _files_of_other_packs())
    first = [*(name for name in here if name != DEMO), *own, DEMO]
    return [*first, *sorted((name for name in names if name not in here), key=lambda name: _rank(names[name]))]


def _rank(entry: CatalogueEntry) -> int:
    return PURPOSES.index(entry.purpose) if entry.purpose in PURPOSES else len(PURPOSES)


def _files_of_other_packs() -> set[str]:
    """Checkpoints in models/BiRefNet that are not of the catalogue. The other folders hold models of all kinds."""
    folder = folder_paths.get_folder_paths(OTHER_PACKS)[0]
    ours = folder_paths.get_folder_paths(MODEL_FOLDER)
    try:
        if not os.path.isdir(folder) or any(os.path.isdir(p) and os.path.samefile(p, folder) for p in ours):
            return set()  # none, or without case our own
        children = list(Path(folder).iterdir())
    except OSError:  # this user may not look into it, or its disk is not there
        return set()
    found = {path for path in children if path.suffix.lower() in WEIGHT_SUFFIXES and os.path.isfile(path)}
    unknown = {path.name for path in found if (entry := find_entry(path)) is None or not entry.loadable}
    return {name for name in unknown if not name.startswith(NOT_BIREFNET)}


def adapter_names() -> list[str]:
    """What the load node offers as adapters: none, then the files in the models' subfolder for them."""
    files = folder_paths.get_filename_list(MODEL_FOLDER)
    return [NO_ADAPTER, *sorted(f for f in files if Path(f).parts[0] == ADAPTER_FOLDER)]


def model_labels() -> dict[str, str]:
    """What to show for each catalogue name: purpose, size, licence unless permissive, whether it is on this disk."""
    labels = {}
    for name, entry in catalogue().items():
        path = present_locally(entry, model_folders())
        size = path.stat().st_size if path else entry.size_bytes
        licence = "" if entry.licence in PERMISSIVE else entry.licence
        known = entry.purpose, f"{size / 1e6:.0f} MB" if size else "", licence
        labels[name] = f"{'✓ ' if path else ''}{name} ({', '.join(filter(None, known))})"
    return labels


def model_input() -> io.Combo.Input:
    """The list of models. The values are names that never change; what is known of them is in labels beside."""
    labels = model_labels()
    made = io.Combo.Input(
        "model",
        options=model_names(),
        default=DEFAULT_MODEL,
        tooltip="Published checkpoints by name (✓: on this disk, others are downloaded once), then your own files in "
        "models/birefnet and models/background_removal.",
    )
    made.extra_dict = {"birefnet_labels": labels}  # ComfyUI before 0.4 has no argument of that name
    return made


def check_model_name(name: str | None) -> bool | str:
    """True, or what is wrong with a name that should be one of ``model_names``.

    Before a run ComfyUI gives None for a name that another node makes; it is checked again when it is loaded.
    """
    if name is None or source_of(name):
        return True
    return (
        f"There is no model {name!r}: it is neither a published checkpoint nor a file in models/{MODEL_FOLDER} or "
        f"models/{SHARED_FOLDER}. Put the file there, or choose another model."
        f"{did_you_mean(name, model_names(), _without_ending)}"
    )


def _without_ending(name: str) -> str:
    return next((name[: -len(suffix)] for suffix in WEIGHT_SUFFIXES if name.lower().endswith(suffix)), name)


def source_of(name: object) -> str | None:
    """The file or the catalogue name, with its commit, that a name stands for: also a name of another pack."""
    if not isinstance(name, str):
        return None
    if name in catalogue():
        return name
    if path := find_file(name):
        return path
    bare, _, commit = name.partition("@")
    revision = f"@{commit}" if COMMIT.fullmatch(commit) else ""
    entry = known_as(bare if revision else name)
    return f"{entry.name}{revision}" if entry and entry.loadable else None


def known_as(name: object) -> CatalogueEntry | None:
    """The checkpoint that a name of the catalogue, a release or another pack means, with or without an ending."""
    if not isinstance(name, str):
        return None
    stem = _without_ending(name)
    entry = find_published(stem) or find_by_short_name(stem)
    # Our own names as they are spelt, and none with a branch: a workflow chooses among what is known.
    other_spelling = entry is not None and stem != entry.name and stem.casefold() == entry.name.casefold()
    return None if "@" in stem or other_spelling else entry


def find_adapter(name: str) -> str | None:
    """The file of an adapter; None for none.

    The list of adapters does not bind a workflow: a name made by another node may be any text.

    Raises:
        CheckpointError: No file of that name in the model folders.
    """
    path = find_file(name) if name != NO_ADAPTER else None
    if path is None and name != NO_ADAPTER:
        raise CheckpointError(
            f"There is no adapter {name!r} in models/{MODEL_FOLDER}. Put the file into models/{MODEL_FOLDER}/"
            f"{ADAPTER_FOLDER}, or choose another adapter."
        )
    return path


def find_file(name: object) -> str | None:
    """The file in a model folder that a name stands for."""
    if not isinstance(name, str):
        return None
    for folder in FOLDERS:
        try:
            path = folder_paths.get_full_path(folder, name)
        except (OSError, ValueError):  # no name of a file: too long, with NUL, on another drive
            return None
        # ComfyUI strips what leads out of the folder; it is not left to every version of it.
        if path is not None and any(_is_inside(path, parent) for parent in folder_paths.get_folder_paths(folder)):
            return path
    return None


def _is_inside(path: str, folder: str) -> bool:
    """Whether a path is below a folder by its name; links within the folder are their owner's wish."""
    path, folder = os.path.abspath(path), os.path.abspath(folder)
    return path.startswith(os.path.join(folder, ""))


def file_stamp(name: str | None) -> str:
    """Changes when the file behind a name of ``model_names`` does, and is the name where there is no file.

    None is a name that another node makes, and changes with any file of the model folders.
    """
    if name is None:
        files = sorted((folder, f) for folder in FOLDERS for f in folder_paths.get_filename_list(folder))
        return " ".join(f"{folder} {_version_of(f)}" for folder, f in files)
    entry = known_as(name)
    path = find_file(name) or (entry and present_locally(entry, model_folders()))
    return f"{path} {file_version(path)}" if path else str(name)


def _version_of(name: str) -> str:
    """A file's path and version; its name where it is gone or this user may not look at it."""
    path = find_file(name)
    try:
        return f"{path} {file_version(path)}" if path else name
    except OSError:
        return name
