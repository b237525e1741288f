"""Networks with the recorded weights, made once for all tests; who changes one copies it."""

import pytest

import birefnet_core as bc


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
