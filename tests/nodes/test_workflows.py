"""The example workflows and subgraphs fit the nodes as they are."""

import itertools
import json
from pathlib import Path

import pytest
from PIL import Image

from tools.example_workflows import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE_FILES, SUBGRAPHS = sorted(ROOT.glob("example_workflows/*.json")), sorted(ROOT.glob("subgraphs/*.json"))
SAVED_BEFORE = sorted(ROOT.glob("tests/fixtures/workflows_0_1/*.json"))  # of version 0.1
FILES = [*EXAMPLE_FILES, *SUBGRAPHS, *SAVED_BEFORE]
OWN_FILES = {"my_finetune.safetensors"}  # stands for a file of the user's
SEARCHED = 33  # characters of a title in which the Templates dialog finds a word: its search library's threshold
TITLE_BAR = 30  # pixels above a node's position
CORE_ENDS = {"SaveImage", "SaveVideo", "PreviewImage", "MaskPreview", "PreviewAny"}  # ComfyUI's own that end a workflow
BY_NAME = {example.file: example for example in EXAMPLES}


def graphs(path):
    """The workflow's graph and those of its subgraphs, with links as lists."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    for graph in (whole, *whole.get("definitions", {}).get("subgraphs", [])):
        links = graph["links"]
        if links and isinstance(links[0], dict):
            keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
            links = [[link[key] for key in keys] for link in links]
        yield {**graph, "links": links}


def by_file(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def test_every_example_has_a_file_and_a_thumbnail_and_nothing_else_is_there():
    names = {example.name for example in EXAMPLES}
    assert len(names) == len(EXAMPLES) and len(SUBGRAPHS) == 2
    expected = {f"{name}{ending}" for name in names for ending in (".json", ".jpg")}
    assert {path.name for path in ROOT.glob("example_workflows/*")} == expected


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_a_title_is_readable_found_and_says_what_is_needed(example):
    assert "_" not in example.name and not set(example.name) & set('<>:"/\\|?*#%')
    assert 0 < example.name.index("BiRefNet") <= SEARCHED
    needs = [text for text in (example.name, example.text) if "needs" in text.lower()]
    assert len(needs) == (0 if example.runs_at_once else 2)


@by_file(EXAMPLE_FILES)
def test_a_thumbnail_is_16_to_9_and_small(path):
    picture = path.with_suffix(".jpg")
    with Image.open(picture) as image:
        assert image.size == (640, 360)
    assert picture.stat().st_size < 100_000


@by_file(EXAMPLE_FILES)
def test_a_file_is_what_the_list_says(path, to_api):
    example, whole = BY_NAME[path.name], json.loads(path.read_text(encoding="utf-8"))
    numbers = {key: str(n) for n, key in enumerate(("note", *example.nodes), start=1)}
    prompt = to_api(whole)
    assert len(prompt) == len(example.nodes) and whole["nodes"][0]["widgets_values"] == [example.text]
    for key, node in example.nodes.items():
        part = prompt[numbers[key]]
        assert part["class_type"] == node.kind
        for name, value in node.inputs.items():
            assert part["inputs"][name] == ([numbers[value[0]], value[1]] if isinstance(value, tuple) else value)
    app = whole["extra"].get("linearData", {"inputs": []})
    assert app["inputs"] == [[int(numbers[key]), name] for key, name in example.app]
    assert whole["extra"].get("linearMode", False) == bool(example.app)
    assert all(name in prompt[str(number)]["inputs"] for number, name in app["inputs"])
    assert all(prompt[str(number)]["class_type"] == "SaveImage" for number in app.get("outputs", []))


def overlap(first, second):
    (x, y, w, h), (x2, y2, w2, h2) = first, second
    return x < x2 + w2 and x2 < x + w and y < y2 + h2 and y2 < y + h


@by_file(EXAMPLE_FILES)
def test_no_node_of_an_example_covers_another_or_stands_in_a_foreign_group(path):
    example, whole = BY_NAME[path.name], json.loads(path.read_text(encoding="utf-8"))
    boxes = [(*node["pos"], *node["size"]) for node in whole["nodes"]]
    boxes = [(x, y - TITLE_BAR, w, h + TITLE_BAR) for x, y, w, h in boxes]
    assert not any(overlap(first, second) for first, second in itertools.combinations(boxes, 2))
    for group in whole["groups"]:
        inside = [overlap(box, group["bounding"]) for box in boxes]
        assert inside == [key in example.group[1] for key in ("note", *example.nodes)]


@by_file(FILES)
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


@by_file(EXAMPLE_FILES)
def test_every_node_of_an_example_is_run(path, schemas, to_api):
    """ComfyUI runs what leads to the end of a workflow, and nothing else."""
    prompt = to_api(json.loads(path.read_text(encoding="utf-8")))
    ends = CORE_ENDS | {name for name, schema in schemas.items() if schema.is_output_node}
    left = [key for key, part in prompt.items() if part["class_type"] in ends]
    run = set(left)
    while left:
        sources = {value[0] for value in prompt[left.pop()]["inputs"].values() if isinstance(value, list)}
        left += sources - run
        run |= sources
    assert {part["class_type"] for key, part in prompt.items() if key not in run} == set()


@by_file([*EXAMPLE_FILES, *SUBGRAPHS])
def test_an_example_loads_the_checkpoint_that_comes_with_the_pack(path, comfy, to_api):
    models = [part["inputs"].get("model") for graph in graphs(path) for part in to_api(graph).values()]
    assert {model for model in models if isinstance(model, str)} == {"demo"}
    assert comfy.model_folders.catalogue()["demo"].bundled


def check_value(wanted, value, comfy):
    if wanted.id == "model":
        assert value in {*comfy.model_folders.catalogue(), *OWN_FILES}
    elif wanted.type == "COMBO":
        assert value in wanted.options["options"]
    elif wanted.type in ("INT", "FLOAT"):
        assert wanted.options["min"] <= value <= wanted.options["max"]
    else:
        kinds = {"BOOLEAN": bool, "STRING": str, "COLOR": str, "FLOAT": float, "INT": int, "BOUNDING_BOX": dict}
        assert isinstance(value, tuple(kinds[kind] for kind in wanted.type.split(",")))


@by_file(SUBGRAPHS)
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


@by_file(FILES)
def test_workflow_tells_nothing_of_the_machine_it_was_made_on(path):
    text = path.read_text(encoding="utf-8")
    assert not any(part in text for part in ("/home/", "/tmp/", "127.0.0.1", "\\\\Users"))


def test_the_documents_list_every_example():
    lines = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8").splitlines()
    listed = [line.split(" | ")[0].removeprefix("| ") for line in lines if "(BiRefNet" in line]
    assert sorted(listed) == sorted(example.name for example in EXAMPLES)
