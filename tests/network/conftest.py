"""Networks with the recorded weights, made once for all tests; who changes one copies it."""

import pytest
import torch
from torch import nn

import birefnet_core as bc


def without_noise(model):
    """Training outputs, with the statistics of norms fixed and nothing dropped, as they were recorded."""
    model.train()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout)) or type(module).__name__ == "DropPath":
            module.eval()
    return model


@pytest.fixture(scope="session")
def published(filled):
    """Networks of the filled weights by variant, in eval mode."""
    made = {}

    def get(variant):
        if variant not in made:
            made[variant] = bc.model_from_state_dict(filled(variant))
        return made[variant]

    return get


@pytest.fixture(scope="session")
def fused(published):
    """The fused forms of ``published``, whose parameters they share."""
    made = {}

    def get(variant):
        if variant not in made:
            made[variant] = bc.fuse_for_inference(published(variant))
        return made[variant]

    return get


@pytest.fixture(scope="session")
def published_training(published):
    """Networks of the same weights, in the same memory, as the published training step was recorded with them."""
    made = {}

    def get(variant):
        if variant not in made:
            config = published(variant).config.replace(gradient_mask="logit")
            with torch.device("meta"):
                made[variant] = bc.BiRefNet(config)
            made[variant].load_state_dict(published(variant).state_dict(), assign=True)
        return without_noise(made[variant])

    return get
