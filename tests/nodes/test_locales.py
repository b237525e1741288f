"""Translations and help pages cover every node, input and output."""

import json
import re
from pathlib import Path

import pytest

from tools.help_tables import page_of, with_tables

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "zh", "ja", "ko", "de", "fr", "es", "ru")
SAME_EVERYWHERE = re.compile(r"\d+|MP4|RGBA|cpu|fp16|bf16|fp32|channels_first|columns_first|.*\.(safetensors|pth)")


@pytest.mark.parametrize("language", LANGUAGES)
def test_locale_covers_every_node_and_input(language, schemas):
    folder = ROOT / "locales" / language
    texts = json.loads((folder / "nodeDefs.json").read_text(encoding="utf-8"))
    assert json.loads((folder / "main.json").read_text(encoding="utf-8"))
    assert set(texts) == set(schemas)
    for name, schema in schemas.items():
        node = texts[name]
        assert node["display_name"] and node["description"]
        assert list(node["inputs"]) == [i.id for i in schema.inputs]
        assert list(node["outputs"]) == [str(n) for n in range(len(schema.outputs))]
        for text in (*node["inputs"].values(), *node["outputs"].values()):
            assert text["name"] and text["tooltip"]


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_nothing_is_left_in_english(language):
    ours, english = (
        json.loads((ROOT / "locales" / name / "nodeDefs.json").read_text(encoding="utf-8")) for name in (language, "en")
    )
    for name, node in ours.items():
        assert node["description"] != english[name]["description"]
        for kind in ("inputs", "outputs"):
            for key, text in node[kind].items():
                assert text["tooltip"] != english[name][kind][key]["tooltip"], f"{name}.{key}"


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_translations_name_the_same_options_and_folders(language, schemas):
    ours, english = (
        json.loads((ROOT / "locales" / name / "nodeDefs.json").read_text(encoding="utf-8")) for name in (language, "en")
    )
    for name, schema in schemas.items():
        for i in schema.inputs:
            told, text = (texts[name]["inputs"][i.id]["tooltip"] for texts in (english, ours))
            words = [*(i.options.get("options") or []), "models/birefnet", "models/background_removal"]
            named = [word for word in words if re.search(rf"\b{re.escape(word)}\b", told)]
            shown = ours[name]["inputs"][i.id].get("options", {})
            assert all(shown.get(word, word) in text for word in named), f"{name}.{i.id}: {named}"


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_value_of_a_list_has_a_translation(language, schemas, comfy):
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for name, schema in schemas.items():
        for i in schema.inputs:
            values = i.options.get("options") or []
            if i.id == "model" and values:
                entries = comfy.model_folders.catalogue().values()
                permissive = comfy.model_folders.PERMISSIVE
                values = {*(e.purpose for e in entries), *(e.licence for e in entries if e.licence not in permissive)}
            shown = texts[name]["inputs"][i.id].get("options", {})
            wanted = {value for value in values if not SAME_EVERYWHERE.fullmatch(value)}
            assert set(shown) == wanted and len(set(shown.values())) == len(shown), f"{name}.{i.id}"


def test_english_says_what_the_nodes_say(schemas):
    texts = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    for name, schema in schemas.items():
        assert texts[name]["display_name"] == schema.display_name
        for i in schema.inputs:
            assert i.tooltip.startswith(texts[name]["inputs"][i.id]["tooltip"])
        for n, output in enumerate(schema.outputs):
            assert output.tooltip == texts[name]["outputs"][str(n)]["tooltip"]


def test_every_node_has_a_help_page_that_names_every_input(schemas):
    for name, schema in schemas.items():
        page = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {schema.display_name}\n")
        assert all(f"**{i.id}**" in page for i in schema.inputs)


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_pages_are_in_every_language_and_say_what_the_nodes_say(language, schemas):
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    english = {name: page_of(name, "en").read_text(encoding="utf-8") for name in schemas}
    for name in schemas:
        page = page_of(name, language).read_text(encoding="utf-8")
        assert page == with_tables(page, texts[name], language), "python tools/help_tables.py"
        prose = page.partition("\n## ")[0]
        assert len(prose) > 100 and (language == "en" or prose != english[name].partition("\n## ")[0])
        assert not re.search(r"%\w+%|@\w+@|=\w+=", prose)
