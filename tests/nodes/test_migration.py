"""The table of replacements fits our nodes, the old nodes' widgets, and what ComfyUI does with it."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch

FILES = sorted((Path(__file__).parents[1] / "fixtures" / "other_packs").glob("*.json"))


@pytest.fixture(scope="module")
def migration(comfy):
    return import_module("pack_under_test.nodes.migration")


@pytest.fixture(scope="module")
def other_packs(comfy):
    return import_module("pack_under_test.nodes.other_packs")


@pytest.fixture(scope="module")
def all_schemas(schemas, other_packs):
    return {**schemas, **{node.__name__: node.define_schema() for node in other_packs.NODES}}


def test_every_row_names_inputs_and_outputs_that_exist(migration, all_schemas):
    for row in migration.REPLACEMENTS:
        schema = all_schemas[row.new]
        needed = {i.id for i in schema.inputs if not i.optional}
        mapped = set(row.inputs.values()) | set(row.values)
        assert needed <= mapped <= {i.id for i in schema.inputs}, row.old
        assert set(row.optional) <= set(row.inputs), row.old
        assert max(row.outputs) < len(schema.outputs), row.old
        assert row.old not in all_schemas


def test_every_widget_is_mapped_or_a_matter_of_speed(migration):
    unused = {"use_weight", "cpu_offload", "Auto_Download_Path"}
    for row in migration.REPLACEMENTS:
        left = set(row.widgets) - set(row.inputs) - unused
        assert left <= ({"device"} if row.old == "BiRefNet" else set()), row.old


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_saved_workflows_use_the_nodes_of_the_table(path, migration):
    rows = {row.old: row for row in migration.REPLACEMENTS}
    nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
    old = [node for node in nodes if node["type"] in rows]
    assert old
    for node in old:
        assert len(node.get("widgets_values", [])) <= len(rows[node["type"]].widgets)
        assert {slot["name"] for slot in node["inputs"]} <= set(rows[node["type"]].inputs)


def test_what_an_api_workflow_leaves_out_is_added_only_where_the_old_node_is_missing(migration, monkeypatch):
    request = {"prompt": {"1": {"class_type": "BiRefNetRMBG", "inputs": {"model": "x", "mask_blur": 3}}, "2": None}}
    monkeypatch.setattr(migration, "missing_node", lambda name: False)
    assert "_meta" not in migration.complete(json.loads(json.dumps(request)))["prompt"]["1"]
    monkeypatch.setattr(migration, "missing_node", lambda name: True)
    node = migration.complete(request)["prompt"]["1"]
    assert node["inputs"]["mask_blur"] == 3 and node["inputs"]["background"] == "Alpha" and node["_meta"]
    assert migration.complete({"prompt": [1]}) == {"prompt": [1]} and migration.complete({}) == {}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("General", "General"),
        ("Auto_DownLoad-ZhengPeng7/BiRefNet-COD", "BiRefNet-COD"),
        ("models--ZhengPeng7--BiRefNet", "BiRefNet"),
        ("BiRefNet-ep480.pth", "BiRefNet"),
        ("BiRefNet-DIS_ep580.pth", "BiRefNet-DIS5K"),
        ("False", "BiRefNet"),
        (False, "BiRefNet"),
        ("BiRefNet_toonout", "BiRefNet_toonout"),
    ],
)
def test_values_of_other_packs_mean_a_model(value, name, comfy, other_packs):
    assert other_packs.model_value(value) == name
    assert comfy.model_folders.check_model_name(name) is True


def test_a_model_nobody_knows_is_refused_before_the_run(other_packs):
    node = next(n for n in other_packs.NODES if n.__name__ == "BiRefNetOtherPackRMBG")
    assert node.validate_inputs("BiRefNet-general") is True and node.validate_inputs(None) is True
    assert "Put the file there" in node.validate_inputs("nobody_knows")


def test_a_color_that_is_none_is_told(other_packs):
    with pytest.raises(ValueError, match="color is 'greenish', expected a name such as green"):
        other_packs._cut_out(None, torch.rand(1, 4, 4, 3), torch.rand(1, 4, 4), "color", None, "greenish")


@pytest.mark.parametrize("value", [None, "BiRefNet", 3, {}, torch.ones(1)])
@pytest.mark.parametrize("node", ["Mask", "Cutout", "ZHO"])
def test_models_of_other_nodes_are_told(other_packs, comfy, node, value):
    node = getattr(other_packs, f"BiRefNetOtherPack{node}")
    inputs = {**comfy.compat.default_inputs(node), "images": torch.rand(1, 8, 9, 3)}
    if node.__name__.endswith("ZHO"):
        inputs = {"image": inputs["images"]}
    with pytest.raises(comfy.core.ConfigError, match=r"odel is .*, expected what .* or Load BiRefNet Model gives"):
        node.execute(**{"birefnetmodel" if node.__name__.endswith("ZHO") else "model": value}, **inputs)


@pytest.mark.parametrize("value", [None, "white", 3, ["Alpha"]])
def test_a_background_over_a_link_is_told(other_packs, comfy, value):
    node = other_packs.BiRefNetOtherPackRMBG
    inputs = {**comfy.compat.default_inputs(node), "image": torch.rand(1, 8, 9, 3), "background": value}
    with pytest.raises(comfy.core.ConfigError, match=r"background is .*, expected one of Alpha, Color"):
        node.execute(**inputs)


@pytest.mark.parametrize("value", [None, 3, ["fp16"], torch.float16, "cuda:1"])
def test_devices_and_precisions_over_links_are_those_of_the_loader(other_packs, comfy, small_file, value):
    node = other_packs.BiRefNetOtherPackLoadModel
    expected = node.execute(small_file).result[0]
    assert node.execute(small_file, device=value, dtype=value).result[0] is expected


@pytest.mark.parametrize("value", [None, 3, ["green"], "no colour"])
def test_a_color_over_a_link_is_told(other_packs, comfy, small_file, value):
    node = other_packs.BiRefNetOtherPackHugo
    inputs = {**comfy.compat.default_inputs(node), "image": torch.rand(1, 8, 9, 3), "model": small_file}
    with pytest.raises(comfy.core.ConfigError, match=r"color is .*, expected a name such as green"):
        node.execute(**{**inputs, "background_color_name": value})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("Hugo", {"background_color_name": "none"}),
        ("Hugo", {"background_color_mode": False, "background_color_code": "#12"}),
        ("RMBG", {"background_color": "#12"}),
        ("RMBG", {"background": "white"}),
    ],
)
def test_what_is_wrong_is_told_before_the_network_runs(other_packs, comfy, small_file, name, wrong):
    node = getattr(other_packs, f"BiRefNetOtherPack{name}")
    inputs = {**comfy.compat.default_inputs(node), "image": torch.rand(1, 8, 9, 3), "model": small_file}
    comfy.progress.clear()
    with pytest.raises(comfy.core.ConfigError, match=r"color is|background is"):
        node.execute(**{**inputs, **wrong})
    assert not comfy.progress
