"""Low-rank adapters (Hu et al., "LoRA", 2021, https://arxiv.org/abs/2106.09685): small files that change a network.

For a weight W of O outputs, read as a matrix O, I, an adapter holds ``up`` O, r and ``down`` r, I and means
W + (alpha / r) up down. Files name weights as published; patch convolutions are in the network's own order.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from numbers import Real
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint_info import training_size_from_text, training_size_to_text
from ..config import BiRefNetConfig
from ..errors import CheckpointError, ConfigError
from ..network import BiRefNet
from ..network.birefnet import check_network
from ..text import enumerate_names, first_line
from . import keymap
from .io import read_file, write_safetensors
from .values import check_file

FORMAT = "birefnet_core/1"  # layout of the file
UP, DOWN = ".lora_up", ".lora_down"
CLASS_HEAD = "localization.classifier."  # prefix of the names of its weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """A low-rank change of some weights.

    Attributes:
        factors: Name of a weight (ours) -> up O, r and down r, I.
        scale: alpha / r.
        config: Of the network it belongs to.
        training_size: Width, height it was trained at, in pixels; None where that is not known.
    """

    factors: Mapping[str, tuple[Tensor, Tensor]]
    scale: float
    config: BiRefNetConfig
    training_size: tuple[int, int] | None = None


def save_adapter(adapter: Adapter, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> Path:
    """Writes an adapter as a .safetensors file.

    Args:
        adapter: What to write.
        path: A file ending in .safetensors; its folder is made if need be.
        metadata: Further texts to store.

    Raises:
        CheckpointError: It could not be written.
        ConfigError: Not a path.
    """
    names = keymap.to_published(adapter.factors, adapter.config)
    tensors = {}
    for ours, (up, down) in adapter.factors.items():
        tensors[names[ours] + UP], tensors[names[ours] + DOWN] = up.detach().cpu(), down.detach().cpu()
    own = {
        "format": "pt",
        "birefnet_adapter": FORMAT,
        "birefnet_config": json.dumps(adapter.config.to_dict(), sort_keys=True),
        "scale": repr(adapter.scale),
    }
    if adapter.training_size is not None:
        own["training_size"] = training_size_to_text(*adapter.training_size)
    return write_safetensors(path, tensors, {**(metadata or {}), **own})


def read_adapter(path: str | os.PathLike[str]) -> Adapter:
    """Reads an adapter.

    Raises:
        CheckpointError: Not there, not readable, or not an adapter.
    """
    file = read_file(path)
    if "birefnet_adapter" not in file.metadata:
        raise CheckpointError(
            f"{path}: not an adapter of this package but {_kind(file.tensors)}. Adapters are what train/finetune.py "
            "--train lora writes; whole networks are loaded without adapter=."
        )
    try:
        config = BiRefNetConfig.from_dict(json.loads(file.metadata["birefnet_config"]))
        scale = float(file.metadata["scale"])
        size = file.metadata.get("training_size")  # versions before did not store it
        training_size = None if size is None else training_size_from_text(size)
        stems = list(dict.fromkeys(name.removesuffix(UP).removesuffix(DOWN) for name in file.tensors))
        names, unknown = keymap.from_published(stems, config)
        factors = {ours: (file.tensors[stem + UP], file.tensors[stem + DOWN]) for stem, ours in names.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise CheckpointError(f"{path}: the adapter cannot be read ({first_line(error)}).") from error
    if unknown or not factors:
        listed = enumerate_names(unknown) or "no weights at all"
        raise CheckpointError(f"{path}: the adapter changes weights that no such network has ({listed}).")
    if not math.isfinite(scale):
        raise CheckpointError(f"{path}: the adapter's scale is {scale}, expected a finite number. Train it anew.")
    odd = [
        f"{name}: {tuple(up.shape)} and {tuple(down.shape)}"
        for name, (up, down) in factors.items()
        if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0] or not down.shape[0]
    ]
    if odd:
        raise CheckpointError(f"{path}: expected matrices O, r and r, I for each weight, found {enumerate_names(odd)}.")
    check_file(path, file.tensors)
    return Adapter(factors=factors, scale=scale, config=config, training_size=training_size)


def _kind(tensors: Mapping[str, Tensor]) -> str:
    """What a file without an adapter's metadata holds, by its names."""
    if any("lora_" in name for name in tensors):
        return "a LoRA of another program, or one that lost its metadata"
    return f"a file of {len(tensors)} weights ({enumerate_names(list(tensors))})"


