"""Network -> file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoint_info import LARGEST_SIDE, CheckpointInfo, training_size_to_text
from ..config import BiRefNetConfig, PatchOrder
from ..errors import CheckpointError, ConfigError
from ..files import path_of
from ..network import BiRefNet
from ..network.birefnet import check_network
from ..text import enumerate_names
from . import keymap
from .build import empty_network
from .fit_float16 import combine_scales, fit_float16, float16_scales, write_scales
from .io import write_safetensors
from .patch_order import change_patch_order
from .values import check_types, magnitudes_of, refuse_values, refuse_zeros

FORMAT = "birefnet_core/1"  # layout of the metadata below
_ROOTS = ("localization.", "reconstruction.")  # parts of a network
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
    configuration, training size, licence and provenance; values that are not given are taken from the
    checkpoint the network came from. Loading the file back gives the same network bit for bit.

    Args:
        model: The network.
        path: A file ending in .safetensors; its folder is made if need be.
        training_size: Width, height in pixels.
        licence: Licence of the weights, such as "MIT".
        provenance: Where the weights come from, in words.
        dtype: Floating-point type in the file, of 16, 32 or 64 bits; None keeps the network's.
        metadata: Further texts to store, such as the recipe of a training.

    Returns:
        The path.

    Raises:
        CheckpointError: It could not be written, does not fit into float16, is fused, has other weights than its
            configuration says, or such as no reader takes; nothing half-written stays behind.
        ConfigError: A dtype, a training size or a text that no file has; not a network, or not a path.
    """
    path = path_of(path, "path")
    if not isinstance(model, nn.Module):  # wrappers are told below
        check_network(model)
    if dtype not in (None, *_DTYPES):
        known = ", ".join(map(str, _DTYPES))
        raise ConfigError(f"dtype={dtype!r} is not one that networks are saved in; use None or one of {known}.")
    info = getattr(model, "checkpoint", None) or CheckpointInfo()  # wrappers, which are refused below, have none
    size = training_size or info.training_size
    whole = isinstance(size, Sequence) and len(size) == 2 and all(isinstance(side, Integral) for side in size)
    if not (whole and all(0 < side <= LARGEST_SIDE for side in size)):
        raise ConfigError(f"training_size={size!r}: expected (width, height), each from 1 to {LARGEST_SIDE}.")
    if not isinstance(metadata, Mapping | None):
        raise ConfigError(f"metadata is a {type(metadata).__name__}, expected texts by name.")
    tensors = published_state_dict(model, dtype=dtype)
    try:
        check_types(tensors)
        magnitudes = magnitudes_of(tensors)
        refuse_values(tensors, magnitudes)
        refuse_zeros(tensors, magnitudes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: not written. {error}") from error
    own = network_metadata(model, size)
    if licence is not None:
        own["licence"] = licence
    if provenance is not None:
        own["provenance"] = provenance
    return write_safetensors(path, tensors, {**(metadata or {}), **own, **write_scales(_scales(model, dtype))})


def network_metadata(model: BiRefNet, size: Sequence[int], patch_order: PatchOrder | None = None) -> dict[str, str]:
    """What a file says of its network beside the weights: texts by name.

    Args:
        model: The network.
        size: Width, height in pixels it is trained at.
        patch_order: Of the weights in the file; None for that of the network's own file.
    """
    config = model.config.replace(patch_order=patch_order) if patch_order else model.config
    info = model.checkpoint or CheckpointInfo()
    return {
        "format": "pt",
        "birefnet_format": FORMAT,
        "birefnet_config": json.dumps(config.to_dict(), sort_keys=True),
        "training_size": training_size_to_text(*size),
        "licence": info.licence,
        "provenance": info.provenance or info.name,
    }


def _scales(model: BiRefNet, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """What the weights in a file are multiplied by, under the published names."""
    more = float16_scales(model, model.state_dict()) if dtype == torch.float16 else {}
    both = combine_scales(model.scales, more)
    published = keymap.to_published(both, model.config)
    return {published[name]: scale for name, scale in both.items()}


def published_state_dict(
    model: BiRefNet, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """The weights of a network under the published names, patch convolutions in ``model.config.patch_order``.

    Args:
        model: The network.
        dtype: Floating-point type; None keeps the network's.
        device: Where the tensors go.

    Raises:
        CheckpointError: The network is fused, is wrapped or has adapters, has other weights than its configuration
            says, or does not fit into float16.
    """
    if getattr(model, "fused", False):
        raise CheckpointError(
            "this network is fused for inference: its norms are folded into its convolutions, and no file has its "
            "layout. Save the network that fuse_for_inference was given."
        )
    state = model.state_dict()
    if odd := [name for name in state if ".parametrizations." in name or not name.startswith(_ROOTS)]:
        raise CheckpointError(
            f"{len(odd)} weights are not those of a BiRefNet alone ({enumerate_names(odd)}). Save the network within "
            "torch.compile or DistributedDataParallel; of one with adapters what training.lora.merged gives."
        )
    _check_layout(state, model.config)
    if dtype == torch.float16:
        state = fit_float16(model, state)
    tensors = {}
    for ours, published in keymap.to_published(state, model.config).items():
        tensor = state[ours].detach().to(device)
        if ours.endswith("inward.conv_in.weight"):
            tensor = change_patch_order(tensor, PatchOrder.CHANNELS_FIRST, model.config.patch_order)
        tensors[published] = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
    return tensors


def _check_layout(state: Mapping[str, Tensor], config: BiRefNetConfig) -> None:
    """Refuses a network some of whose layers were exchanged: no reader would take its file.

    Raises:
        CheckpointError: Its weights have other names or shapes than those of a network of its configuration.
    """
    expected = {name: tuple(value.shape) for name, value in empty_network(config).state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if odd := [name for name in {**expected, **found} if expected.get(name) != found.get(name)]:
        raise CheckpointError(
            f"{len(odd)} weights are missing, unknown or of another shape than model.config says "
            f"({enumerate_names(odd)}), and no reader would take the file. Undo what was exchanged in the network: "
            "torch.nn.utils.prune.remove and remove_weight_norm do so for theirs."
        )
