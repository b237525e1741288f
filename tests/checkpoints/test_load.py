"""State dicts and files become networks, and networks become files."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.utils import prune

import birefnet_core as bc
from birefnet_core.checkpoints import build, io, load, save


def outputs(model, seed=0):
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model.float()(x).logits


@pytest.fixture
def state(filled):
    return filled("smallest")


@pytest.fixture(scope="module")
def expected(filled):
    return outputs(bc.model_from_state_dict(filled("smallest")))


def test_the_state_dict_is_copied(state, expected):
    model = bc.model_from_state_dict(state)
    for parameter in model.parameters():
        parameter.data.zero_()
    assert torch.equal(outputs(bc.model_from_state_dict(state)), expected)


def test_own_names_load(state, expected):
    model = bc.model_from_state_dict(bc.model_from_state_dict(state).state_dict())
    assert torch.equal(outputs(model), expected)


@pytest.mark.parametrize(
    ("backbone", "block"),
    [
        ("resnet50", "residual"),
        ("swin_v1_t", "residual"),
        ("vgg16", "aspp"),
        pytest.param("resnet50", "aspp", marks=pytest.mark.slow),
        pytest.param("swin_v1_t", "aspp", marks=pytest.mark.slow),
        pytest.param("vgg16", "residual", marks=pytest.mark.slow),
    ],
)
def test_own_names_of_every_family_load(backbone, block):
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone=backbone, reconstruction_block=block))
    again = bc.model_from_state_dict(model.state_dict())
    assert again.config == model.config
    assert torch.equal(outputs(again), outputs(model.eval()))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapped_files_load(prefix, state, expected, tmp_path):
    torch.save({"model": {prefix + name: value for name, value in state.items()}, "epoch": 9}, tmp_path / "x.pth")
    assert torch.equal(outputs(bc.load_file(tmp_path / "x.pth")), expected)


@pytest.mark.parametrize(
    ("file_dtype", "dtype"),
    [
        *[(dtype, None) for dtype in (torch.float16, torch.bfloat16, torch.float32)],
        (torch.float16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float16),
        (torch.float32, torch.float32),
        *[
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (
                (torch.float16, torch.float16),
                (torch.float16, torch.float32),
                (torch.bfloat16, torch.float16),
                (torch.bfloat16, torch.bfloat16),
                (torch.float32, torch.bfloat16),
            )
        ],
    ],
)
def test_any_file_dtype_loads_into_any_dtype(file_dtype, dtype, state, tmp_path):
    save_file({n: v.to(file_dtype) for n, v in state.items()}, tmp_path / "x.safetensors")
    model = bc.load_file(tmp_path / "x.safetensors", dtype=dtype)
    wanted = dtype or file_dtype
    kept = {torch.float32} if wanted == torch.bfloat16 else set()  # see network/precision.py
    assert {p.dtype for p in model.parameters()} == {wanted} | kept
    assert {b.dtype for b in model.buffers() if b.is_floating_point()} == (kept or {wanted})
    assert outputs(model).isfinite().all()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_files_load_in_inference_mode(suffix, dtype, state, tmp_path):
    path = tmp_path / f"small{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    with torch.inference_mode():
        found = bc.load_model(path, device="cpu", dtype=dtype).state_dict()
    expected = bc.load_model(path, device="cpu", dtype=dtype).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize("variant", ["swin_v1_t+bs1", "swin_v1_t+auxcls"])
def test_networks_without_norms_and_with_classes_load(variant, manifest):
    entries = manifest(variant).state_dict
    state = {name: 0.02 * torch.rand(shape) for name, shape, dtype in entries if dtype == "float32"}
    model = bc.model_from_state_dict(state)
    assert model.config.batch_norm == ("bs1" not in variant)
    assert model.config.num_classes == (219 if "auxcls" in variant else 0)
    assert outputs(model).isfinite().all()


@pytest.mark.parametrize("order", list(bc.PatchOrder))
@pytest.mark.parametrize("mode", ["cat", "add"])
def test_a_saved_network_comes_back_bit_equal(mode, order, tmp_path):
    config = bc.BiRefNetConfig(
        backbone="pvt_v2_b0",
        image_pyramid=mode,
        reconstruction_block="residual",
        gradient_mask="logit",
        patch_order=order,
    )
    model = bc.BiRefNet(config).eval()
    path = bc.save_checkpoint(
        model, tmp_path / "new" / "x.safetensors", training_size=(640, 352), licence="MIT", provenance="a test"
    )
    again = bc.load_file(path)
    assert again.config == config
    assert again.checkpoint.training_size == (640, 352)
    assert (again.checkpoint.licence, again.checkpoint.provenance) == ("MIT", "a test")
    assert again.checkpoint.patch_order_source == "metadata"
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(outputs(model), outputs(again))


def test_what_is_saved_has_exactly_the_published_names(manifest_name, manifest):
    config = bc.BiRefNetConfig(
        backbone=manifest_name.split("+")[0],
        batch_norm="bs1" not in manifest_name,
        num_classes=219 if "auxcls" in manifest_name else 0,
    )
    state = save.published_state_dict(build.empty_network(config), dtype=torch.bfloat16, device="meta")
    found = {name: (list(value.shape), value.dtype == torch.bfloat16) for name, value in state.items()}
    assert found == {name: (shape, dtype == "float32") for name, shape, dtype in manifest(manifest_name).state_dict}


def test_published_values_do_not_change_on_the_way_through(filled, tmp_path):
    state = filled("swin_v1_t")
    path = bc.save_checkpoint(bc.model_from_state_dict(state), tmp_path / "x.safetensors")
    written = io.read_file(path).tensors
    assert all(torch.equal(written[name], value) for name, value in state.items())


def test_what_is_missing_and_unknown_is_told_shortly(state):
    state.pop("decoder.conv_out1.0.bias")
    state["decoder.extra.weight"] = torch.zeros(1)
    state["decoder.conv_ms_spvn_4.bias"] = torch.zeros(7)
    with pytest.raises(bc.CheckpointError) as error:
        bc.model_from_state_dict(state)
    message = str(error.value)
    for words in ("1 weights are missing (reconstruction.head.bias)", "1 are unknown (decoder.extra.weight)", "(7,)"):
        assert words in message
    assert len(message) < 600


@pytest.mark.parametrize("content", [{}, {"a": 1}, None, torch.zeros(1)])
def test_what_is_no_state_dict_is_refused(content):
    with pytest.raises(bc.CheckpointError, match="expected a state dict"):
        bc.model_from_state_dict(content)


def test_quantized_weights_are_named_whatever_their_shapes_and_scales(state):
    """As bitsandbytes stores four bits, and as ComfyUI stores float8."""
    name = "decoder.lateral_block4.conv.weight"
    packed = {name: torch.zeros(state[name].numel() // 2, 1, dtype=torch.uint8), f"{name}.absmax": torch.ones(3)}
    with pytest.raises(bc.CheckpointError, match=rf"not floating point \({name} \(torch.uint8\)\)"):
        bc.model_from_state_dict({**state, **packed})
    scaled = {name: state[name].to(torch.float8_e4m3fn), "scaled_fp8": torch.ones(2)}
    with pytest.raises(bc.CheckpointError, match=f"float8.*{name}"):
        bc.model_from_state_dict({**state, **scaled})


def test_wrong_metadata_is_refused(state, tmp_path):
    save_file(state, tmp_path / "x.safetensors", {"birefnet_config": "{", "training_size": "1x1"})
    with pytest.raises(bc.CheckpointError, match="metadata cannot be read"):
        bc.load_file(tmp_path / "x.safetensors")


def test_the_catalogue_is_the_fallback_for_the_patch_order(state, tmp_path, caplog):
    save_file(state, tmp_path / "x.safetensors")
    with caplog.at_level(logging.INFO):
        model = load.load_file(tmp_path / "x.safetensors", expected_order=bc.PatchOrder.COLUMNS_FIRST)
    assert model.config.patch_order is bc.PatchOrder.COLUMNS_FIRST
    assert model.checkpoint.patch_order_source == "catalogue"
    assert "do not tell" in caplog.text


@pytest.mark.parametrize(
    "backbone", ["swin_v1_t", "pvt_v2_b0", "dino_v3_s", "resnet10", pytest.param("vgg16bn", marks=pytest.mark.slow)]
)
def test_loading_draws_no_random_numbers_and_leaves_nothing_without_values(backbone):
    """Buffers that are in no file are those of a network built in the ordinary way."""
    built = bc.BiRefNet(bc.BiRefNetConfig(backbone=backbone)).eval()
    derived = ("relative_position_index", "num_batches_tracked")
    state = {name: value for name, value in built.state_dict().items() if not name.endswith(derived)}
    before = torch.get_rng_state()
    loaded = bc.model_from_state_dict(state)
    assert torch.equal(torch.get_rng_state(), before)
    buffers = dict(loaded.named_buffers())
    assert buffers.keys() == dict(built.named_buffers()).keys()
    assert all(torch.equal(buffers[name], value) for name, value in built.named_buffers())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(outputs(loaded), outputs(built))


def test_nothing_is_saved_that_could_not_be_loaded(state, tmp_path):
    model, path = bc.model_from_state_dict(state), tmp_path / "a.safetensors"
    for options, words in [
        ({"metadata": {"epoch": 3}}, "'epoch': 3"),
        ({"provenance": Path("a")}, "'provenance': "),
        ({"dtype": torch.int8}, "not one that networks are saved in"),
        ({"dtype": torch.float8_e5m2}, "not one that networks are saved in"),
        ({"training_size": 1024}, r"expected \(width, height\)"),
        ({"training_size": (1024.0, 1024)}, r"expected \(width, height\)"),
        ({"training_size": (0, 1024)}, r"expected \(width, height\)"),
    ]:
        with pytest.raises(bc.ConfigError, match=words):
            bc.save_checkpoint(model, path, **options)
    # A file's name that is not UTF-8 is text with lone surrogates.
    bc.save_checkpoint(model, path, provenance="trained from caf\udce9 é")
    assert bc.load_model(path).checkpoint.provenance == r"trained from caf\udce9 é"
    before = path.read_bytes()
    with pytest.raises(bc.CheckpointError, match=r"Save the network within torch\.compile or DistributedDataParallel"):
        bc.save_checkpoint(torch.nn.DataParallel(model), path)
    with torch.no_grad():
        model.reconstruction.head.bias.fill_(torch.inf)
    with pytest.raises(bc.CheckpointError, match=r"not written.*decoder\.conv_out1\.0\.bias"):
        bc.save_checkpoint(model, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def _prune(model):
    prune.l1_unstructured(model.reconstruction.head, "weight", 0.5)


def _replace_head(model):
    model.reconstruction.head = torch.nn.Conv2d(model.reconstruction.head.in_channels, 1, 3, padding=1)


def _add_module(model):
    model.reconstruction.mine = torch.nn.Linear(2, 2)


def _remove_bias(model):
    model.reconstruction.head.bias = None


def _change_config(model):
    model.config = model.config.replace(outward_reference=False)


def _zero_large_weights(model):
    for parameter in model.reconstruction.parameters():
        parameter.data.zero_()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_prune, r"3 weights are missing, unknown or of another shape .*prune\.remove"),
        (_replace_head, "1 weights are missing, unknown or of another shape .*reconstruction.head.weight"),
        (_add_module, "2 weights are missing, unknown or of another shape .*reconstruction.mine"),
        (_remove_bias, "1 weights are missing, unknown or of another shape .*reconstruction.head.bias"),
        (_change_config, r"model\.config says \(reconstruction.*outward"),
        (_zero_large_weights, "not written.*weights are zero everywhere"),
    ],
)
def test_a_network_that_was_changed_is_not_saved_as_what_nobody_reads(change, words, state, tmp_path):
    model, path = bc.model_from_state_dict(state), tmp_path / "a.safetensors"
    change(model)
    with pytest.raises(bc.CheckpointError, match=words):
        bc.save_checkpoint(model, path)
    assert not list(tmp_path.iterdir())


def test_a_network_that_was_pruned_for_good_is_saved(state, tmp_path):
    model, path = bc.model_from_state_dict(state), tmp_path / "a.safetensors"
    _prune(model)
    prune.remove(model.reconstruction.head, "weight")
    bc.save_checkpoint(model, path)
    assert torch.equal(bc.load_model(path).reconstruction.head.weight, model.reconstruction.head.weight)


def test_a_fused_network_is_not_saved(state, tmp_path):
    model = bc.fuse_for_inference(bc.model_from_state_dict(state))
    with pytest.raises(bc.CheckpointError, match="fused for inference"):
        bc.save_checkpoint(model, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("BiRefNet_v2.safetensors", ["encoder.x", "decoder.y"]),
        ("birefnet2.safetensors", ["a"]),
        ("x.safetensors", ["backbone.dinov3.layer.0.weight", "decoder.up.weight"]),
    ],
)
def test_a_file_that_looks_like_version_2_is_named_so(file, names, tmp_path):
    save_file({name: torch.zeros(1) for name in names}, tmp_path / file)
    with pytest.raises(bc.CheckpointError, match="looks like BiRefNet v2, which this version does not have"):
        bc.load_model(tmp_path / file)


@pytest.mark.parametrize("file", ["BiRefNet_lite-2K.safetensors", "BiRefNet_2K.safetensors", "BiRefNet_HR.safetensors"])
def test_other_broken_files_are_not_taken_for_version_2(file, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / file)
    with pytest.raises(bc.CheckpointError) as caught:
        bc.load_model(tmp_path / file)
    assert "v2" not in str(caught.value)
