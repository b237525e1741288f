"""What the nodes promise: ids, order, tooltips; their execute stays short."""

import inspect
import os
from pathlib import Path

import pytest

# In users' workflows for ever: inputs and outputs may be added at the end, never moved.
STABLE = {
    "BiRefNetLoadModel": (
        ["model", "dtype", "device", "patch_order", "adapter", "compile"],
        ["birefnet_model", "bg_model"],
    ),
    "BiRefNetSegment": (["model", "image", "size", "width", "height"], ["mask", "images"]),
    "BiRefNetRefineMask": (["mask"], ["refined"]),
    "BiRefNetApplyAlpha": (["image", "mask", "output", "colors", "color"], ["cutout", "alpha"]),
    "BiRefNetRemoveBackground": (["image", "model"], ["cutout", "mask"]),
    "BiRefNetCompareMasks": (["mask", "ground_truth"], ["scores", "errors", "Sm", "maxF", "wF", "meanE", "MAE"]),
    "BiRefNetTrimap": (["mask", "inside", "outside"], ["trimap", "band"]),
    "BiRefNetDespill": (["image", "screen", "color", "limit", "strength"], ["despilled"]),
    "BiRefNetCropAroundSubject": (["image", "mask", "padding", "size", "square"], ["crop", "crop_mask", "stitch"]),
    "BiRefNetStitchBack": (["stitch", "image", "blend", "mask"], ["stitched"]),
    "BiRefNetSegmentVideo": (
        ["model", "video", "output", "color", "background_fit", "colors", "smoothing", "mask_file", "size"],
        ["cutout", "mask"],
    ),
    "BiRefNetPointAtSubject": (["image", "mask", "coordinates"], ["points"]),
    "BiRefNetBoxSubject": (["image", "region"], ["box"]),
}


def test_ids_keep_their_order(schemas):
    assert set(schemas) == set(STABLE)
    for node, (inputs, outputs) in STABLE.items():
        assert [i.id for i in schemas[node].inputs][: len(inputs)] == inputs
        assert [o.id for o in schemas[node].outputs][: len(outputs)] == outputs


def test_no_output_shares_an_id_with_an_input(schemas):
    for schema in schemas.values():
        assert not {i.id for i in schema.inputs} & {o.id for o in schema.outputs}, schema.node_id


def test_everything_is_explained(schemas):
    for schema in schemas.values():
        assert schema.description and schema.search_aliases
        for part in (*schema.inputs, *schema.outputs):
            assert part.tooltip, f"{schema.node_id}.{part.id}"


def test_execute_is_short(comfy):
    for node in comfy.nodes.NODES:
        body = inspect.getsource(node.execute).split(":\n", 1)[1]
        assert len(body.strip().splitlines()) <= 15, node.__name__


def test_errors_of_every_node_are_shown_without_a_module(comfy):
    for node in (*comfy.nodes.NODES, *comfy.nodes.other_packs.NODES):
        assert node.execute.errors_are_readable, node.__name__


