"""What --normalvram, --lowvram and --novram make of our models, with the meta device as a stand-in for a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import birefnet_core as bc

pytestmark = pytest.mark.comfyui

START = """
import importlib.util, json, sys
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, ".")
import torch
import comfy.options
comfy.options.enable_args_parsing()
import comfy.model_management as mm

pack, weights = {pack!r}, {weights!r}
spec = importlib.util.spec_from_file_location("birefnet_pack", pack + "/__init__.py")
sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from birefnet_pack.birefnet_core import load_model
from birefnet_pack.nodes import model_folders, model_handle
"""
MODES = """
gpu, found = torch.device("meta"), {{}}
mm.get_free_memory = lambda device=None, torch_free_too=False: (2**20, 2**20) if torch_free_too else 2**20
for name in ("NORMAL_VRAM", "LOW_VRAM", "NO_VRAM"):
    mm.vram_state = getattr(mm.VRAMState, name)
    handle = model_handle.ModelHandle(load_model(weights), gpu)
    mm.load_models_gpu([handle.patcher], memory_required=0, force_full_load=True)
    tensors = [*handle.model.parameters(), *handle.model.buffers()]
    found[name] = sorted({{t.device.type for t in tensors}})
    del handle
    mm.current_loaded_models.clear()
print(json.dumps(found))
"""


FREED = """
import gc
import folder_paths
model_folders.register_model_folders()
folder_paths.add_model_folder_path("birefnet", str(__import__("pathlib").Path(weights).parent))
handle = model_handle.load("small.safetensors", "fp32", "auto", "auto")
handle.segment(torch.rand(1, 64, 64, 3), 64)
mm.unload_all_models()
kept = len(model_handle._latest)
del handle
gc.collect()
alive = [type(o).__name__ for o in gc.get_objects() if type(o).__name__ in ("ModelHandle", "BiRefNet", "Segmenter")]
print(json.dumps([kept, alive, len(mm.current_loaded_models)]))
"""


@pytest.fixture
def run(small_model, tmp_path):
    """Runs a script in ComfyUI's interpreter, after START; gives what it prints last."""
    tree = os.environ.get("COMFYUI_DIR")
    if not tree:
        pytest.skip("COMFYUI_DIR is not set")
    weights = tmp_path / "small.safetensors"
    bc.save_checkpoint(small_model, weights)

    def run_script(script):
        script = (START + script).format(pack=str(Path(__file__).resolve().parents[2]), weights=str(weights))
        command = [os.environ.get("COMFYUI_PYTHON") or sys.executable, "-c", script]
        result = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=240, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
        return json.loads(result.stdout.strip().splitlines()[-1])

    return run_script


def test_a_model_is_loaded_in_one_piece_in_every_memory_mode(run):
    assert run(MODES) == {"NORMAL_VRAM": ["meta"], "LOW_VRAM": ["meta"], "NO_VRAM": ["meta"]}


def test_nothing_of_ours_stays_after_unloading(run):
    """Results of nodes hold the handle; without them "Unload models" and POST /free end it with its network."""
    assert run(FREED) == [0, [], 0]
