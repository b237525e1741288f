"""What is fused computes what the network computes, with the same parameters where nothing is folded."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import utils
from torch.nn.utils import parametrizations, parametrize, prune

import birefnet_core as bc
from birefnet_core.checkpoints import build
from birefnet_core.network import layers
from birefnet_core.ops import execution
from birefnet_core.ops.deform_conv import use_backend
from birefnet_core.training.lora import add_adapters

from .combinations import covering

SWITCHES = {
    "image_pyramid": ("cat", "add", "none"),
    "context_fusion": (3, 0),
    "inward_reference": (True, False),
    "outward_reference": (True, False),
    "reconstruction_block": ("deformable_aspp", "aspp", "residual"),
    "batch_norm": (True, False),
}
COMBINATIONS = list(itertools.product(*SWITCHES.values()))


def with_lively_norms(model):
    """Random statistics, so that a norm that is not folded shows; random offsets and modulation."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, std=0.1)
    for name, parameter in model.named_parameters():
        if ".offset." in name or ".modulator." in name:
            nn.init.normal_(parameter, std=0.05)
    return model.eval()


def lively(backbone, **options):
    torch.manual_seed(0)
    return with_lively_norms(bc.BiRefNet(bc.BiRefNetConfig(backbone=backbone, **options)))


def logits(model, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(x).logits


def share(found, expected):
    """The largest difference as a share of the largest logit."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def difference(model, shape=(2, 3, 64, 96), fused=None):
    """Between the logits of a network and of its fused form."""
    return share(logits(fused or bc.fuse_for_inference(model), shape), logits(model, shape))


@pytest.mark.parametrize("variant", ["swin_v1_t", "pvt_v2_b0"])
def test_published_networks_give_the_same_logits(variant, published, fused):
    assert difference(published(variant), fused=fused(variant)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["swin_v1_t", "swin_v1_t+bs1", "pvt_v2_b0", "dino_v3_s", "resnet50", "vgg16"])
def test_larger_images_give_the_same_logits(variant, filled):
    assert difference(bc.model_from_state_dict(filled(variant)), (2, 3, 96, 160)) < 1e-5


@pytest.mark.parametrize("backbone", ["dino_v3_s", "resnet50", "vgg16"])
def test_other_families_give_the_same_logits(backbone):
    assert difference(lively(backbone), (1, 3, 64, 96)) < 1e-5


@pytest.fixture(scope="module")
def made(published):
    """Networks of two families, and their logits on the default backend in chunks of the default sizes."""
    known = {}

    def get(backbone):
        if backbone not in known:
            model = published(backbone) if backbone == "swin_v1_t" else lively(backbone)
            known[backbone] = model, logits(model, (2, 3, 96, 160))
        return known[backbone]

    return get


FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize(
    ("backbone", "backend", "memory_format"),
    [
        *itertools.product(["swin_v1_t"], ["gather", "torchvision"], FORMATS),
        ("dino_v3_s", "gather", torch.channels_last),
        ("dino_v3_s", "torchvision", torch.contiguous_format),
        pytest.param("dino_v3_s", "gather", torch.contiguous_format, marks=pytest.mark.slow),
        pytest.param("dino_v3_s", "torchvision", torch.channels_last, marks=pytest.mark.slow),
    ],
)
def test_other_backends_and_chunk_sizes_give_the_same_logits(backbone, backend, memory_format, made, monkeypatch):
    model, expected = made(backbone)
    monkeypatch.setattr(layers, "conv_memory_format", lambda device: memory_format)
    fused = bc.fuse_for_inference(model)
    small = {"map": 2**16, "attention": 2**16, "upsampled": 2**14, "deform_offsets": 2**12, "deform_gather": 2**18}
    with use_backend(backend), execution.use_chunk_sizes(**small):
        assert share(logits(fused, (2, 3, 96, 160)), expected) < 1e-5


@pytest.mark.parametrize(
    "combinations",
    [
        pytest.param(covering(COMBINATIONS, 2), id="any two"),
        pytest.param(COMBINATIONS, id="all", marks=pytest.mark.slow),
    ],
)
def test_combinations_of_switches_give_the_same_logits(combinations):
    for values in combinations:
        options = dict(zip(SWITCHES, values, strict=True))
        assert difference(lively("resnet10", **options), (1, 3, 64, 64)) < 1e-4, options


@pytest.mark.parametrize("variant", ["swin_v1_t", "pvt_v2_b0"])
@pytest.mark.parametrize("size", ["256x256", "192x320"])
def test_logits_equal_the_published_network(variant, size, fused, reference):
    expected = torch.from_numpy(reference(f"{variant}_{size}").logits)
    with torch.inference_mode():
        found = fused(variant)(torch.from_numpy(reference(f"input_{size}").x)).logits[0, 0]
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("level", [1, execution.MAX_LEVEL])
def test_every_memory_level_gives_the_same_logits(level, published, fused):
    with execution.use_memory_level(level):
        assert difference(published("pvt_v2_b0"), fused=fused("pvt_v2_b0")) < 1e-5


def test_the_network_is_left_as_it_was(published):
    model = copy.deepcopy(published("pvt_v2_b0")).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = bc.fuse_for_inference(model)
    assert model.training and not fused.training
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in fused.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    shared = {p.data_ptr() for p in model.localization.encoder.parameters()}
    assert shared <= {p.data_ptr() for p in fused.parameters()}


def test_a_fused_network_has_no_norm_and_no_head_for_training_in_its_decoder():
    config = bc.BiRefNetConfig(backbone="swin_v1_t", num_classes=219)
    fused = bc.fuse_for_inference(build.empty_network(config))
    assert type(fused) is bc.BiRefNet and fused.fused
    assert fused.config == config
    names = [name for name, _ in fused.named_parameters()]
    assert not [n for n in names if "gradient" in n or "supervision" in n or "classifier" in n or "modulator" in n]
    decoder = [*fused.reconstruction.modules(), *fused.localization.squeeze.modules()]
    assert not [module for module in decoder if isinstance(module, nn.BatchNorm2d)]


def test_a_fused_network_is_fused_once_and_not_trained(published):
    fused = bc.fuse_for_inference(published("pvt_v2_b0"))
    assert bc.fuse_for_inference(fused) is fused
    assert not fused.eval().training
    with pytest.raises(bc.ConfigError, match="cannot be trained"):
        fused.train()
    with torch.enable_grad():
        assert not fused(torch.randn(1, 3, 64, 64)).logits.requires_grad


def test_parameters_shared_with_the_network_collect_no_gradients_for_it(published):
    model = published("pvt_v2_b0")
    fused = bc.fuse_for_inference(model)
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    fused(x).logits.sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() > 0
    assert all(p.grad is None for p in (*model.parameters(), *fused.parameters()))


def test_an_adapter_is_merged(published):
    model = copy.deepcopy(published("pvt_v2_b0"))
    assert add_adapters(model, rank=2, alpha=4) > 30
    for name, parameter in model.named_parameters():
        if name.endswith(".up"):
            nn.init.normal_(parameter, std=0.05)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = bc.fuse_for_inference(model)
    assert not [name for name, _ in fused.named_parameters() if "parametrizations" in name]
    assert difference(model, fused=fused) < 1e-5
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_networks_without_numbers_are_fused_too(dtype):
    model = build.empty_network(bc.BiRefNetConfig(backbone="pvt_v2_b0")).to(dtype)
    fused = bc.fuse_for_inference(model)
    assert {tensor.device.type for tensor in (*fused.parameters(), *fused.buffers())} == {"meta"}
    assert fused.reconstruction.blocks[0].block.conv_in.bias.dtype == dtype


@pytest.mark.parametrize("variant", ["swin_v1_t", "pvt_v2_b0"])
def test_a_fused_network_takes_the_state_dict_of_another(variant, fused):
    """Also what fusing has made of its weights and is not in the state dict."""
    other = bc.fuse_for_inference(bc.BiRefNet(fused(variant).config))
    other.load_state_dict(fused(variant).state_dict())
    assert difference(fused(variant), (1, 3, 64, 64), fused=other) == 0


@pytest.mark.parametrize("block", ["deformable_aspp", "aspp", "residual"])
def test_norms_of_trainings_on_several_gpus_are_folded(block):
    model = nn.SyncBatchNorm.convert_sync_batchnorm(lively("resnet10", reconstruction_block=block))
    fused = bc.fuse_for_inference(model)
    assert difference(model, (1, 3, 64, 64), fused) < 1e-4
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in fused.reconstruction.modules())


@pytest.mark.parametrize(
    "norm", [lambda channels: nn.GroupNorm(4, channels), lambda channels: nn.BatchNorm2d(channels, affine=False)]
)
def test_norms_that_cannot_be_folded_stay(norm):
    torch.manual_seed(0)
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone="resnet10", reconstruction_block="aspp"))
    for module in list(model.reconstruction.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, norm(child.num_features))
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    assert difference(model.eval(), (1, 3, 64, 64)) < 1e-4


@pytest.mark.parametrize(
    ("change", "undo", "words"),
    [
        (lambda conv: prune.l1_unstructured(conv, "weight", 0.5), prune.remove, "weight_orig, as .*prune.remove"),
        (utils.weight_norm, utils.remove_weight_norm, "weight_g, weight_v, as .*remove_weight_norm"),
        (utils.spectral_norm, utils.remove_spectral_norm, "weight_orig, as .*remove_spectral_norm"),
        (
            parametrizations.weight_norm,
            parametrize.remove_parametrizations,
            "cannot be merged.*parametrize.remove_parametrizations",
        ),
    ],
    ids=["pruned", "weight norm", "spectral norm", "parametrization"],
)
def test_weights_that_are_computed_before_each_pass_are_refused_until_they_are_plain(change, undo, words):
    model = lively("resnet10", reconstruction_block="residual", image_pyramid="none")
    for name in ("reconstruction.blocks.0.block.0.conv1", "localization.encoder.backbone.parts.0.0"):
        layer = model.get_submodule(name)
        change(layer)
        with pytest.raises(bc.ConfigError, match=f"{name} has .*{words}"):
            bc.Segmenter(model)
        undo(layer, "weight")
        assert difference(model, (1, 3, 64, 64)) < 1e-4


def test_float64_is_folded_in_float64(published):
    model = copy.deepcopy(published("pvt_v2_b0")).double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected, found = model(x).logits, bc.fuse_for_inference(model)(x).logits
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
