"""What the nodes compute, over stand-ins for ComfyUI: the same as the core, and messages that help."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from birefnet_core.errors import BiRefNetError, ImageError

LOAD = {"dtype": "fp32", "device": "auto", "patch_order": "auto"}
SEGMENT = {"size": "auto (training size)", "width": 64, "height": 96}


def node(comfy, name):
    return next(n for n in comfy.nodes.NODES if n.__name__ == name)


@pytest.fixture(scope="module")
def model(comfy, small_file):
    return node(comfy, "BiRefNetLoadModel").execute(small_file, **LOAD).result[0]


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 50, 70, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def apply(comfy, schemas):
    defaults = {i.id: i.default for i in schemas["BiRefNetApplyAlpha"].inputs if i.default is not None}
    return lambda **inputs: node(comfy, "BiRefNetApplyAlpha").execute(**{**defaults, "background": None, **inputs})


@pytest.fixture(scope="module")
def refine(comfy, schemas):
    defaults = {i.id: i.default for i in schemas["BiRefNetRefineMask"].inputs if i.default is not None}
    return lambda **inputs: node(comfy, "BiRefNetRefineMask").execute(**{**defaults, **inputs}).result[0]


def test_loading_the_same_file_twice_costs_nothing(comfy, model, small_file):
    again = node(comfy, "BiRefNetLoadModel").execute(small_file, **LOAD).result
    assert again[0] is model and again[1] is model


def test_norms_are_folded_before_weights_are_rounded(comfy, small_file):
    handle = node(comfy, "BiRefNetLoadModel").execute(small_file, **{**LOAD, "dtype": "fp16"}).result[0]
    path = comfy.folders.get_full_path("birefnet", small_file)
    expected = comfy.core.load_model(path, dtype="fp16", fused=True).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in handle.model.state_dict().items())


def test_a_file_that_is_replaced_while_it_is_read_is_read_anew(comfy, small_file, monkeypatch):
    loader = node(comfy, "BiRefNetLoadModel")
    path = Path(comfy.folders.get_full_path("birefnet", small_file))
    name = "replaced.safetensors"
    copy = Path(shutil.copy(path, path.with_name(name)))
    load_module = sys.modules[f"{comfy.core.__name__}.checkpoints.load"]
    load_model = load_module.load_model

    def replace_after(*args, **options):
        model = load_model(*args, **options)
        os.utime(copy, ns=(1, 1))
        return model

    with monkeypatch.context() as patch:
        patch.setattr(load_module, "load_model", replace_after)
        first = loader.execute(name, **LOAD).result[0]
    second = loader.execute(name, **LOAD).result[0]
    assert second is not first
    assert loader.execute(name, **LOAD).result[0] is second
    copy.unlink()


@pytest.mark.skipif(os.name == "nt", reason="tells the time of creation only, which a file of the same name inherits")
def test_a_file_put_in_the_place_of_one_of_the_same_size_and_time_is_noticed(comfy, small_file):
    path = Path(comfy.folders.models_dir, "birefnet", "stamped.safetensors")
    stamps, stamps_of_links = [], []
    for content in (b"old", b"new"):
        path.with_suffix(".part").write_bytes(content)
        os.utime(path.with_suffix(".part"), (1, 1))  # as files of containers' images are
        os.replace(path.with_suffix(".part"), path)
        stamps.append(comfy.model_folders.file_stamp(path.name))
        stamps_of_links.append(comfy.model_folders.file_stamp(None))  # the name comes from another node
    path.unlink()
    assert stamps[0] != stamps[1]
    assert stamps_of_links[0] != stamps_of_links[1] != comfy.model_folders.file_stamp(None)


def test_compiling_is_off_unless_asked_for_and_changes_no_mask(comfy, model, small_file, images, monkeypatch):
    made = []
    monkeypatch.setattr(torch, "compile", lambda network, **_: made.append(network) or network)
    expected = node(comfy, "BiRefNetSegment").execute(model, images[:1], **SEGMENT).result[0]
    assert not made
    compiled = node(comfy, "BiRefNetLoadModel").execute(small_file, **LOAD, compile=True).result[0]
    assert compiled is not model
    for _ in range(2):
        assert torch.equal(node(comfy, "BiRefNetSegment").execute(compiled, images[:1], **SEGMENT).result[0], expected)
    assert made and {call.__self__ for call in made} <= set(compiled.model.localization.encoder.modules())


def test_a_compiled_run_is_cancelled_between_images(comfy, small_file, images, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    compiled = node(comfy, "BiRefNetLoadModel").execute(small_file, **LOAD, compile=True).result[0]
    # Hooks on the layers would break what is compiled into pieces.
    assert not any(module._forward_pre_hooks for module in compiled.model.modules())
    handle = compiled.model.register_forward_hook(lambda *_: setattr(comfy, "cancelled", True))
    comfy.progress.clear()
    with pytest.raises(comfy.Interrupted):
        node(comfy, "BiRefNetSegment").execute(compiled, images, **SEGMENT)
    handle.remove()
    assert comfy.progress == [(0, 3)]


@pytest.mark.parametrize(
    ("size", "wanted"), [("auto (training size)", None), ("native", "native"), ("custom", (64, 96))]
)
def test_masks_equal_the_core(comfy, model, images, size, wanted):
    mask, passed_on = node(comfy, "BiRefNetSegment").execute(model, images, **{**SEGMENT, "size": size}).result
    assert passed_on is images
    assert torch.equal(mask, comfy.core.Segmenter(model.model)(images, wanted))


@pytest.mark.parametrize("options", [{"flip": True}, {"tiled": True}, {"frames_per_step": 2}])
def test_options_of_segment_reach_the_core(comfy, model, images, options):
    mask = node(comfy, "BiRefNetSegment").execute(model, images, **SEGMENT, **options).result[0]
    frames = options.pop("frames_per_step", 1)
    expected = comfy.core.Segmenter(model.model, batch_size=frames)(images, None, **options)
    assert torch.equal(mask, expected)


def test_a_region_and_a_box_of_the_same_place_agree(comfy, model, images):
    region = torch.zeros(1, 50, 70)
    region[:, 10:30, 20:50] = 1
    box = {"x": 20, "y": 10, "width": 30, "height": 20}
    segment = node(comfy, "BiRefNetSegment").execute
    first = segment(model, images, **SEGMENT, region=region, margin=0.0).result[0]
    for boxes in (box, [box], [[box], [box], [box]]):
        assert torch.equal(segment(model, images, **SEGMENT, box=boxes, margin=0.0).result[0], first)
    assert first[:, 10:30, 20:50].any() and not first[:, 31:].any()


def test_fp16_images_and_alpha_and_one_pixel_are_taken(comfy, model):
    segment = node(comfy, "BiRefNetSegment").execute
    assert segment(model, torch.rand(1, 20, 30, 4).half(), **SEGMENT).result[0].shape == (1, 20, 30)
    assert segment(model, torch.rand(1, 1, 1, 3), **SEGMENT).result[0].isfinite().all()


def test_cancelling_ends_within_an_image_and_passes_through(comfy, model, images):
    blocks = [m for m in model.model.localization.encoder.modules() if isinstance(m, torch.nn.ModuleList)]
    handle = blocks[0][0].register_forward_hook(lambda *_: setattr(comfy, "cancelled", True))
    comfy.progress.clear()
    with pytest.raises(comfy.Interrupted):
        node(comfy, "BiRefNetSegment").execute(model, images[:1], **SEGMENT)
    handle.remove()
    assert comfy.progress == [(0, 1)]
    assert node(comfy, "BiRefNetSegment").execute(model, images, **SEGMENT).result[0].shape == (3, 50, 70)


def test_cancelling_is_checked_at_blocks_and_not_at_every_layer(model):
    modules = list(model.model.modules())
    assert 10 < sum(bool(module._forward_pre_hooks) for module in modules) < len(modules) / 4


def test_progress_counts_every_image(comfy, model, images):
    comfy.progress.clear()
    node(comfy, "BiRefNetSegment").execute(model, images, **SEGMENT)
    assert comfy.progress == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_memory_is_asked_for_before_the_model_is_used(comfy, model, images):
    node(comfy, "BiRefNetSegment").execute(model, images, **SEGMENT, frames_per_step=2)
    asked = comfy.loaded[-1]
    assert asked["force_full_load"] and asked["memory_required"] == 2 * comfy.core.Segmenter(
        model.model
    ).memory_required(64, 64)


@pytest.mark.parametrize(
    "unload", [lambda patcher: patcher.detach(), lambda patcher: patcher.partially_unload(torch.device("cpu"), 2**20)]
)
def test_graphs_are_freed_when_comfyui_unloads_the_model_or_a_part_of_it(unload, model, monkeypatch):
    released = []
    monkeypatch.setattr(model._segmenter, "release", lambda: released.append(True))
    model.patcher.detach(unpatch_all=False)
    assert not released
    unload(model.patcher)
    assert len(released) == 1


def test_core_s_remove_background_can_use_the_model(comfy, model, images):
    assert torch.equal(model.encode_image(images), comfy.core.Segmenter(model.model)(images))


def test_refining_is_off_by_default_and_equals_the_core(comfy, refine):
    mask = torch.rand(2, 30, 40)
    assert torch.equal(refine(mask=mask), mask)
    assert torch.equal(refine(mask=mask, invert=True), 1 - mask)
    hard = refine(mask=mask, threshold=0.5, grow=-1)
    options = comfy.compat.core(".masks").RefineOptions(threshold=0.5, grow=-1)
    assert torch.equal(hard, comfy.compat.core(".masks").refine_mask(mask, options))


def test_rgba_keeps_the_mask_as_alpha(apply):
    """ComfyUI's SaveImage writes the fourth channel as alpha, opaque at 1: the same way round as our masks."""
    image, mask = torch.rand(1, 20, 30, 3), torch.rand(1, 20, 30)
    cutout, alpha = apply(image=image, mask=mask, colors="off").result
    assert torch.equal(cutout, torch.cat([image, mask[..., None]], dim=-1))
    assert torch.equal(alpha, mask)