def test_checks_before_a_run_ask_for_no_optional_input(comfy):
    """A workflow in API format may leave them out, such as one saved before they were there."""
    for node in (*comfy.nodes.NODES, *comfy.nodes.other_packs.NODES):
        optional = {i.id for i in node.define_schema().inputs if i.optional}
        for check in (node.execute, *(getattr(node, c, None) for c in ("validate_inputs", "fingerprint_inputs"))):
            parameters = inspect.signature(check).parameters.values() if check else ()
            asked = {p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
            assert not asked & optional, f"{node.__name__}.{check.__name__}"


def test_an_older_comfyui_gets_a_schema_without_what_it_refuses(comfy, monkeypatch):
    monkeypatch.setattr(comfy.compat, "_SCHEMA_FIELDS", comfy.compat._SCHEMA_FIELDS - {"search_aliases"})
    monkeypatch.setattr(comfy.compat, "ADVANCED", {})
    assert not comfy.nodes.NODES[0].define_schema().search_aliases


def test_model_values_are_plain_names_and_labels_say_more(comfy, small_file):
    model = comfy.model_folders.model_input()
    assert model.default == "BiRefNet" and set(comfy.model_folders.catalogue()) <= set(model.options["options"])
    assert small_file in model.options["options"]
    labels = comfy.model_folders.model_labels()
    assert "general, 444 MB" in labels["BiRefNet"] and "MIT" not in labels["BiRefNet"]
    assert labels["RMBG-2.0"].endswith("(general, 885 MB, non-commercial)")


def test_a_downloaded_checkpoint_is_marked_and_not_listed_twice(comfy, tmp_path):
    file = Path(comfy.folders.models_dir, "birefnet", "BiRefNet_lite", "model.safetensors")
    file.parent.mkdir()
    file.write_bytes(b"x")
    try:
        assert comfy.model_folders.model_labels()["BiRefNet_lite"].startswith("✓")
        assert not any("BiRefNet_lite/" in name for name in comfy.model_folders.model_names())
        file.with_name("mine.safetensors").write_bytes(b"x")  # beside it, and nothing of the catalogue
        assert [name for name in comfy.model_folders.model_names() if "lite/" in name] == [
            "BiRefNet_lite/mine.safetensors"
        ]
    finally:
        file.with_name("mine.safetensors").unlink(missing_ok=True)
        file.unlink()
        file.parent.rmdir()


@pytest.mark.skipif(os.name == "nt", reason="no links")
def test_links_to_where_nobody_can_look_are_passed_over(comfy):
    """As to a network's disk that is not there; here to a name longer than any."""
    models = Path(comfy.folders.models_dir)
    links = [models / file for file in ("birefnet/BiRefNet-COD.safetensors", "RMBG/RMBG-2.0", "BiRefNet/tuned.pth")]
    for link in links:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("a" * 300)
    try:
        labels = comfy.model_folders.model_labels()
        assert not any(labels[name].startswith("✓") for name in ("BiRefNet-COD", "RMBG-2.0"))
        assert "tuned.pth" not in comfy.model_folders.model_names()
    finally:
        for link in links:
            link.unlink()


def test_models_are_listed_by_what_is_on_this_disk_and_by_purpose(comfy, small_file):
    models = Path(comfy.folders.models_dir)
    files = ("birefnet/BiRefNet-portrait.safetensors", "BiRefNet/General-HR.safetensors", "BiRefNet/tuned.pth")
    files += ("BiRefNet/swin_large_patch4_window12_384_22kto1k.pth", "RMBG/BiRefNet/BiRefNet_toonout.safetensors")
    files += ("rembg/u2net.pth", "rembg/models--ZhengPeng7--BiRefNet/model.safetensors")
    for file in files:
        (models / file).parent.mkdir(parents=True, exist_ok=True)
        (models / file).write_bytes(b"x")
    try:
        names = comfy.model_folders.model_names()
        here = ["BiRefNet", "BiRefNet_HR", "BiRefNet-portrait", "toonout", "toonout-1038lab"]
        assert names[:9] == [*here, "BiRefNet-portrait.safetensors", small_file, "tuned.pth", "demo"]
        assert names[9] == "BiRefNet_dynamic" and names[-1] == "BiRefNet-legacy"
        assert len(set(names)) == len(names)
        assert comfy.model_folders.model_labels()["BiRefNet_HR"].startswith("✓")
        for old in ("General-HR.safetensors", "BiRefNet-portrait.safetensors", "tuned.pth", "BiRefNet_toonout"):
            assert comfy.model_folders.check_model_name(old) is True
        assert comfy.model_folders.source_of("BiRefNet-general-epoch_244.pth") == "BiRefNet"
        assert comfy.model_folders.source_of("lucida@0123abc") == "lucida@0123abc"
    finally:
        for file in files:
            (models / file).unlink()


def test_wide_folders_of_extra_model_paths_are_kept(comfy, tmp_path):
    comfy.folders.add_model_folder_path("birefnet", str(tmp_path))
    (tmp_path / "mine.pth").write_bytes(b"x")
    (tmp_path / "notes.txt").write_bytes(b"x")
    assert "mine.pth" in comfy.model_folders.model_names()
    assert "notes.txt" not in comfy.model_folders.model_names()
    comfy.folders.get_folder_paths("birefnet").remove(str(tmp_path))
