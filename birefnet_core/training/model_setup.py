"""Builds the network to train, and freezes and wraps it for each phase of a training."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel as DDP

from ..checkpoints import keymap, load_model
from ..checkpoints.catalogue import WEIGHT_SUFFIXES
from ..checkpoints.io import read_file
from ..checkpoints.values import check_file
from ..config import BiRefNetConfig
from ..devices import has_bfloat16
from ..errors import CheckpointError, ConfigError
from ..losses import HybridLoss, LossWeights, region_fine_tuning
from ..network import BiRefNet
from .data.dataset import seed_of
from .distributed import Ranks
from .lora import add_adapters
from .recipe import DEFAULT_BACKBONE, Recipe

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """What is trained in an epoch, and by which loss.

    Attributes:
        encoder: Whether the encoder is trained.
        weights: Of the loss.
    """

    encoder: bool
    weights: LossWeights


def synchronise_norms(model: BiRefNet) -> BiRefNet:
    """The network with statistics of BatchNorm over all processes.

    Some of timm's norms hold the activation after them, which torch's own conversion would drop.
    """
    return cast(BiRefNet, convert_sync_batchnorm(model))


def phase_of(recipe: Recipe, epoch: int) -> Phase:
    """The phase of an epoch, counted from 0: a function of the epoch alone."""
    weights = region_fine_tuning(recipe.loss, epoch, epochs=recipe.epochs, last=recipe.rlft)
    return Phase(encoder=recipe.train == "all" and epoch >= recipe.decoder_epochs, weights=weights)


def build_network(recipe: Recipe, classes: int = 0) -> BiRefNet:
    """The network a recipe starts from, with its adapters and activation checkpointing, on the CPU in float32.

    Args:
        recipe: The recipe.
        classes: Number of classes in the data; 0 for a network without auxiliary head.

    Raises:
        CheckpointError, ConfigError: No such network, or not the one the recipe names.
    """
    torch.manual_seed(seed_of(recipe.seed, "weights"))
    if recipe.init:
        model = _with_classes(load_model(recipe.init), classes)
        if recipe.backbone and recipe.backbone != model.config.backbone:
            raise ConfigError(
                f"{recipe.init} has the backbone {model.config.backbone}, not {recipe.backbone}: leave --backbone out, "
                "or start from another checkpoint."
            )
    else:
        backbone = recipe.backbone or DEFAULT_BACKBONE
        options = {"backbone": backbone, "num_classes": classes, **recipe.network}
        model = BiRefNet(BiRefNetConfig.from_dict(options))
        if model.config.num_classes != classes:
            raise ConfigError(
                f"network.num_classes={model.config.num_classes}, the data have {classes}: leave it out, it follows "
                "from the data and --classes."
            )
    side = min(*recipe.size, *recipe.dynamic, *recipe.growth)
    if side < model.min_side:  # known before the batch that would have it, maybe hours later
        raise ConfigError(f"size {side}: {model.config.backbone} takes sides of at least {model.min_side} pixels.")
    if recipe.encoder:
        load_encoder(model, recipe.encoder)
    if recipe.train == "lora" and not add_adapters(model, recipe.lora_rank, recipe.lora_alpha):
        raise ConfigError(f"lora_rank={recipe.lora_rank}: no weight has more rows and columns; try 8.")
    if recipe.train == "decoder":
        model.localization.encoder.requires_grad_(False)
    if recipe.checkpoint_activations:
        model.set_grad_checkpointing()
    return model


def _with_classes(model: BiRefNet, classes: int) -> BiRefNet:
    """Adds a class head where the data need one; all other weights are kept."""
    if not classes or classes == model.config.num_classes:
        return model
    if model.config.num_classes:
        raise ConfigError(
            f"the checkpoint has {model.config.num_classes} classes, the data have {classes}. Use --classes none."
        )
    grown = BiRefNet(model.config.replace(num_classes=classes))
    grown.load_state_dict({**grown.state_dict(), **model.state_dict()})
    grown.checkpoint = model.checkpoint
    return grown


def load_encoder(model: BiRefNet, source: str) -> None:
    """Loads pretrained weights into a network's encoder.

    They may be under their authors' names, or those of a whole BiRefNet. For EfficientNet-Lite any names will do, if
    the weights are in timm's order. Norms of the outputs, which classification networks do not have, may be missing;
    buffers that follow from the architecture too.

    Args:
        model: The network.
        source: A file, or an installed package that holds one.

    Raises:
        CheckpointError: No such file, one that cannot be read, or weights that are missing or of another encoder.
    """
    path = _encoder_file(source)
    tensors = read_file(path).tensors
    backbone = model.localization.encoder.backbone
    state = backbone.state_dict()
    found = _in_order(tensors, state) if model.config.backbone.startswith("efficientnet_lite") else None
    if found is None:
        found = {ours: tensors[name] for name, ours in keymap.from_encoder_file(tensors, model.config).items()}
    optional = [name for name in state if name.startswith("norm") or name.endswith("relative_position_index")]
    missing = [name for name in state if name not in found and name not in optional]
    wrong = [name for name in state if name in found and found[name].shape != state[name].shape]
    if missing or wrong:
        kind = f"{len(missing)} weights are missing" if missing else f"{len(wrong)} have another shape"
        raise CheckpointError(
            f"{path}: not the weights of a {model.config.backbone} encoder: {kind} "
            f"({', '.join((missing + wrong)[:3])})."
        )
    check_file(path, found)
    backbone.load_state_dict({name: found.get(name, value) for name, value in state.items()})


def _encoder_file(source: str) -> Path:
    """The file of weights that a path or the name of an installed package means.

    Raises:
        CheckpointError: Neither, or a package without a file of weights, or with several.
    """
    package = source.replace("-", "_")
    if not package.isidentifier() or os.path.isfile(source):
        return Path(source)
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise CheckpointError(f"{source}: no such file, and no such package is installed. Give one of them.")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = sorted(file for folder in folders for suffix in WEIGHT_SUFFIXES for file in folder.rglob(f"*{suffix}"))
    if len(files) != 1:
        raise CheckpointError(f"the package {source} holds {len(files)} files of weights; expected one. Give the file.")
    return files[0]


def _in_order(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Weights under the names in ``state``, whatever their own: None unless their kinds and shapes are in its order.

    Weights beyond those are of the head of a classification network.
    """
    pairs = list(zip(tensors.items(), state.items(), strict=False))
    same = all(
        theirs.rpartition(".")[2] == ours.rpartition(".")[2] and tensor.shape == value.shape
        for (theirs, tensor), (ours, value) in pairs
    )
    return {ours: tensor for (_, tensor), (ours, _) in pairs} if same and len(pairs) == len(state) else None


