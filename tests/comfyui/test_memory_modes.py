"""What --normalvram, --lowvram and --novram make of our models, with the meta device as a stand-in for a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import birefnet_core as bc

pytestmark = pytest.mark.comfyui

SCRIPT = """
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
from birefnet_pack.nodes import model_handle

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


def test_a_model_is_loaded_in_one_piece_in_every_memory_mode(small_model, tmp_path):
    tree = os.environ.get("COMFYUI_DIR")
    if not tree:
        pytest.skip("COMFYUI_DIR is not set")
    bc.save_checkpoint(small_model, tmp_path / "small.safetensors")
    pack = Path(__file__).resolve().parents[2]
    script = SCRIPT.format(pack=str(pack), weights=str(tmp_path / "small.safetensors"))
    python = os.environ.get("COMFYUI_PYTHON") or sys.executable
    result = subprocess.run([python, "-c", script], cwd=tree, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.strip().splitlines()[-1])
    assert found == {"NORMAL_VRAM": ["meta"], "LOW_VRAM": ["meta"], "NO_VRAM": ["meta"]}
