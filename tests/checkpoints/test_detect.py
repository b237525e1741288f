"""Random variants are built, and every option is read back from their weights."""

import pytest
import torch

import birefnet_core as bc
from birefnet_core.checkpoints import build, detect, keymap

VARIANTS = [
    {},
    {"image_pyramid": "none"},
    {"context_fusion": 0},
    {"image_pyramid": "none", "context_fusion": 0},
    {"inward_reference": False},
    {"outward_reference": False},
    {"multi_stage_supervision": False},
    {"reconstruction_block": "aspp"},
    {"reconstruction_block": "residual"},
    {"reconstruction_block": "residual", "batch_norm": False, "inward_reference": False},
    {"num_classes": 219},
    {"num_classes": 5, "batch_norm": False},
]


def state_dict(config):
    return build.empty_network(config).state_dict()


def published_state(state, config):
    names = keymap.to_published(state, config)
    return {names[name]: value for name, value in state.items()}


def as_read(published):
    """A published state dict under our names, as ``build`` translates it."""
    names, _ = keymap.from_published(published)
    return {names.get(name, name): value for name, value in published.items()}


# Of these backbones every third variant is one of the others' in the default run, another one of each.
OTHERS = ["dino_v3_s", "resnet50", "efficientnet_lite0"]


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        *[(backbone, options) for backbone in ("pvt_v2_b0", "resnet10") for options in VARIANTS],
        *[
            pytest.param(backbone, options, marks=() if i % 3 == j else pytest.mark.slow)
            for j, backbone in enumerate(OTHERS)
            for i, options in enumerate(VARIANTS)
        ],
    ],
    ids=str,
)
def test_options_are_read_from_names_and_shapes(backbone, options):
    config = bc.BiRefNetConfig(backbone=backbone, **options)
    state = state_dict(config)
    assert detect.detect_config(state) == config
    assert as_read(published_state(state, config)).keys() == state.keys()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrapper_prefixes_are_stripped(prefix):
    names = ["bb.norm0.weight", "decoder.conv_out1.0.bias"]
    state = {prefix + name: torch.zeros(1) for name in names}
    assert list(detect.strip_wrappers(state)) == names


NETWORK = {name: torch.zeros(1) for name in ("bb.norm0.weight", "squeeze_module.0.x", "decoder.conv_out1.0.bias")}


def under(prefix, names=tuple(NETWORK)):
    return {prefix + name: torch.zeros(1) for name in names}


@pytest.mark.parametrize(
    ("state", "prefix"),
    [
        ({**under("module."), "n_averaged": torch.tensor(5)}, "module."),  # torch's AveragedModel
        ({**under("model."), "criterion.weight": torch.ones(3)}, "model."),  # Lightning
        ({**under("model."), **under("loss.vgg.", ["features.0.weight"])}, "model."),
        ({**under("model."), **under("ema_model.module."), "step": torch.tensor(1)}, "ema_model.module."),
        ({**under("online_model."), **under("ema_model."), **under("", ["initted", "step"])}, "ema_model."),
        ({**under("my.own.wrapper."), "teacher.bb.norm0.weight": torch.zeros(1)}, "my.own.wrapper."),
        (under("module.module.model."), "module.module.model."),
    ],
)
def test_networks_among_other_things_are_found(state, prefix):
    assert detect.strip_wrappers(state) == {name: prefix + name for name in NETWORK}


@pytest.mark.parametrize(
    ("prefixes", "words"),
    [
        (("student.", "teacher."), "under 'student' is taken, and what is under 'teacher' left out"),
        (("model.", "ema_model."), "under 'ema_model' is taken, and what is under 'model' left out"),
        (("a.b.", "a.c.", "d."), "under 'a.b' is taken, and what is under 'a.c', 'd' left out"),
        (("model.",), ""),
    ],
)
def test_several_networks_in_one_file_are_told(prefixes, words, caplog):
    state = {"criterion.weight": torch.ones(3)}
    for prefix in prefixes:
        state |= under(prefix)
    assert len(detect.strip_wrappers(state)) == len(NETWORK)
    assert words in caplog.text
    assert bool(caplog.records) == bool(words)


def test_parts_that_wrappers_put_into_names_are_stripped():
    names = {
        "_fsdp_wrapped_module.bb._fsdp_wrapped_module.norm0.weight": "bb.norm0.weight",
        "_forward_module.decoder._orig_mod.conv_out1._checkpoint_wrapped_module.0.bias": "decoder.conv_out1.0.bias",
    }
    found = detect.strip_wrappers(dict.fromkeys(names, torch.zeros(1)))
    assert found == {stripped: name for name, stripped in names.items()}


@pytest.mark.parametrize(
    "name", ["", ".", "_orig_mod", "_orig_mod._fsdp_wrapped_module", "x" + ".y" * 200_000, "." * 3_000_000]
)
def test_names_of_any_kind_are_unknown_ones(filled, name):
    with pytest.raises(bc.CheckpointError, match="1 are unknown") as error:
        bc.model_from_state_dict({**filled("smallest"), name: torch.zeros(1)})
    assert len(str(error.value)) < 1000


def test_counters_of_thop_are_left_out():
    counters = {f"{part}{name}": torch.zeros(1) for part in ("", "bb.", "decoder.a.") for name in detect._COUNTERS}
    assert list(detect.strip_wrappers({**NETWORK, **counters})) == list(NETWORK)


def test_other_entries_beside_a_network_without_a_prefix_stay():
    state = {**NETWORK, "criterion.weight": torch.zeros(1), "ema.bb.norm0.weight": torch.zeros(1)}
    assert list(detect.strip_wrappers(state)) == list(state)


def test_a_prefix_that_is_part_of_the_names_stays():
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert list(detect.strip_wrappers(state)) == ["module.a", "b"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["model.diffusion_model.input_blocks.0.0.weight"], "Stable Diffusion"),
        (["lora_unet_down.weight"], "LoRA"),
        (["localization.squeeze.conv_in.parametrizations.weight.original"], "adapter's training"),
        (["layer1.weight", "layer2.weight"], "layer1.weight, layer2.weight"),
    ],
)
def test_strangers_are_named(names, words):
    with pytest.raises(bc.CheckpointError, match=words):
        detect.detect_config({name: torch.zeros(1) for name in names})


def test_the_older_generation_is_named():
    config = bc.BiRefNetConfig(backbone="pvt_v2_b0")
    state = published_state(state_dict(config), config)
    state = {name: value for name, value in state.items() if "ipt_blk5" not in name}
    with pytest.raises(bc.CheckpointError, match=r"older generation.*decoder\.ipt_blk5"):
        detect.detect_config(as_read(state))


def test_an_unknown_encoder_size_is_named():
    config = bc.BiRefNetConfig(backbone="pvt_v2_b2")
    state = published_state(state_dict(config), config)
    state = {name: value for name, value in state.items() if "block3.5" not in name}
    with pytest.raises(bc.CheckpointError, match="PVTv2 encoder of width 64 and 5 blocks"):
        detect.detect_config(as_read(state))