@pytest.mark.parametrize(
    ("output", "channels"),
    [("RGBA", 4), ("RGBA premultiplied", 4), ("over color", 3), ("over background", 3), ("over checkerboard", 3)],
)
def test_every_output_has_its_channels_and_batch(apply, output, channels):
    result = apply(
        image=torch.rand(1, 20, 30, 4), mask=torch.rand(3, 10, 15), output=output, background=torch.rand(1, 8, 9, 3)
    )
    cutout, alpha = result.result
    assert cutout.shape == (3, 20, 30, channels) and alpha.shape == (3, 20, 30)
    assert result.ui.images.shape[-1] == channels


def test_cropping_keeps_the_padding(apply):
    mask = torch.zeros(1, 40, 50)
    mask[:, 10:20, 15:30] = 1
    cutout, alpha = apply(image=torch.rand(1, 40, 50, 3), mask=mask, crop=True, padding=3).result
    assert cutout.shape == (1, 16, 21, 4) and alpha.shape == (1, 16, 21)


def test_the_colours_of_apply_alpha_are_the_cores(comfy, apply):
    image, mask = torch.rand(1, 40, 50, 3), torch.rand(1, 40, 50)
    for name, method in (("multilevel", "multilevel"), ("blur fusion", "blur_fusion")):
        cutout = apply(image=image, mask=mask, colors=name).result[0]
        assert torch.equal(cutout[..., :3], comfy.core.estimate_foreground(image, mask, method))


