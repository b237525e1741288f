"""What the ComfyUI Registry asks of pyproject.toml."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def test_the_registry_finds_what_it_needs():
    tomllib = pytest.importorskip("tomllib")  # since Python 3.11
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, comfy = table["project"], table["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9_.-]{0,98}", project["name"]) and "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"]) and project["description"]
    assert (ROOT / project["license"]["file"]).is_file() and project["urls"]["Repository"].startswith("https://")
    assert comfy["PublisherId"] and comfy["DisplayName"] and comfy["requires-comfyui"]
    # The registry evaluates nothing: dependencies that are declared dynamic would be published as none.
    wanted = (line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    assert project["dependencies"] == [line for line in wanted if line] and "dynamic" not in project
    assert {"Documentation", "Bug Tracker"} <= set(project["urls"])
    pages = [project["urls"]["Documentation"], comfy["Icon"], comfy["Banner"]]
    assert all((ROOT / page.partition("/main/")[2]).is_file() and page.startswith("https://") for page in pages)
    environments = {line.partition("Environment :: ")[2] for line in project["classifiers"] if "Environment" in line}
    assert environments == {"GPU :: NVIDIA CUDA", "GPU :: AMD ROCm", "GPU :: Intel Arc", "GPU :: Apple Metal"}


def test_icon_and_banner_have_the_shapes_the_registry_shows():
    with Image.open(ROOT / "docs" / "images" / "icon.png") as icon:
        assert icon.width == icon.height <= 400
    with Image.open(ROOT / "docs" / "images" / "banner.jpg") as banner:
        assert banner.width * 9 == banner.height * 21


def test_this_version_has_a_section_in_the_changelog():
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_publishing_puts_every_name_in():
    table = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")
    assert "OWNER/birefnet|$REPOSITORY|g" in workflow and "^PublisherId = " in workflow
    table = re.sub("^PublisherId = .*", "", table.replace("OWNER/birefnet", "someone/birefnet"), flags=re.MULTILINE)
    assert not [line for line in table.splitlines() if "OWNER" in line and not line.startswith("#")]


def test_the_archive_leaves_out_what_users_do_not_need_and_nothing_else():
    left_out = [line for line in (ROOT / ".comfyignore").read_text().splitlines() if not line.startswith("#")]
    assert all((ROOT / line).is_dir() for line in left_out)
    needed = {"nodes", "birefnet_core", "web", "locales", "subgraphs", "example_workflows", "docs", "examples", "train"}
    assert not needed & {line.strip("/") for line in left_out}
