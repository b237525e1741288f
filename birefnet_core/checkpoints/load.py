"""Checkpoint name or file -> network."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoint_info import CheckpointInfo, training_size_from_text
from ..checks import check_switch
from ..config import BiRefNetConfig, PatchOrder
from ..devices import choose_device, choose_dtype
from ..errors import CheckpointError, ConfigError
from ..network import BiRefNet, fuse_for_inference
from ..out_of_memory import for_weights
from ..text import first_line
from .adapter import merge_adapter
from .build import convert, model_from_state_dict
from .detect import newer_generation
from .fit_float16 import combine_scales, read_scales, unknown_scales
from .hub import remove_if_damaged
from .io import ChangedError, CheckpointFile, explained, open_file
from .resolve import Resolved, resolve


def load_model(
    source: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
    fine_dtype: torch.dtype | None = None,
    patch_order: PatchOrder | str = "auto",
    adapter: str | os.PathLike[str] | None = None,
    adapter_strength: float = 1.0,
    folders: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    cache_dir: str | os.PathLike[str] | None = None,
    download_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    fused: bool = False,
) -> BiRefNet:
    """Finds a checkpoint, downloads it if this disk does not have it, and builds its network.

    Args:
        source: Catalogue name, Hub repository ``owner/name`` (with ``@revision`` if wanted), folder, or file.
        device: Where to put the network; "auto" chooses.
        dtype: Precision of the network, whatever that of the file; "auto" chooses by device.
        fine_dtype: See ``model_from_state_dict``; None for float16 on CUDA devices and float32 elsewhere.
        patch_order: See ``model_from_state_dict``; "auto" trusts the file's own metadata, then its weights,
            then the catalogue.
        adapter: File of a low-rank adapter to merge into the weights; None for none.
        adapter_strength: 1 for the whole of the adapter's change, 0 for none.
        folders: One or several, where names are looked for before the Hub's cache.
        cache_dir: The Hub's cache; None for HF_HUB_CACHE, HF_HOME or the default.
        download_dir: Where downloads go instead of the Hub's cache.
        token: Access token of the Hub; None for HF_TOKEN.
        progress: Called while downloading with the bytes there are and will be.
        fused: Whether to fuse the network, see ``model_from_state_dict``: for a Segmenter in half precision, whose
            masks are then nearer to those of float32.

    Returns:
        The network in eval mode; its ``checkpoint`` says where it came from.

    Raises:
        CheckpointError: Not found, not fetched, not read, or not a BiRefNet; the message says what to do.
        ConfigError: A device, dtype or patch order that does not exist here, folders that are no paths, or no switch.
    """
    check_switch("fused", fused)
    device = choose_device(device)
    dtype = choose_dtype(dtype, device)

    def find() -> Resolved:
        return resolve(
            source, folders=folders, cache_dir=cache_dir, download_dir=download_dir, token=token, progress=progress
        )

    found = find()
    entry, info, expected = found.entry, None, None
    if entry is not None:
        info = CheckpointInfo(
            name=entry.name,
            revision=found.revision or "",
            training_size=entry.training_size,
            licence=entry.licence,
        )
        expected = entry.patch_order
    if dtype != torch.bfloat16 or fine_dtype is None:
        fine_dtype = torch.float16 if dtype == torch.bfloat16 and device.type == "cuda" else torch.float32

    # Small changes would be lost in weights that are rounded already, and belong to those that no norm is folded into.
    first, fused_first = (dtype, fused) if adapter is None else (torch.float32, False)

    def load(path: Path) -> BiRefNet:
        return load_file(
            path, patch_order=patch_order, expected_order=expected, dtype=first, fine_dtype=fine_dtype, info=info,
            fused=fused_first,
        )  # fmt: skip

    try:
        model = load(found.path)
    except CheckpointError:
        if found.repo is None or not remove_if_damaged(found.path, found.repo, token):
            raise
        model = load(find().path)  # downloaded anew
    if adapter is not None:
        merge_adapter(model, adapter, adapter_strength)
        model = convert(fuse_for_inference(model) if fused else model, dtype, fine_dtype)
    if device.type == "cpu":
        return model
    with for_weights(device):
        return model.to(device)


def load_file(
    path: str | os.PathLike[str],
    *,
    patch_order: PatchOrder | str = "auto",
    expected_order: PatchOrder | None = None,
    dtype: torch.dtype | None = torch.float32,
    fine_dtype: torch.dtype = torch.float32,
    info: CheckpointInfo | None = None,
    fused: bool = False,
) -> BiRefNet:
    """Builds the network of a checkpoint file.

    Args:
        path: A .safetensors, .pth or .pt file.
        patch_order: See ``model_from_state_dict``; "auto" trusts the file's metadata, then the weights,
            then ``expected_order``.
        expected_order: What the catalogue says.
        dtype: Floating-point type of the network; None keeps that of the file.
        fine_dtype: See ``model_from_state_dict``.
        info: What the catalogue says of the file.
        fused: See ``model_from_state_dict``.

    Raises:
        CheckpointError: See ``model_from_state_dict`` and ``io.open_file``.
        MemoryLimitError: Too little memory.
    """
    check_switch("fused", fused)

    def load() -> BiRefNet:
        return _build(open_file(path), patch_order, expected_order, dtype, fine_dtype, info, fused)

    try:
        return load()
    except ChangedError:
        return load()  # a training replaces its files by whole ones


def _build(
    file: CheckpointFile,
    patch_order: PatchOrder | str,
    expected_order: PatchOrder | None,
    dtype: torch.dtype | None,
    fine_dtype: torch.dtype,
    info: CheckpointInfo | None,
    fused: bool,
) -> BiRefNet:
    """``load_file`` of an open file."""
    path = file.path
    if "birefnet_adapter" in file.metadata:
        raise CheckpointError(
            f"{path}: this is a low-rank adapter, not a network. Load the network it was trained on, and give this "
            "file as adapter."
        )
    info = dataclasses.replace(info or CheckpointInfo(name=path.stem), path=path)
    with explained(path):
        try:
            metadata = _parse_metadata(file.metadata)
            if metadata is not None:
                info = dataclasses.replace(
                    info,
                    training_size=metadata.training_size,
                    licence=metadata.licence,
                    provenance=metadata.provenance,
                )
                if patch_order == "auto" and metadata.config is not None:
                    patch_order = metadata.config.patch_order
                    info = dataclasses.replace(info, patch_order_source="metadata")
            model = model_from_state_dict(
                file.tensors,
                patch_order=patch_order,
                expected_order=expected_order,
                config=metadata.config if metadata else None,
                dtype=dtype,
                fine_dtype=fine_dtype,
                info=info,
                scales=metadata.scales if metadata else None,
                files=file.files,
                fused=fused,
            )
            if metadata and metadata.scales is None:
                model.scales = combine_scales(model.scales, unknown_scales(model))
            return model
        except (CheckpointError, ConfigError) as error:
            told = str(error).removeprefix(f"{path}: ")  # reading names the file already
            raise CheckpointError(f"{path}: {told}{newer_generation(path.name, file.tensors)}") from error
        finally:
            file.verify()  # damage explains more than what follows from it


class _Metadata(NamedTuple):
    """What ``save.network_metadata`` wrote into a file; no configuration in states of trainings by version 0.1."""

    config: BiRefNetConfig | None
    training_size: tuple[int, int]
    licence: str
    provenance: str
    scales: dict[str, Tensor] | None  # None in files of version 0.1


def _parse_metadata(metadata: Mapping[str, str]) -> _Metadata | None:
    """The metadata of a file of this package; None for files of other origin."""
    if not metadata.keys() & {"birefnet_config", "birefnet_format"}:
        return None
    try:
        options = metadata.get("birefnet_config")
        config = BiRefNetConfig.from_dict(json.loads(options)) if options is not None else None
        size = training_size_from_text(metadata["training_size"])
        scales = read_scales(metadata)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"its metadata cannot be read ({first_line(error)}).") from error
    return _Metadata(config, size, metadata.get("licence", ""), metadata.get("provenance", ""), scales)
