"""The example workflows and subgraphs fit the nodes as they are."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*ROOT.glob("example_workflows/*.json"), *ROOT.glob("subgraphs/*.json")])
OWN_FILES = {"my_finetune.safetensors"}  # stands for a file of the user's


def graphs(path):
    """The workflow's graph and those of its subgraphs, with links as lists."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    for graph in (whole, *whole.get("definitions", {}).get("subgraphs", [])):
        links = graph["links"]
        if links and isinstance(links[0], dict):
            keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
            links = [[link[key] for key in keys] for link in links]
        yield {**graph, "links": links}


def test_every_use_has_a_workflow_with_a_picture():
    workflows = sorted(ROOT.glob("example_workflows/*.json"))
    assert len(workflows) >= 8 and len(list(ROOT.glob("subgraphs/*.json"))) == 2
    for workflow in workflows:
        assert 0 < workflow.with_suffix(".jpg").stat().st_size < 100_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_workflow_fits_the_schemas(path, schemas, comfy, to_api):
    found = 0
    for graph in graphs(path):
        links = {link[0]: link for link in graph["links"]}
        prompt = to_api(graph)
        for node in graph["nodes"]:
            schema = schemas.get(node["type"])
            if schema is None:
                continue
            found += 1
            inputs = {i.id: i for i in schema.inputs}
            given = prompt[str(node["id"])]["inputs"]
            assert set(given) <= set(inputs), f"unknown inputs {set(given) - set(inputs)}"
            missing = {i.id for i in schema.inputs if not i.optional} - set(given)
            assert not missing, f"{node['type']}: {missing} are not given"
            for name, value in given.items():
                if not isinstance(value, list):
                    check_value(inputs[name], value, comfy)
            for slot in node["inputs"]:
                if slot.get("link") is not None and "widget" not in slot:
                    assert links[slot["link"]][5] == inputs[slot["name"]].type
            saved = [slot["type"] for slot in node["outputs"]]  # outputs may have been added since
            assert saved == [output.type for output in schema.outputs][: len(saved)]
    assert found


def test_examples_need_a_download_only_where_another_checkpoint_is_the_point(comfy, to_api):
    wanted = {}
    for path in FILES:
        for graph in graphs(path):
            models = [part["inputs"].get("model") for part in to_api(graph).values()]
            wanted.setdefault(path.stem, set()).update(m for m in models if isinstance(m, str) and m != "demo")
    assert {name: models for name, models in wanted.items() if models} == {
        "fine_tuned_checkpoint": OWN_FILES,
        "inpaint_around_subject": {"BiRefNet"},
        "matting_colour_estimation": {"BiRefNet_HR-matting"},
    }
    assert comfy.model_folders.catalogue()["demo"].bundled


def check_value(wanted, value, comfy):
    if wanted.id == "model":
        assert value in {*comfy.model_folders.catalogue(), *OWN_FILES}
    elif wanted.type == "COMBO":
        assert value in wanted.options["options"]
    elif wanted.type in ("INT", "FLOAT"):
        assert wanted.options["min"] <= value <= wanted.options["max"]
    else:
        kinds = {"BOOLEAN": bool, "STRING": str, "COLOR": str, "FLOAT": float, "INT": int}
        assert isinstance(value, tuple(kinds[kind] for kind in wanted.type.split(",")))


@pytest.mark.parametrize("path", sorted(ROOT.glob("subgraphs/*.json")), ids=lambda path: path.stem)
def test_subgraph_is_described_and_passes_on_its_mask(path):
    whole = json.loads(path.read_text(encoding="utf-8"))
    (outer,), (graph,) = whole["nodes"], whole["definitions"]["subgraphs"]
    assert graph["name"] == outer["title"] == path.stem != "Remove Background (BiRefNet)"  # ComfyUI has one of its own
    assert graph["category"] and graph["description"]
    links = {link["id"]: link for link in graph["links"]}
    for outputs in (graph["outputs"], outer["outputs"]):
        assert [(output["name"], output["type"]) for output in outputs] == [("image", "IMAGE"), ("mask", "MASK")]
    for slot, output in enumerate(graph["outputs"]):
        (link,) = (links[number] for number in output["linkIds"])
        source = next(node for node in graph["nodes"] if node["id"] == link["origin_id"])["outputs"]
        assert link["target_slot"] == slot and link["id"] in source[link["origin_slot"]]["links"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_workflow_tells_nothing_of_the_machine_it_was_made_on(path):
    text = path.read_text(encoding="utf-8")
    assert not any(part in text for part in ("/home/", "/tmp/", "127.0.0.1", "\\\\Users"))
