"""Optimizer and learning rate schedule."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

from ..network import BiRefNet
from .recipe import Recipe

ENCODER = "localization.encoder."  # prefix of the names of the encoder's parameters
FUSED = ("cpu", "cuda")  # devices with a fused optimizer
Decay = Literal["weights", "matrices"]


def make_optimizer(model: BiRefNet, recipe: Recipe, *, decay: Decay = "weights") -> Optimizer:
    """The optimizer, with parameter groups for the encoder and the rest, each with and without weight decay.

    Every parameter that may be trained later is in it; torch skips those without gradient.

    Args:
        model: The network.
        recipe: Rates, weight decay and kind of optimizer.
        decay: What has weight decay: "weights" of convolutions, linear layers and adapters, or all "matrices", as in
            version 0.1: Swin's tables of position biases and DINOv3's tokens, too.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if recipe.train == "lora" and not parameter.requires_grad:
            continue
        encoder = name.startswith(ENCODER)
        decays = parameter.ndim > 1 and (decay == "matrices" or _is_weight(name))
        groups.setdefault((encoder, decays), []).append(parameter)
    options = [
        {
            "params": parameters,
            "lr": recipe.backbone_lr if encoder and recipe.backbone_lr else recipe.lr,
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (encoder, decays), parameters in groups.items()
    ]
    optimizer = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    fused = next(model.parameters()).device.type in FUSED or None  # None: torch chooses, False is slowest
    made = optimizer(options, lr=recipe.lr, fused=fused)
    for group in made.param_groups:
        group["base_lr"] = group["lr"]
    return made


def _is_weight(name: str) -> bool:
    """Whether a parameter's name is that of a layer's weight, or of an adapter's factor of one."""
    return name.endswith(".weight") or ".parametrizations.weight." in name


def lr_multiplier(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Multiplier of the learning rates in a step: a function of the step alone, so that resuming needs no state.

    Args:
        recipe: The schedule.
        step: Counted from 0.
        steps_per_epoch: Optimizer steps of an epoch.
    """
    warm = min(1.0, (step + 1) / (recipe.warmup_steps + 1))
    if recipe.schedule == "step":
        return warm * recipe.lr_factor ** sum(step >= epoch * steps_per_epoch for epoch in recipe.lr_epochs)
    if recipe.schedule == "cosine":
        total = max(1, recipe.epochs * steps_per_epoch - recipe.warmup_steps)
        done = min(1.0, max(0, step - recipe.warmup_steps) / total)
        return warm * (recipe.lr_floor + (1 - recipe.lr_floor) * (1 + math.cos(math.pi * done)) / 2)
    return warm


def fit_recipe(recipe: Recipe, steps_per_epoch: int) -> Recipe:
    """The recipe with phases that a short training can afford, and norms that its batches can.

    At most a tenth of the steps warm up, and at most a quarter of the epochs train the decoder alone. The moving
    average needs no such limit: its decay grows with the steps done. A trained network keeps the statistics of its
    BatchNorm in batches below ``bn_least_batch``.

    Args:
        recipe: The recipe.
        steps_per_epoch: Optimizer steps of an epoch.
    """
    steps = recipe.epochs * steps_per_epoch
    small = bool(recipe.init) and recipe.batch_size < recipe.bn_least_batch and not recipe.sync_bn
    return dataclasses.replace(
        recipe,
        warmup_steps=min(recipe.warmup_steps, steps // 10),
        decoder_epochs=min(recipe.decoder_epochs, (recipe.epochs + 1) // 4),
        freeze_bn=recipe.freeze_bn or small,
    )


def set_lr(optimizer: Optimizer, multiplier: float) -> None:
    """Sets every parameter group's learning rate to a multiple of its base rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * multiplier
