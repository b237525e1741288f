"""Networks with the recorded weights, made once for all tests; who changes one copies it."""

import functools

import pytest
from torch import nn

import birefnet_core as bc
from birefnet_core.checkpoints import build


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
    return functools.cache(lambda variant: bc.model_from_state_dict(filled(variant)))


@pytest.fixture(scope="session")
def fused(published):
    """The fused forms of ``published``, whose parameters they share."""
    return functools.cache(lambda variant: bc.fuse_for_inference(published(variant)))


@pytest.fixture(scope="session")
def published_training(published):
    """Networks of the same weights, in the same memory, as the published training step was recorded with them."""

    @functools.cache
    def made(variant):
        model = build.empty_network(published(variant).config.replace(gradient_mask="logit"))
        model.load_state_dict(published(variant).state_dict(), assign=True)
        return model

    return lambda variant: without_noise(made(variant))
