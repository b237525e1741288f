"""Memory of a video in the nodes: one frame and many, peak above inputs and outputs.

    COMFYUI_DIR=... [COMFYUI_PYTHON=...] python benchmarks/node_frames.py [--frames 64] [--model demo]

Each measurement is a process of its own that imports ComfyUI (--cpu, no server) and this pack, and executes one node
on 1280 x 720 frames. Without COMFYUI_DIR the tests' stand-ins for ComfyUI take its place. "before" is the resident
size with the model and all inputs in memory; the peak is the largest resident size from then on; "above" is the peak
without what was there before and without the outputs.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from resident import giving_back, watched

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 720, 1280
NODES = ("BiRefNetSegment", "BiRefNetApplyAlpha")


def import_nodes(models: Path):
    """The pack's nodes module over the real ComfyUI, or over stand-ins."""
    sys.path[0] = os.environ.get("COMFYUI_DIR") or str(ROOT)
    if os.environ.get("COMFYUI_DIR"):
        sys.argv = ["main.py", "--cpu", "--base-directory", str(models)]
        import comfy.options

        comfy.options.enable_args_parsing()
    else:
        from tests.nodes.conftest import install_comfyui

        install_comfyui(sys.modules, models)
    spec = importlib.util.spec_from_file_location("birefnet_pack", ROOT / "__init__.py")
    pack = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    nodes = importlib.import_module("birefnet_pack.nodes")
    nodes.model_folders.register_model_folders()
    return nodes


def measure(node: str, frames: int, model: str, frames_per_step: int) -> dict:
    """Executes a node once and reports. Runs in a process of its own."""
    import torch

    with tempfile.TemporaryDirectory() as models:
        nodes = import_nodes(Path(models))
        images = torch.empty(frames, HEIGHT, WIDTH, 3)
        for image in images:
            image.copy_(torch.rand(HEIGHT, 1, 3))
        if node == "BiRefNetSegment":
            options = nodes.comfy_compat.default_inputs(nodes.BiRefNetLoadModel, "model")
            loaded = nodes.BiRefNetLoadModel.execute(model, **options).result[0]
            inputs = {"model": loaded, "image": images, "frames_per_step": frames_per_step}
        else:
            masks = torch.empty(frames, HEIGHT, WIDTH)
            for mask in masks:
                mask.copy_(torch.rand(1, WIDTH))
            inputs = {"image": images, "mask": masks}
        kind = getattr(nodes, node)
        inputs = {**nodes.comfy_compat.default_inputs(kind, *inputs), **inputs}
        with watched() as memory:
            start = time.perf_counter()
            results = kind.execute(**inputs).result
            seconds = time.perf_counter() - start
    known = {t.data_ptr() for t in inputs.values() if isinstance(t, torch.Tensor)}
    outputs = sum(t.numel() * t.element_size() for t in results if t.data_ptr() not in known) / 2**20
    found = {"before": memory.before, "outputs": outputs, "peak": memory.peak, "above": memory.above - outputs}
    return {**found, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--model", default="demo", help="a checkpoint that needs no download")
    parser.add_argument("--frames-per-step", type=int, default=0)
    parser.add_argument("--nodes", nargs="+", default=NODES, choices=NODES)
    parser.add_argument("--measure", nargs=2, metavar=("NODE", "FRAMES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], int(args.measure[1]), args.model, args.frames_per_step)))
        return
    print("| node | frames | before MB | outputs MB | peak MB | above MB | seconds |")
    print("|---|---|---|---|---|---|---|")
    real = os.environ.get("COMFYUI_DIR") and os.environ.get("COMFYUI_PYTHON")
    for node in args.nodes:
        for frames in (1, args.frames):
            command = [real or sys.executable, __file__, "--measure", node, str(frames)]
            command += ["--model", args.model, "--frames-per-step", str(args.frames_per_step)]
            result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=giving_back())
            found = json.loads(result.stdout.splitlines()[-1])
            columns = (f"{found[key]:.1f}" for key in ("before", "outputs", "peak", "above", "seconds"))
            print(f"| {node} | {frames} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
