"""Every combination of the paper's switches is a network that trains."""

import itertools

import pytest
import torch

import birefnet_core as bc
from birefnet_core.config import RECONSTRUCTION_BLOCKS

from .combinations import covering

SWITCHES = {
    "image_pyramid": ("cat", "add", "none"),
    "context_fusion": (3, 0),
    "inward_reference": (True, False),
    "outward_reference": (True, False),
    "multi_stage_supervision": (True, False),
    "num_classes": (219, 0),
}
COMBINATIONS = list(itertools.product(*SWITCHES.values()))


def everything(output):
    """One number that depends on all outputs of a network in train mode."""
    parts = [output.logits, *output.intermediate]
    if output.gradient is not None:
        parts += [*output.gradient.predictions, *output.gradient.labels]
    if output.classes is not None:
        parts.append(output.classes)
    return sum(part.square().mean() for part in parts)


@pytest.mark.parametrize(
    ("block", "combinations"),
    [
        pytest.param("residual", covering(COMBINATIONS, 2), id="residual"),
        *(pytest.param(block, covering(COMBINATIONS, 3), id=f"{block}-three", marks=pytest.mark.slow) for block in
          RECONSTRUCTION_BLOCKS),
        *(pytest.param(block, COMBINATIONS, id=f"{block}-all", marks=pytest.mark.slow) for block in
          RECONSTRUCTION_BLOCKS),
    ],
)  # fmt: skip
def test_combinations_train(block, combinations):
    """With the smallest block any two switches in every way; with each block any three, and all of them, if slow."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    for values in combinations:
        options = dict(zip(SWITCHES, values, strict=True))
        config = bc.BiRefNetConfig(backbone="pvt_v2_b0", reconstruction_block=block, gradient_mask="logit", **options)
        model = bc.BiRefNet(config).train()
        output = model(x)
        assert output.logits.shape == (2, 1, 64, 64)
        assert len(output.intermediate) == (3 if config.multi_stage_supervision else 0)
        assert (output.gradient is not None) == config.outward_reference
        assert (output.classes is not None) == bool(config.num_classes)
        everything(output).backward()
        lacking = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not lacking, f"{options}: no finite gradient for {lacking[:3]}"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("backbone", "swin_v1_x"),
        ("image_pyramid", "sum"),
        ("context_fusion", 2),
        ("context_fusion", True),
        ("inward_reference", 1),
        ("reconstruction_block", "dense"),
        ("num_classes", -1),
        ("gradient_mask", None),
        ("patch_order", "rows_first"),
    ],
)
def test_unknown_options_are_refused(option, value):
    with pytest.raises(bc.ConfigError, match=option):
        bc.BiRefNetConfig(**{option: value})


def test_configuration_survives_json():
    import json

    config = bc.BiRefNetConfig(backbone="pvt_v2_b0", image_pyramid="add", patch_order="columns_first")
    assert bc.BiRefNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(bc.ConfigError, match="depth"):
        bc.BiRefNetConfig.from_dict({"depth": 3})
