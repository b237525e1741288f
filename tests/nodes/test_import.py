"""Importing the pack costs nothing, collides with nothing, and says what is missing."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
sys.path[:0] = [{decoys!r}, {tests!r}]
import torch
from pathlib import Path
from conftest import import_pack, install_comfyui
install_comfyui(sys.modules, Path({models!r}))
sys.meta_path.insert(0, type("Missing", (), {{"find_spec": staticmethod(lambda name, path=None, target=None:
    (_ for _ in ()).throw(ModuleNotFoundError(f"No module named {{name!r}}", name=name))
    if name in {missing!r} else None)}}))
pack = import_pack("birefnet_pack")
import asyncio
extension = asyncio.run(pack.comfy_entrypoint())
nodes = asyncio.run(extension.get_node_list())
[node.define_schema() for node in nodes]
heavy = {{"timm", "torchvision", "transformers", "scipy", "av", "cv2", "matplotlib", "huggingface_hub.file_download",
    "huggingface_hub.hf_api"}} & set(sys.modules)
assert not heavy, heavy
core = "birefnet_pack.birefnet_core."
parts = {{name.split(".")[2] for name, module in sys.modules.items() if name.startswith(core)
    and hasattr(module, "__path__")}}
assert parts == {{"checkpoints"}}, parts
assert "birefnet" in sys.modules["folder_paths"].folder_names_and_paths
{more}
"""


def run(tmp_path, more="", missing=(), decoys=()):
    for name in decoys:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a decoy was imported')")
    tests = str(Path(__file__).parent)
    script = SCRIPT.format(
        decoys=str(tmp_path), tests=tests, models=str(tmp_path / "models"), missing=tuple(missing), more=more
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )


def test_starting_imports_next_to_nothing_whatever_else_is_importable(tmp_path):
    """Beside decoys under the names of common modules; the rest of the core is importable afterwards."""
    more = "import birefnet_pack.birefnet_core.inference, birefnet_pack.birefnet_core.metrics"
    result = run(tmp_path, more=more, decoys=("utils", "models", "nodes", "config", "masks", "losses"))
    assert result.returncode == 0, result.stderr


def test_a_missing_package_is_named_with_what_to_do(tmp_path):
    more = "nodes[0].execute('BiRefNet', 'auto', 'auto', 'auto')"
    result = run(tmp_path, more=more, missing=["timm"])
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert "timm" in last and "pip install -r" in last and "requirements.txt" in last
