"""What `pip install .` installs, and what the requirements of ComfyUI's users are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "birefnet_core"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as it would lie in site-packages."""
    out = tmp_path_factory.mktemp("build")
    build = ["egg_info", "--egg-base", str(out), "build", "--build-base", str(out), "--build-lib", str(out / "lib")]
    subprocess.run([sys.executable, "setup.py", "-q", *build], cwd=ROOT, check=True, capture_output=True)
    return out / "lib"


def run(installed, folder, *arguments):
    """`birefnet` of the installed package, from another folder."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", "import sys; from birefnet_core.cli.main import main; sys.exit(main())"]
    return subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_every_file_of_the_package_is_installed(installed):
    def files(folder):
        return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}

    recipes = {Path("training", "recipes", path.name) for path in (ROOT / "train" / "recipes").iterdir()}
    assert files(installed / "birefnet_core") == files(CORE) | recipes


def test_recipes_are_found_where_the_package_is_installed(installed, tmp_path):
    done = run(installed, tmp_path, "train", "--recipe", "dis5k", "--print-recipe")
    assert done.returncode == 0, done.stderr
    assert 'name = "dis5k"' in done.stdout


def test_the_demo_checkpoint_segments_from_any_folder(installed, tmp_path):
    photo = next((ROOT / "tests" / "fixtures" / "photos").glob("*.jpg"))
    done = run(installed, tmp_path, "segment", str(photo), "-o", "out", "--model", "demo", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{photo.stem}.png"]


def test_listing_commands_needs_no_torch(installed, tmp_path):
    code = "import sys; from birefnet_core.cli.main import main; main(['checkpoints']); exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)})
    assert done.returncode == 0


def test_comfyui_installs_what_the_package_depends_on():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert project["dependencies"] == [line for line in lines if line and not line.startswith("#")]
    assert set(project["optional-dependencies"]) == {"eval", "export", "train", "video", "dev"}
    assert "birefnet[eval,export,train,video]" in project["optional-dependencies"]["dev"]