@torch.no_grad()
def merge_adapter(model: BiRefNet, adapter: Adapter | str | os.PathLike[str], strength: float = 1.0) -> BiRefNet:
    """Adds an adapter to a network's weights, in place; the network is then as any other, and as fast.

    A Segmenter made of it segments at the size that the adapter was trained at, as its training validated it.

    Args:
        model: The network the adapter was trained on.
        adapter: The adapter or its file.
        strength: 1 for the whole change, 0 for none, -1 to take it out again.

    Raises:
        CheckpointError: The adapter is of another network, its change is not finite in the network's precision, or
            the network is fused.
        ConfigError: Not a network, not a path, or a strength that is no number.
    """
    check_network(model)
    if isinstance(strength, bool) or not isinstance(strength, Real):
        raise ConfigError(
            f"the strength of the adapter is {strength!r}, expected a number such as 1, its whole change."
        )
    if model.fused:
        raise CheckpointError(
            "this network is fused for inference: its norms are folded into the weights that an adapter changes. Merge "
            "the adapter into the network that fuse_for_inference was given."
        )
    name = "the adapter" if isinstance(adapter, Adapter) else str(adapter)
    adapter = adapter if isinstance(adapter, Adapter) else read_adapter(adapter)
    wanted, found = adapter.config.backbone, model.config.backbone
    if wanted != found:  # deeper networks of a family have all weights of the others, and more
        raise CheckpointError(
            f"{name} belongs to a {wanted} network and this is {found}. Load the network it was made for."
        )
    weights = dict(model.named_parameters())
    # Trainings with classes once changed their head too, which is for training only.
    factors = {ours: value for ours, value in adapter.factors.items() if not ours.startswith(CLASS_HEAD)}
    for ours, (up, down) in factors.items():
        weight = weights.get(ours)
        if weight is None or up.shape[0] != weight.shape[0] or up.shape[0] * down.shape[1] != weight.numel():
            found = "nothing" if weight is None else str(tuple(weight.shape))
            raise CheckpointError(
                f"{name} belongs to another {wanted} network: {ours} should have {up.shape[0]} x {down.shape[1]} "
                f"values, found {found}. Load the network it was made for."
            )
    unknown = [ours for ours in factors if ours in model.scales and model.scales[ours].isnan().any()]
    if unknown:
        raise CheckpointError(
            f"version 0.1 scaled {len(unknown)} of the weights that {name} changes, to save them in float16, and did "
            f"not note by how much ({enumerate_names(unknown)}). Load the file that this one was made from."
        )

    def merged(ours: str) -> Tensor:
        weight = weights[ours]
        up, down = (factor.to(weight.device, torch.float32) for factor in factors[ours])
        change = strength * adapter.scale * (up @ down)  # O I
        if (scale := model.scales.get(ours)) is not None:
            change = change * scale.to(change.device).view(-1, 1)
        return (weight + change.view_as(weight)).to(weight.dtype)  # rounded once: the sum is at least in float32

    # Computed twice, so that nothing is changed where something is wrong, and no second copy of all weights is kept.
    wrong = [ours for ours in factors if not merged(ours).isfinite().all()]
    if wrong:
        raise CheckpointError(
            f"{name} at strength {strength:g} makes {len(wrong)} weights NaN or infinite ({enumerate_names(wrong)}). "
            "Use less strength, or float32."
        )
    for ours in factors:
        weights[ours].copy_(merged(ours))
    if adapter.training_size is not None and model.checkpoint is not None and strength > 0:
        model.checkpoint = dataclasses.replace(model.checkpoint, training_size=adapter.training_size)
    return model
