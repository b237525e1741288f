"""What `pip install .` installs, and what the requirements of ComfyUI's users are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "birefnet_core"
PHOTO = next((ROOT / "tests" / "fixtures" / "photos").glob("*.jpg"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as it would lie in site-packages."""
    out = tmp_path_factory.mktemp("build")
    build = ["egg_info", "--egg-base", str(out), "build", "--build-base", str(out), "--build-lib", str(out / "lib")]
    subprocess.run([sys.executable, "setup.py", "-q", *build], cwd=ROOT, check=True, capture_output=True)
    return out / "lib"


COMMANDS = """
import contextlib, io, json, sys
from birefnet_core.cli.main import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(printed):
        code = main(arguments)
    print(json.dumps([code, printed.getvalue(), "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def done(installed, tmp_path_factory):
    """Commands of the installed package, run from another folder in one process: how each ended.

    As exit code, what it printed, and whether torch had been imported by then.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    commands = {
        "checkpoints": ["checkpoints"],
        "recipe": ["train", "--recipe", "dis5k", "--print-recipe"],
        "segment": ["segment", str(PHOTO), "-o", str(folder / "out"), "--model", "demo", "--device", "cpu"],
    }
    process = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(list(commands.values()))],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    found = dict(zip(commands, map(json.loads, process.stdout.splitlines()), strict=True))
    return {**found, "masks": [path.name for path in (folder / "out").iterdir()]}


def test_every_file_of_the_package_is_installed(installed):
    def files(folder):
        return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}

    recipes = {Path("training", "recipes", path.name) for path in (ROOT / "train" / "recipes").iterdir()}
    assert files(installed / "birefnet_core") == files(CORE) | recipes


def test_recipes_are_found_where_the_package_is_installed(done):
    code, printed, _ = done["recipe"]
    assert code == 0, printed
    assert 'name = "dis5k"' in printed


def test_the_demo_checkpoint_segments_from_any_folder(done):
    code, printed, _ = done["segment"]
    assert code == 0, printed
    assert done["masks"] == [f"{PHOTO.stem}.png"]


def test_listing_commands_needs_no_torch(done):
    code, printed, imported = done["checkpoints"]
    assert code == 0 and not imported, printed


def test_comfyui_installs_what_the_package_depends_on():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert project["dependencies"] == [line for line in lines if line and not line.startswith("#")]
    assert set(project["optional-dependencies"]) == {"eval", "export", "train", "video", "dev"}
    assert "birefnet[eval,export,train,video]" in project["optional-dependencies"]["dev"]