def freezes_batchnorm(recipe: Recipe, world_size: int) -> bool:
    """Whether BatchNorm keeps its running statistics; logs the reason where the recipe does not say so."""
    if recipe.freeze_bn:
        return True
    if recipe.train == "lora":
        logger.info("BatchNorm keeps its statistics: LoRA adapters do not store any.")
        return True
    if recipe.batch_size == 1 and not (recipe.sync_bn and world_size > 1):
        logger.warning(
            "BatchNorm keeps its statistics, because a batch of 1 has none (the network keeps its norms, so that its "
            "checkpoint loads everywhere).%s A batch size of 2 or more, or sync_bn, trains them.",
            "" if recipe.init else " For a new network that is a poor start.",
        )
        return True
    return False


def set_phase(model: BiRefNet, recipe: Recipe, phase: Phase, *, frozen_norms: bool) -> None:
    """Puts a network into train mode, and freezes what a phase does not train.

    A frozen encoder is in eval mode: without dropout, and without activations kept for the backward pass.

    Args:
        model: The network.
        recipe: Which parts are trained at all.
        phase: Which of them are in this phase.
        frozen_norms: Whether BatchNorm keeps its running statistics.
    """
    model.train()
    encoder = model.localization.encoder
    if recipe.train != "lora":
        model.requires_grad_(True)
        encoder.requires_grad_(phase.encoder)
        if not phase.encoder:
            encoder.eval()
    if frozen_norms:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def has_unused_parameters(model: BiRefNet, loss: HybridLoss) -> bool:
    """Whether some parameters get no gradient by a loss, which DDP must know."""
    heads = {"logits", *(["gradient"] if model.config.outward_reference else [])}
    heads |= {"classes"} if model.config.num_classes else set()
    return not heads <= loss.required_outputs


class PhasedModel:
    """A network as the epochs of a training run it: with frozen parts, torch.compile and DDP.

    Args:
        model: The network.
        recipe: How it is trained.
        ranks: The processes.
    """

    def __init__(self, model: BiRefNet, recipe: Recipe, ranks: Ranks) -> None:
        self.model, self.recipe, self.ranks = model, recipe, ranks
        self.frozen_norms = freezes_batchnorm(recipe, ranks.world_size)
        self._phase: Phase | None = None

    def start_epoch(self, epoch: int) -> tuple[Callable[[Tensor], Any], HybridLoss]:
        """Prepares the network for an epoch, counted from 0; gives what to call instead of it, and the loss."""
        phase = phase_of(self.recipe, epoch)
        set_phase(self.model, self.recipe, phase, frozen_norms=self.frozen_norms)
        if phase != self._phase:
            self._phase, self._loss = phase, HybridLoss(phase.weights)
            forward = torch.compile(self.model) if self.recipe.compile else self.model
            if self.ranks.world_size > 1:
                device = self.ranks.device
                forward = DDP(
                    forward,
                    device_ids=[device.index] if device.type == "cuda" else None,
                    find_unused_parameters=has_unused_parameters(self.model, self._loss),
                )
            self._forward: Callable[[Tensor], Any] = forward
        return self._forward, self._loss


def sync_gradients(forward: Callable[[Tensor], Any], enabled: bool) -> contextlib.AbstractContextManager:
    """Within this, DDP averages gradients only if enabled: at the last of the batches that are accumulated."""
    return forward.no_sync() if isinstance(forward, DDP) and not enabled else contextlib.nullcontext()


def amp_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """Data type of autocast for a recipe's ``amp``; None for float32 throughout."""
    if name == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if has_bfloat16(device) else torch.float16
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def autocast(dtype: torch.dtype | None, device: torch.device) -> contextlib.AbstractContextManager:
    """``torch.autocast``; nothing for None."""
    return torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()
