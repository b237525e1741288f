"""Contract: the names of every published network and ours map one to one, and the shapes are equal."""

import functools
import zlib

import pytest
import torch

import birefnet_core as bc
from birefnet_core.checkpoints import build, detect, keymap
from birefnet_core.network.encoders.registry import BACKBONE_SPECS

OPTIONS = {"swin_v1_t+bs1": {"batch_norm": False}, "swin_v1_t+auxcls": {"num_classes": 219}}


@functools.cache
def shell(config):
    """A network without memory behind its weights."""
    return build.empty_network(config)


def test_published_names_map_one_to_one_onto_ours(manifest_name, manifest):
    published = {name: tuple(shape) for name, shape, _ in manifest(manifest_name).state_dict}
    config = bc.BiRefNetConfig(backbone=manifest_name.split("+")[0], **OPTIONS.get(manifest_name, {}))
    model = shell(config)
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}

    forward = keymap.to_published(ours, config)
    backward, unknown = keymap.from_published(published, config)
    assert not unknown
    assert keymap.from_published(published) == (backward, [])  # the table is found by the names alone
    assert {name: ours[mine] for mine, name in forward.items()} == published
    assert {name: mine for mine, name in forward.items()} == backward
    assert sum(p.numel() for p in model.parameters()) == manifest(manifest_name).total_parameters


def test_norms_and_dropouts_are_the_published_ones(manifest_name, manifest):
    config = bc.BiRefNetConfig(backbone=manifest_name.split("+")[0], **OPTIONS.get(manifest_name, {}))
    modules = dict(shell(config).named_modules())
    expected = manifest(manifest_name)
    backward, _ = keymap.from_published(expected.norm_layers, config)
    for published, (kind, eps, momentum) in expected.norm_layers.items():
        norm = modules[backward[published]]
        assert kind in type(norm).__name__, published
        assert norm.eps == eps, published
        if kind == "BatchNorm":
            assert norm.momentum == momentum, published
    dropouts = [rate for kind, rate in expected.active_dropouts.values() if kind == "Dropout"]
    assert [m.p for m in modules.values() if isinstance(m, torch.nn.Dropout) and m.p > 0] == dropouts
    rates = sorted(rate for kind, rate in expected.active_dropouts.values() if kind == "DropPath")
    found = {m.drop_prob for m in modules.values() if type(m).__name__ == "DropPath" and m.drop_prob > 0}
    assert sorted(found) == pytest.approx(rates)


@pytest.mark.parametrize("block", ["deformable_aspp", "aspp", "residual"])
@pytest.mark.parametrize("family", keymap.FAMILIES)
def test_prefix_tables_are_bijections(family, block):
    table = keymap.key_table(family, block)
    assert len(set(table.values())) == len(table)


@pytest.mark.parametrize("backbone", BACKBONE_SPECS)
def test_every_backbone_is_detected_from_its_names_and_shapes(backbone):
    config = bc.BiRefNetConfig(backbone=backbone)
    assert detect.detect_config(shell(config).state_dict()) == config


def test_manifest_fill_equals_its_checksum(filled):
    """The weights the recorded tensors were made with are the ones these tests use."""
    crc = 0
    for value in filled("swin_v1_t").values():
        crc = zlib.crc32(value.numpy().tobytes(), crc)
    assert crc == 1187321288