def test_remove_background_stands_for_three_nodes(comfy):
    output = node(comfy, "BiRefNetRemoveBackground").execute(torch.rand(1, 8, 8, 3), "BiRefNet_lite")
    kinds = [n["class_type"] for n in output.expand.values()]
    assert kinds == ["BiRefNetLoadModel", "BiRefNetSegment", "BiRefNetApplyAlpha"]
    assert output.result == (["3", 0], ["2", 0])
    options = {**LOAD, "dtype": "auto", "adapter": "none", "compile": False}
    assert output.expand["1"]["inputs"] == {"model": "BiRefNet_lite", **options}


def test_comparing_a_mask_with_itself_is_perfect(comfy):
    mask = torch.zeros(2, 30, 40)
    mask[:, 8:20, 10:30] = 1
    text, picture, *scores = node(comfy, "BiRefNetCompareMasks").execute(mask, mask[:1]).result
    named = dict(line.split() for line in text.splitlines())
    assert float(named["MAE"]) == 0 and float(named["maxF"]) == 1 and float(named["BIoU"]) == 1
    assert picture.shape == (2, 30, 40, 3) and len(scores) == 10


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda c, m, a, r: a(image=torch.rand(2, 8, 8, 3), mask=torch.rand(3, 8, 8)), ImageError, "2 frames"),
        (lambda c, m, a, r: a(image=torch.rand(0, 8, 8, 3), mask=torch.rand(1, 8, 8)), ImageError, "0 frames"),
        (
            lambda c, m, a, r: a(image=torch.rand(1, 8, 8, 3), mask=torch.rand(1, 8, 8), output="over background"),
            ImageError,
            "background",
        ),
        (
            lambda c, m, a, r: a(
                image=torch.rand(1, 8, 8, 3), mask=torch.rand(1, 8, 8), output="over color", color="blueish"
            ),
            BiRefNetError,
            "#ff8800",
        ),
        (lambda c, m, a, r: r(mask=torch.rand(1, 8, 8), guided_radius=3), ImageError, "guided filter needs"),
        (lambda c, m, a, r: r(mask=torch.full((1, 8, 8), float("nan"))), ImageError, "NaN"),
        (
            lambda c, m, a, r: node(c, "BiRefNetSegment").execute(m, torch.rand(0, 8, 8, 3), **SEGMENT),
            ImageError,
            "at least one image",
        ),
        (
            lambda c, m, a, r: node(c, "BiRefNetSegment").execute(m, torch.rand(1, 8, 8, 3), **SEGMENT, box=3),
            ImageError,
            "width and height",
        ),
        (
            lambda c, m, a, r: node(c, "BiRefNetSegment").execute(
                m, torch.rand(1, 8, 8, 3), **SEGMENT, region=torch.zeros(1, 64, 64)
            ),
            ImageError,
            "region",
        ),
        (
            lambda c, m, a, r: node(c, "BiRefNetSegment").execute(m, torch.rand(1, 8, 8, 3), "huge", 64, 64),
            BiRefNetError,
            "auto (training size)",
        ),
        (
            lambda c, m, a, r: node(c, "BiRefNetLoadModel").execute("gone.safetensors", **LOAD),
            BiRefNetError,
            "models/birefnet",
        ),
    ],
)
def test_bad_input_says_what_to_do(comfy, model, apply, refine, call, error, says):
    with pytest.raises(Exception) as caught:
        call(comfy, model, apply, refine)
    assert error.__name__ in [c.__name__ for c in type(caught.value).__mro__]
    assert (type(caught.value).__module__, type(caught.value).__name__) == ("builtins", "BiRefNet")
    assert says in str(caught.value)


def test_a_catalogue_entry_without_network_says_what_to_do(comfy, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Exception, match=r"ZhengPeng7/BiRefNet_lite.*HF_HUB_OFFLINE"):
        node(comfy, "BiRefNetLoadModel").execute("BiRefNet_lite", **LOAD)


def test_a_deleted_file_is_noticed_before_the_run(comfy):
    check = node(comfy, "BiRefNetLoadModel").validate_inputs
    assert check("BiRefNet") is True
    assert "Put the file there" in check("gone.safetensors")


@pytest.mark.parametrize("name", ["BiRefNetLoadModel", "BiRefNetRemoveBackground"])
def test_a_name_from_another_node_is_checked_when_it_is_loaded(comfy, name):
    """ComfyUI knows no value for it before the run, and passes None."""
    kind = node(comfy, name)
    assert kind.validate_inputs(None) is True
    assert isinstance(kind.fingerprint_inputs(None), str)
    with pytest.raises(Exception, match="Put the file there"):
        node(comfy, "BiRefNetLoadModel").execute("gone.safetensors", **LOAD)
