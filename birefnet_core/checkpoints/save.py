"""Network -> file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from ..config import PatchOrder
from ..network import BiRefNet
from . import keymap
from .half import fit_float16
from .io import write_safetensors
from .load import CheckpointInfo
from .patch_order import change_patch_order

FORMAT = "birefnet_core/1"  # layout of the metadata below


def save_checkpoint(
    model: BiRefNet,
    path: str | os.PathLike[str],
    *,
    training_size: tuple[int, int] | None = None,
    licence: str | None = None,
    provenance: str | None = None,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes a network as a .safetensors file under the published names, for this package and every other.

    The patch convolutions are written in ``model.config.patch_order``. The metadata carries the
    configuration, training size, licence and provenance; what is not given is taken from the
    checkpoint the network came from. Loading the file back gives the same network bit for bit.

    Args:
        model: The network.
        path: A file ending in .safetensors; its folder is made if need be.
        training_size: Width, height in pixels.
        licence: Licence of the weights, such as "MIT".
        provenance: Where the weights come from, in words.
        dtype: Floating-point type in the file; None keeps the network's.
        metadata: Further texts to store, such as the recipe of a training.

    Returns:
        The path.

    Raises:
        CheckpointError: It could not be written, or does not fit into float16; nothing half-written stays behind.
    """
    config, info = model.config, model.checkpoint or CheckpointInfo()
    state = fit_float16(model.state_dict()) if dtype == torch.float16 else model.state_dict()
    names = keymap.to_published(state, config)
    tensors = {}
    for ours, published in names.items():
        tensor = state[ours].detach().cpu()
        if ours.endswith("inward.conv_in.weight"):
            tensor = change_patch_order(tensor, PatchOrder.CHANNELS_FIRST, config.patch_order)
        tensors[published] = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
    own = {
        "format": "pt",
        "birefnet_format": FORMAT,
        "birefnet_config": json.dumps(config.to_dict(), sort_keys=True),
        "training_size": "{}x{}".format(*(training_size or info.training_size)),
        "licence": licence if licence is not None else info.licence,
        "provenance": provenance if provenance is not None else info.provenance or info.name,
    }
    return write_safetensors(path, tensors, {**(metadata or {}), **own})
