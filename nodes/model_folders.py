"""Model folders and the list of models that the nodes offer."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import folder_paths

from ..birefnet_core import CheckpointError
from ..birefnet_core.checkpoints import CatalogueEntry, list_checkpoints, present_locally
from ..birefnet_core.checkpoints.catalogue import WEIGHT_SUFFIXES
from .comfy_compat import io

logger = logging.getLogger(__name__)

MODEL_FOLDER = "birefnet"  # models/birefnet, our own
ADAPTER_FOLDER = "adapters"  # models/birefnet/adapters
NO_ADAPTER = "none"
SHARED_FOLDER = "background_removal"  # models/background_removal, which ComfyUI's own BiRefNet nodes read too
DEFAULT_MODEL = "BiRefNet"


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


def model_folders() -> list[Path]:
    """Every folder in which weights may lie, our own first."""
    return [Path(p) for name in (MODEL_FOLDER, SHARED_FOLDER) for p in folder_paths.get_folder_paths(name)]


def catalogue() -> dict[str, CatalogueEntry]:
    """The published checkpoints by name."""
    return {entry.name: entry for entry in list_checkpoints() if entry.loadable}


def model_names() -> list[str]:
    """What the load node offers: the catalogue, then the files in the model folders.

    Files that were downloaded under a catalogue name, ``<name>/<file>``, are not offered twice.
    """
    names = catalogue()
    files = {f for name in (MODEL_FOLDER, SHARED_FOLDER) for f in folder_paths.get_filename_list(name)}
    return [*names, *sorted(f for f in files if Path(f).parts[0] not in (*names, ADAPTER_FOLDER))]


def adapter_names() -> list[str]:
    """What the load node offers as adapters: none, then the files in the models' subfolder for them."""
    files = folder_paths.get_filename_list(MODEL_FOLDER)
    return [NO_ADAPTER, *sorted(f for f in files if Path(f).parts[0] == ADAPTER_FOLDER)]


def model_labels() -> dict[str, str]:
    """What to show for each catalogue name: purpose, size, licence unless MIT, whether it is on this disk."""
    labels = {}
    for name, entry in catalogue().items():
        path = present_locally(entry, model_folders())
        size = path.stat().st_size if path else entry.size_bytes
        known = entry.purpose, f"{size / 1e6:.0f} MB" if size else "", "" if entry.licence == "MIT" else entry.licence
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
        "models/birefnet and models/background_removal.\n" + "\n".join(labels.values()),
    )
    made.extra_dict = {"birefnet_labels": labels}  # ComfyUI before 0.4 has no argument of that name
    return made


def check_model_name(name: str | None) -> bool | str:
    """True, or what is wrong with a name that should be one of ``model_names``.

    Before a run ComfyUI gives None for a name that another node makes; it is checked again when it is loaded.
    """
    if name is None or (isinstance(name, str) and name in catalogue()) or find_file(name):
        return True
    return (
        f"There is no model {name!r}: it is neither a published checkpoint nor a file in models/{MODEL_FOLDER} or "
        f"models/{SHARED_FOLDER}. Put the file there, or choose another model."
    )


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
    for folder in (MODEL_FOLDER, SHARED_FOLDER):
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
    """Changes when the file behind a name of ``model_names`` does; None is a name that another node makes."""
    if name is None:
        return ""
    entry = catalogue().get(name) if isinstance(name, str) else None
    path = find_file(name) or (entry and present_locally(entry, model_folders()))
    return f"{path} {os.stat(path).st_mtime_ns}" if path else str(name)
