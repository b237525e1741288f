"""Seconds to read a checkpoint into a network, in turn with another version of the package.

    git worktree add ../other COMMIT
    python benchmarks/loading.py --against ../other [--variant swin_v1_l] [--runs 9] [--cold]

Each reading is a process of its own, and what is timed begins after the imports and ends before the network is freed.
The versions take turns in being the first of a pair. With --cold the system's cache of files is dropped before each
reading, which needs root on Linux. Prints medians, and the median of the ratios of pairs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import birefnet_core as bc  # noqa: E402

READ = """
import sys, time
sys.path.insert(0, sys.argv[1])
import timm, torch, torchvision
from birefnet_core import load_model
start = time.perf_counter()
model = load_model(sys.argv[2])
print(time.perf_counter() - start)
"""


def write_files(folder: Path, variant: str) -> dict[str, Path]:
    """The same random weights in each kind of file."""
    torch.manual_seed(0)
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone=variant)).eval()
    kinds = (".pth, float32", ".safetensors, float32", ".safetensors, float16")
    pth, single, half = files = [folder / name for name in ("a.pth", "b.safetensors", "c.safetensors")]
    bc.save_checkpoint(model, single)
    bc.save_checkpoint(model, half, dtype=torch.float16)
    torch.save(load_file(single), pth)
    return dict(zip(kinds, files, strict=True))


def read(project: Path, file: Path, *, cold: bool) -> float:
    """Seconds."""
    if cold:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    command = [sys.executable, "-c", READ, str(project), str(file)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=file.parent).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, required=True, help="a checkout of the other version")
    parser.add_argument("--variant", default="swin_v1_l", help="(%(default)s)")
    parser.add_argument("--runs", type=int, default=9, help="of each version and file (%(default)s)")
    parser.add_argument("--cold", action="store_true", help="from the disk")
    args = parser.parse_args()
    print("| file | MB | this version, s | other version, s | ratio |\n|---|---|---|---|---|")
    projects = ROOT, args.against.resolve()
    with tempfile.TemporaryDirectory() as folder:
        for kind, file in write_files(Path(folder), args.variant).items():
            pairs = []
            for i in range(args.runs):
                times = {project: read(project, file, cold=args.cold) for project in projects[:: -1 if i % 2 else 1]}
                pairs.append([times[project] for project in projects])
            ours, others = (statistics.median(times) for times in zip(*pairs, strict=True))
            ratio = statistics.median(one / other for one, other in pairs)
            print(f"| {kind} | {file.stat().st_size / 1e6:.0f} | {ours:.2f} | {others:.2f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
