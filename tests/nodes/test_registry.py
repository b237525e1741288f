"""What the ComfyUI Registry asks of pyproject.toml."""

import re
from pathlib import Path

import pytest

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
    address, _, path = comfy["Icon"].partition("/main/")
    assert address.startswith("https://") and (ROOT / path).is_file()


def test_the_archive_leaves_out_what_users_do_not_need_and_nothing_else():
    left_out = [line for line in (ROOT / ".comfyignore").read_text().splitlines() if not line.startswith("#")]
    assert all((ROOT / line).is_dir() for line in left_out)
    needed = {"nodes", "birefnet_core", "web", "locales", "subgraphs", "example_workflows", "docs", "examples", "train"}
    assert not needed & {line.strip("/") for line in left_out}
