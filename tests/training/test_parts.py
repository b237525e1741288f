"""Recipe, optimizer, moving average, checkpointing of activations, adapters, curves."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

import birefnet_core as bc
from birefnet_core import BiRefNetConfig
from birefnet_core.checkpoints import merge_adapter, read_adapter, save_adapter
from birefnet_core.checkpoints.build import empty_network
from birefnet_core.losses import HybridLoss, LossWeights
from birefnet_core.training import TrainingData, from_values, load_datasets, load_recipe
from birefnet_core.training.ema import Ema
from birefnet_core.training.lora import add_adapters, extract_adapter, merged
from birefnet_core.training.model_setup import (
    build_network,
    has_unused_parameters,
    load_encoder,
    phase_of,
    set_phase,
    synchronise_norms,
)
from birefnet_core.training.optim import fit_recipe, lr_multiplier, make_optimizer
from birefnet_core.training.report import plot, ticks
from birefnet_core.training.run_folder import Position
from birefnet_core.training.state import TrainState

from .conftest import TINY


def test_recipe_survives_its_file(tiny_recipe, tmp_path):
    recipe = tiny_recipe().replace(**{"loss.iou": 2, "augment.rotate": 0.25, "dynamic": [64, 96], "lr": 3e-5})
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    assert from_values(load_recipe(path)) == recipe
    assert recipe.loss.iou == 2.0
    assert recipe.network == TINY


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"loss.io": 3}, "did you mean 'loss.iou'"),
        ({"train": "decode"}, "did you mean 'decoder'"),
        ({"size": 100}, "such as 96"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": "many"}, "a whole number"),
        ({"freeze_bn": 1}, "true or false"),
        ({"lr": "fast"}, "a number"),
        ({"epochs": 5, "rlft": 6}, "more than epochs"),
        ({"rlft": 6, "loss.iou": 0, "loss.bce": 1}, "set rlft to 0"),
        ({"train": "lora"}, "name one with init"),
        ({"train": "lora", "init": "demo", "lora_alpha": 0}, "the adapters would change nothing"),
        ({"schedule": "step"}, "lr_epochs"),
        ({"schedule": "step", "lr_epochs": [-20]}, "from 1 on"),
        ({"schedule": "cosine", "lr_floor": 1.5}, "lr_floor=1.5: expected at most 1, for the rate falls by it"),
        ({"lr_floor": 1e-5, "lr_factor": 10}, "lr_factor=10.0: expected at most 1"),
        ({"augment.flip": 2}, "augment.flip"),
        ({"network.backbones": 2}, "backbones"),
        ({"ema": 1}, "below 1"),
        ({"growth": [64, 100]}, "such as 96"),
        ({"growth": [-64]}, "a multiple of 32"),
        ({"size": [16416, 32]}, "such as 16384"),  # the size could not be stored with the weights
        ({"growth": [64, 10**9]}, "such as 16384"),
        ({"dynamic": [64, 10**15]}, "such as 16384"),
        ({"growth": ["small"]}, "a whole number"),
        ({"growth": [64], "dynamic": [64, 96]}, "give one of them"),
        ({"dynamic": [96, 64]}, "the least side comes first"),
    ],
)
def test_wrong_recipes_are_refused_with_a_hint(values, message):
    with pytest.raises(bc.ConfigError) as caught:
        from_values(values)
    assert message.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    "values",
    [
        {"name": 'a "b" \\ \x7f\t 😀', "init": "/data/𠮷野/model.safetensors"},
        {"name": "caf\udce9", "init": "\ud800"},  # names of files that are not UTF-8
        {"lr": 1e300, "clip": 5e-324, "weight_decay": 0.1 + 0.2},
    ],
)
def test_recipe_of_any_values_survives_its_file(tmp_path, values):
    recipe = from_values(values)
    (tmp_path / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    assert from_values(load_recipe(tmp_path / "recipe.toml")) == recipe


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, False),
        ({"matting": True}, True),
        ({"init": "BiRefNet-matting"}, True),
        ({"init": "ZhengPeng7/BiRefNet_lite-matting"}, True),
        ({"init": "BiRefNet_lite"}, False),
        ({"init": "/data/matting_old/x.pth"}, False),
        ({"name": "matting"}, False),
    ],
)
def test_matting_is_said_by_the_recipe_or_the_catalogue(values, expected, shapes):
    text = load_datasets(from_values(values), TrainingData(sets=(shapes,))).text
    assert ("unlearn soft edges" in text) == expected


def test_rate_warms_up_and_falls(tiny_recipe):
    recipe = tiny_recipe(schedule="cosine", warmup_steps=4, epochs=10, lr_floor=0.1)
    rates = [lr_multiplier(recipe, step, 10) for step in range(100)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1
    assert rates[52] == pytest.approx(0.55, abs=0.01)
    assert rates[99] == pytest.approx(0.1, abs=0.01)
    steps = tiny_recipe(schedule="step", lr_epochs=(1, 3), epochs=4)
    assert [lr_multiplier(steps, step, 2) for step in (0, 1, 2, 5, 6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_a_rate_may_stay_what_it_is(tiny_recipe):
    recipe = tiny_recipe(schedule="cosine", lr_floor=1, epochs=5)
    assert [lr_multiplier(recipe, step, 3) for step in range(15)] == [1.0] * 15
    recipe = tiny_recipe(schedule="step", lr_factor=1, lr_epochs=(2,), epochs=5)
    assert [lr_multiplier(recipe, step, 3) for step in range(15)] == [1.0] * 15


def test_short_trainings_warm_up_for_a_tenth_and_train_the_decoder_alone_for_a_quarter():
    recipe = from_values({"epochs": 40, "warmup_steps": 20, "decoder_epochs": 5, "ema": 0.99})
    assert fit_recipe(recipe, 5) == recipe
    fitted = [fit_recipe(recipe.replace(epochs=epochs), 5) for epochs in (1, 2, 4, 8, 20)]
    assert [(one.warmup_steps, one.decoder_epochs) for one in fitted] == [(0, 0), (1, 0), (2, 1), (4, 2), (10, 5)]
    assert all(one.ema == 0.99 for one in fitted)  # its decay grows with the steps done


@pytest.mark.parametrize(
    ("values", "frozen"),
    [
        ({"init": "demo", "batch_size": 2}, True),
        ({"init": "demo", "batch_size": 2, "accumulate": 8}, True),
        ({"init": "demo", "batch_size": 2, "sync_bn": True}, False),
        ({"init": "demo", "batch_size": 4}, False),
        ({"init": "demo", "batch_size": 4, "freeze_bn": True}, True),
        ({"batch_size": 2}, False),
        ({"init": "demo", "batch_size": 2, "bn_least_batch": 2}, False),
        ({"init": "demo", "batch_size": 2, "bn_least_batch": 2, "freeze_bn": True}, True),
        ({"init": "demo", "batch_size": 4, "bn_least_batch": 8}, True),
    ],
)
def test_a_trained_network_keeps_its_statistics_in_batches_of_two(values, frozen):
    assert fit_recipe(from_values(values), 10).freeze_bn == frozen


def test_optimizer_has_every_parameter_once_in_its_group(tiny_recipe):
    recipe = tiny_recipe(backbone_lr=1e-5, weight_decay=0.1)
    model = build_network(recipe)
    groups = make_optimizer(model, recipe).param_groups
    parameters = [p for group in groups for p in group["params"]]
    assert len(parameters) == len(set(map(id, parameters))) == len(list(model.parameters()))
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {
        (1e-5, 0.1), (1e-5, 0.0), (1e-3, 0.1), (1e-3, 0.0)
    }  # fmt: skip
    assert all(p.ndim > 1 for group in groups for p in group["params"] if group["weight_decay"])


@pytest.mark.parametrize(("backbone", "tables"), [("swin_v1_t", 12), ("dino_v3_s", 2), ("pvt_v2_b0", 0)])
def test_weights_of_layers_alone_decay(tiny_recipe, backbone, tables):
    model = empty_network(BiRefNetConfig(backbone=backbone, **TINY))
    layers = {id(module.weight) for module in model.modules() if isinstance(getattr(module, "weight", None), Tensor)}
    decayed = {
        kind: {id(p) for g in make_optimizer(model, tiny_recipe(), decay=kind).param_groups if g["weight_decay"]
               for p in g["params"]}
        for kind in ("weights", "matrices")
    }  # fmt: skip
    assert decayed["weights"] == {id(p) for p in model.parameters() if p.ndim > 1} & layers
    assert len(decayed["matrices"] - decayed["weights"]) == tables  # of position biases, or tokens


def test_state_from_before_tables_had_no_decay_keeps_its_optimizer(tiny_recipe):
    def new() -> TrainState:
        model = empty_network(BiRefNetConfig(backbone="swin_v1_t", **TINY))
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        return TrainState(model, make_optimizer(model, recipe), scaler, None, Position())

    recipe, names = tiny_recipe(), {}
    older, resumed = new(), new()
    older.decay, older.optimizer = "matrices", make_optimizer(older.model, recipe, decay="matrices")
    stored = older.state_dict()
    resumed.load_state_dict({key: value for key, value in stored.items() if key != "decay"}, recipe)
    for state in (older, resumed):
        of = {id(parameter): name for name, parameter in state.model.named_parameters()}
        names[id(state)] = [[of[id(p)] for p in group["params"]] for group in state.optimizer.param_groups]
    assert names[id(resumed)] == names[id(older)]
    assert resumed.state_dict()["decay"] == "matrices"  # and when it is resumed again


def test_moving_average_equals_the_formula():
    model = torch.nn.BatchNorm1d(2)
    ema, expected = Ema(model, 0.5), torch.ones(2)
    for step in range(1, 9):
        with torch.no_grad():
            model.weight.fill_(float(step))
        ema.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert torch.allclose(ema.state["weight"], expected)
    with ema.applied(model):
        assert torch.allclose(model.weight, expected)
    assert torch.equal(model.weight, torch.full((2,), 8.0))


def test_moving_average_of_half_precision_is_kept_in_float32():
    model = torch.nn.Linear(4, 4, dtype=torch.bfloat16)
    torch.nn.init.ones_(model.weight)
    ema = Ema(model, 0.9999)
    ema.steps = 10**6  # past the first steps, which forget faster
    with torch.no_grad():
        model.weight.fill_(2.0)
    for _ in range(10):
        ema.update(model)
    assert ema.state["weight"].dtype == torch.float32
    assert torch.allclose(ema.state["weight"], torch.full((4, 4), 2 - 0.9999**10), atol=1e-6)
    with ema.applied(model):
        assert model.weight.dtype == torch.bfloat16


def test_moving_average_leaves_frozen_weights_out_and_loads_states_that_have_them(tiny_checkpoint):
    model = bc.load_model(tiny_checkpoint)
    everything = Ema(model, 0.9)  # as version 0.1 kept it
    model.localization.encoder.requires_grad_(False)
    ema = Ema(model, 0.9)
    encoder = {name for name, _ in model.named_parameters() if name.startswith("localization.encoder.")}
    assert encoder
    assert everything.state.keys() - ema.state.keys() == encoder
    everything.steps = 7
    for value in everything.state.values():
        value.add_(1)
    ema.load_state_dict(everything.state_dict())
    assert ema.steps == 7
    assert all(torch.equal(value, everything.state[name]) for name, value in ema.state.items())
    with pytest.raises(KeyError, match="squeeze"):
        ema.load_state_dict({"steps": 0, "state": {}})


def test_adapter_starts_as_nothing_and_survives_file_and_merging(tiny_checkpoint, tmp_path):
    original, model = bc.load_model(tiny_checkpoint), bc.load_model(tiny_checkpoint)
    x = torch.randn(1, 3, 64, 64)
    assert add_adapters(model, rank=4, alpha=8) > 30
    with torch.no_grad():
        assert torch.equal(model(x).logits, original(x).logits)
        for name, parameter in model.named_parameters():
            if name.endswith(".up"):
                parameter.normal_(std=0.05)
        changed = model(x).logits
        assert not torch.allclose(changed, original(x).logits, atol=1e-3)
        assert torch.equal(merged(model)(x).logits, changed)
        with pytest.raises(bc.CheckpointError, match="not those of a BiRefNet alone"):
            bc.save_checkpoint(model, tmp_path / "b.safetensors")
        path = save_adapter(extract_adapter(model), tmp_path / "a.safetensors")
        loaded = bc.load_model(tiny_checkpoint, adapter=path)
        assert torch.allclose(loaded(x).logits, changed, atol=1e-5)
        back = merge_adapter(loaded, path, strength=-1)
        assert torch.allclose(back(x).logits, original(x).logits, atol=1e-4)
    assert path.stat().st_size < tiny_checkpoint.stat().st_size / 2


def test_a_merged_network_is_where_the_adapters_are(tiny_checkpoint):
    """A validation on the CPU of a network that is trained on a GPU would take minutes for each image."""
    model = bc.load_model(tiny_checkpoint)
    add_adapters(model, rank=2, alpha=2)
    plain = merged(model.to("meta"))
    assert {value.device.type for value in plain.state_dict().values()} == {"meta"}


def test_adapter_of_another_network_is_refused(tiny_checkpoint, tmp_path):
    model = bc.load_model(tiny_checkpoint)
    add_adapters(model, rank=2, alpha=2)
    path = save_adapter(extract_adapter(model), tmp_path / "a.safetensors")
    other = bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b1", **TINY))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(bc.CheckpointError, match="belongs to a pvt_v2_b0 network and this is pvt_v2_b1"):
        merge_adapter(other, path)
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())
    with pytest.raises(bc.CheckpointError, match="not an adapter"):
        read_adapter(tiny_checkpoint)


def test_only_the_factors_learn(tiny_checkpoint, tiny_recipe):
    recipe = tiny_recipe(init=str(tiny_checkpoint), train="lora", lora_rank=2)
    model = build_network(recipe)
    set_phase(model, recipe, phase_of(recipe, 0), frozen_norms=True)
    assert {n.rsplit(".", 1)[1] for n, p in model.named_parameters() if p.requires_grad} == {"up", "down"}
    assert len(make_optimizer(model, recipe).param_groups) == 2


def test_encoder_weights_are_taken_from_a_file(tiny_checkpoint, tiny_recipe, tmp_path):
    source = bc.load_model(tiny_checkpoint)
    model = build_network(tiny_recipe(encoder=str(tiny_checkpoint)))
    ours, theirs = model.localization.encoder.state_dict(), source.localization.encoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    head, other = model.reconstruction.head.weight, source.reconstruction.head.weight
    assert not torch.equal(head, other)
    with pytest.raises(bc.CheckpointError, match="not the weights of a pvt_v2_b1 encoder"):
        load_encoder(bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b1", **TINY)), str(tiny_checkpoint))


def test_phases_follow_the_epoch(tiny_recipe):
    recipe = tiny_recipe(epochs=6, rlft=2, decoder_epochs=1)
    phases = [phase_of(recipe, epoch) for epoch in range(6)]
    assert [phase.encoder for phase in phases] == [False] + 5 * [True]
    assert [phase.weights == LossWeights(iou=0.5) for phase in phases] == 4 * [False] + 2 * [True]
    model = build_network(recipe)
    assert [has_unused_parameters(model, HybridLoss(phase.weights)) for phase in phases] == 4 * [False] + 2 * [True]


@pytest.mark.parametrize("field", ["size", "dynamic", "growth"])
def test_sizes_below_the_least_of_an_encoder_are_refused_before_the_training(tiny_recipe, field):
    with pytest.raises(bc.ConfigError, match="size 32: pvt_v2_b0 takes sides of at least 64 pixels"):
        build_network(tiny_recipe(**{field: (32, 96)}))
    assert build_network(tiny_recipe(**{field: (64, 96)}))


@pytest.mark.parametrize(("wanted", "classes"), [(3, 0), (3, 2), (0, 2), (2, 2), (0, 0)])
def test_the_number_of_classes_is_that_of_the_data(tiny_recipe, wanted, classes):
    recipe = tiny_recipe(network={**TINY, "num_classes": wanted})
    if wanted == classes:
        assert build_network(recipe, classes).config.num_classes == classes
    else:
        with pytest.raises(bc.ConfigError, match=rf"network\.num_classes={wanted}, the data have {classes}: leave it"):
            build_network(recipe, classes)


def test_ticks_are_round_and_hold_the_values():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    tiny = ((2.5e-12, 2.5e-12), (0, 4e-11), (0, 1e-300), (1, 1 + 2e-9))  # a rate near the end of its schedule
    for low, high in ((1e-4, 1e-4), (0, 0), (-3, 17), (0.51, 0.52), *tiny):
        marks = ticks(low, high)
        assert marks[0] <= low <= high <= marks[-1] and sorted(set(marks)) == marks
        assert plot("lr", {"lr": [(1, low), (2, high)]}, "step")
    assert plot("x", {"a": [(0, math.nan)]}, "step").size == (560, 300)


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet10", "pvt_v2_b0"])
def test_norms_over_processes_change_nothing_else(backbone):
    """torch's own conversion dropped the activations of EfficientNet, whose norms hold them."""
    torch.manual_seed(0)
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone=backbone, **TINY)).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(x).logits
        names = list(model.state_dict())
        model = synchronise_norms(model)
        assert torch.equal(model(x).logits, before)
    assert list(model.state_dict()) == names
    kinds = {type(module) for module in model.modules() if isinstance(module, _BatchNorm)}
    assert kinds and all(issubclass(kind, torch.nn.SyncBatchNorm) for kind in kinds)
