"""The network to train, and which of its parts learn when."""

from __future__ import annotations

import dataclasses
import logging

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ..checkpoints import keymap, load_model
from ..checkpoints.io import read_file
from ..config import BiRefNetConfig
from ..errors import CheckpointError, ConfigError
from ..losses import LossWeights, region_fine_tuning
from ..network import BiRefNet
from .dataset import seed_of
from .lora import add_adapters
from .recipe import DEFAULT_BACKBONE, Recipe

logger = logging.getLogger(__name__)

# Parts of a classification network that an encoder does not have, and the reverse.
_ENCODER_EXTRAS = ("head.", "fc.", "norm.", "attn_mask", "relative_coords_table", "relative_position_index")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """What holds in an epoch.

    Attributes:
        encoder: Whether the encoder learns.
        weights: Of the loss.
    """

    encoder: bool
    weights: LossWeights


def phase_of(recipe: Recipe, epoch: int) -> Phase:
    """The phase of an epoch, counted from 0: a function of the epoch alone."""
    weights = region_fine_tuning(recipe.loss, epoch, epochs=recipe.epochs, last=recipe.rlft)
    return Phase(encoder=recipe.train == "all" and epoch >= recipe.decoder_epochs, weights=weights)


def build_network(recipe: Recipe, classes: int = 0) -> BiRefNet:
    """The network a recipe starts from, with adapters and checkpointing as it asks for, on the CPU in float32.

    Args:
        recipe: The recipe.
        classes: Classes the data have; the auxiliary head has at least as many.

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
    if recipe.encoder:
        load_encoder(model, recipe.encoder)
    if recipe.train == "lora":
        add_adapters(model, recipe.lora_rank, recipe.lora_alpha)
    if recipe.checkpoint_activations:
        model.set_grad_checkpointing()
    return model


def _with_classes(model: BiRefNet, classes: int) -> BiRefNet:
    """The network with a class head where the data need one; all else keeps its weights."""
    if not classes or classes == model.config.num_classes:
        return model
    if model.config.num_classes:
        raise ConfigError(
            f"the checkpoint knows {model.config.num_classes} classes, the data have {classes}. Use --classes none."
        )
    grown = BiRefNet(model.config.replace(num_classes=classes))
    grown.load_state_dict({**grown.state_dict(), **model.state_dict()})
    grown.checkpoint = model.checkpoint
    return grown


def load_encoder(model: BiRefNet, path: str) -> None:
    """Fills a network's encoder with pretrained weights under their authors' names, or from a whole BiRefNet.

    Raises:
        CheckpointError: Weights are missing, or of another encoder.
    """
    tensors = read_file(path).tensors
    backbone = model.localization.encoder.backbone
    prefix = "localization.encoder.backbone."
    tensors = {name if name.startswith("bb.") else f"bb.{name}": tensor for name, tensor in tensors.items()}
    names, _ = keymap.from_published(tensors, model.config)
    found = {ours.removeprefix(prefix): tensors[name] for name, ours in names.items() if ours.startswith(prefix)}
    state = backbone.state_dict()
    optional = [name for name in state if name.endswith(_ENCODER_EXTRAS[-1]) or name.startswith(("norms.", "norm"))]
    missing = [name for name in state if name not in found and name not in optional]
    wrong = [name for name in state if name in found and found[name].shape != state[name].shape]
    if missing or wrong:
        kind = f"{len(missing)} weights are missing" if missing else f"{len(wrong)} have another shape"
        raise CheckpointError(
            f"{path}: not the weights of a {model.config.backbone} encoder: {kind} "
            f"({', '.join((missing + wrong)[:3])})."
        )
    backbone.load_state_dict({name: found.get(name, value) for name, value in state.items()})


def freezes_norms(recipe: Recipe, world: int) -> bool:
    """Whether BatchNorm keeps its statistics; says why where it was not asked for."""
    if recipe.freeze_bn:
        return True
    if recipe.train == "lora":
        logger.info("BatchNorm keeps its statistics: an adapter has no room for new ones.")
        return True
    if recipe.batch_size == 1 and not (recipe.sync_bn and world > 1):
        logger.warning(
            "BatchNorm keeps its statistics, because a batch of 1 has none (the network keeps its norms, so that its "
            "checkpoint loads everywhere).%s A batch size of 2 or more, or sync_bn, trains them.",
            "" if recipe.init else " For a new network that is a poor start.",
        )
        return True
    return False


def set_phase(model: BiRefNet, recipe: Recipe, phase: Phase, *, frozen_norms: bool) -> None:
    """Puts a network into train mode with the parts learning that should.

    A frozen encoder is in eval mode: nothing is dropped in it, and nothing of it is kept for the backward pass.
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


def leaves_unused(model: BiRefNet, phase: Phase) -> bool:
    """Whether some parameters get no gradient in a phase, which several processes must know of."""
    weights = phase.weights
    config = model.config
    maps = weights.bce or weights.iou or weights.ssim or weights.mae or weights.mse or weights.structure
    gradient = config.outward_reference and not weights.gradient
    return bool(gradient or (config.num_classes and not weights.ce) or not maps)
