"""Speed, memory and exactness on a GPU, in one table.

    python benchmarks/gpu.py [--sections exact speed memory first train compile] [--budget-seconds 330] [--output F]
    python benchmarks/gpu.py --profile swin_v1_l
    python benchmarks/gpu.py --device cpu --quick

Needs no network: weights follow from their names (benchmarks/filled.py), images are the photographs of the tests.
"speed" times calls of Segmenter with images and masks in the device's memory, "host" in the CPU's, "network" the
network alone; medians, for one image. Memory is beside the weights: "peak" of a pass without CUDA graph, "pool" what
the graph keeps, "kept" what is left of it after release. Errors are those of masks in [0, 1] against float32 without
TF32. "first" is a new process that has loaded the weights, "cold" without Triton's cache of compiled kernels. "train"
is forward and backward in bfloat16 autocast. Every job is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import gpu_jobs
from gpu_jobs import MARK, ROOT

sys.path.insert(0, str(ROOT))

MODELS = ["swin_v1_l", "swin_v1_t", "pvt_v2_b2"]
SECTIONS = ["exact", "speed", "memory", "first", "train", "compile"]
LIMIT = {"first": 40, "train": 60, "compile": 120}  # seconds of one process; others: 60 for each section


class Child:
    """A process that runs jobs on one model.

    Args:
        names: Keys of ``gpu_jobs.JOBS``.
        options: Of ``gpu_jobs.Job``, without the seconds.
        limit: Seconds it may take.
        note: Added to each row.
        environment: Variables set in it.
    """

    def __init__(self, names: list[str], options: dict, limit: float, note: dict, environment: dict) -> None:
        self.names, self.options, self.limit, self.note = names, options, limit, note
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen | None = None

    def start(self, seconds: float) -> None:
        """Lets it import everything; it then waits."""
        job = {"names": self.names, "wait": True, "seconds": min(seconds, self.limit), **self.options}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--job", json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=self._environment,
        )  # fmt: skip

    def run(self, seconds: float) -> list[dict]:
        """Its results; after so many seconds those there are."""
        assert self._process is not None
        limit = min(seconds, self.limit) + 15  # the last measurement may end
        start, timer = time.monotonic(), threading.Timer(limit, self._process.kill)
        timer.start()
        output, errors = self._process.communicate("go\n")
        timer.cancel()
        lines = output.splitlines()
        rows = [{**json.loads(line[len(MARK) :]), **self.note} for line in lines if line.startswith(MARK)]
        print("\n".join(line for line in lines if not line.startswith(MARK)), end="")
        if self._process.returncode != 0:
            last = (errors.strip().splitlines() or [f"it ended with {self._process.returncode}"])[-1]
            if time.monotonic() - start >= limit:  # what it printed last was no error
                last = "killed when its time was over"
            rows.append({"section": self.names[0], "model": self.options["variant"], **self.note, "error": last})
            print(errors[-2000:], file=sys.stderr)
        return rows

    def stop(self) -> None:
        """Ends it where it has not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()


def children(args: argparse.Namespace, weights: dict[str, Path], folder: Path) -> list[Child]:
    """All processes, the most important first."""
    made = []

    def add(names: list[str], variant: str, triton: bool = True, note: dict | None = None, **environment: str) -> None:
        names = [name for name in names if name in args.sections]
        if names and variant in weights:
            options = {"variant": variant, "weights": str(weights[variant]), "device": args.device}
            options |= {"quick": args.quick, "triton": triton}
            limit = sum(LIMIT.get(name, 60) for name in names)
            made.append(Child(names, options, limit, note or {}, environment))

    large, *others = args.models
    cache = {"TRITON_CACHE_DIR": str(folder / "triton")}
    add(["exact", "speed"], large)
    add(["first"], large, note={"cache": "cold"}, **cache)
    add(["first"], large, note={"cache": "warm"}, **cache)
    add(["train"], large)
    for variant in others:
        add(["exact", "speed"], variant)
    add(["speed"], large, triton=False)
    add(["memory"], large)
    add(["compile"], large)
    for variant in others:
        add(["speed"], variant, triton=False)
        add(["memory"], variant)
    for variant in others[:1]:
        add(["first"], variant, note={"cache": "warm"}, **cache)
        add(["train"], variant)
    add(["memory"], large, triton=False)
    return made


def machine(device: str) -> dict:
    """What the figures depend on."""
    import torch

    found: dict[str, Any] = {"torch": torch.__version__, "device": device}
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = None
    if device == "cuda":
        found["device"] = torch.cuda.get_device_name()
        found["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
        found["memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    found["tf32"] = {"cudnn": torch.backends.cudnn.allow_tf32, "matmul": torch.get_float32_matmul_precision()}
    return found


def number(value: Any) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "" if value is None else str(value)
    if isinstance(value, int) or value == 0:
        return f"{value:g}"
    return f"{value:.1e}" if 0 < abs(value) < 0.01 else f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


COLUMNS = {
    "exact": ["model", "backend", "tf32", "relative_error"],
    "speed": ["model", "triton", "dtype", "size", "batch", "options", "ms", "host_ms", "network_ms", "first_ms",
              "peak_mb", "pool_mb", "kept_mb", "max_error", "mean_error"],
    "memory": ["model", "triton", "dtype", "size", "batch", "lean", "peak_mb", "cached_mb", "estimate_mb"],
    "first": ["model", "cache", "ms"],
    "train": ["model", "batch", "checkpointed", "ms", "peak_mb", "total_mb"],
    "compile": ["model", "dtype", "size", "plain_ms", "compile_s", "ms", "graphed_ms", "max_difference"],
}  # fmt: skip


def markdown(rows: list[dict]) -> str:
    """A table for each section."""
    text = []
    for section in SECTIONS:
        found = [row for row in rows if row.get("section") == section and "note" not in row]
        if not found:
            continue
        names = [*COLUMNS[section], *(["error"] if any(row.get("error") for row in found) else [])]
        text += [f"\n## {section}\n", f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
        for row in found:
            options = [name if row[name] else f"no {name}" for name in ("cuda_graphs", "lean", "exact") if name in row]
            cells = {**row, "options": ", ".join(options)}
            if section == "first" and isinstance(row.get("ms"), list):
                cells["ms"] = ", ".join(map(number, row["ms"]))
            text.append(f"| {' | '.join(number(cells.get(name)) for name in names)} |")
    return "\n".join(text)


def print_fit(rows: list[dict]) -> None:
    """What ``inference/memory.py`` is made of: MiB whatever the size, bytes or elements for each pixel of a batch."""
    from fit_memory import fit

    points = defaultdict(list)
    for row in rows:
        if row.get("section") == "memory" and row.get("peak_mb"):
            key = row["model"], row["triton"], row["lean"], row["dtype"]
            points[key].append((row["batch"] * row["size"] ** 2, row["peak_mb"]))
    for (model, triton, lean, dtype), found in points.items():
        fixed, slope, off = fit(found)
        how = ("lean" if lean else "default") + ("" if triton else ", without Triton")
        elements = slope / (4 if dtype == "fp32" else 2)
        print(f"{model} {dtype} {how}: {fixed} MiB + {slope} bytes ({elements:.0f} elements), within {off:.0%} of all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", default=SECTIONS, choices=SECTIONS)
    parser.add_argument("--models", nargs="+", help="any backbones; the first one is measured in full")
    parser.add_argument("--budget-seconds", type=float, default=330)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small images, one run each: only to try the script")
    parser.add_argument("--output", type=Path, help="JSON file, written after every process")
    parser.add_argument("--profile", metavar="MODEL", help="only print where one fp16 pass at 1024 spends its time")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        gpu_jobs.run_job(**json.loads(args.job))
        return
    end = time.monotonic() + args.budget_seconds
    import torch
    from filled import MANIFESTS, filled_state_dict

    args.models = [args.profile] if args.profile else args.models or (["pvt_v2_b0"] if args.quick else MODELS)
    with tempfile.TemporaryDirectory() as name:
        folder, weights = Path(name), {}
        for variant in args.models:
            weights[variant] = folder / f"{variant}.pt"
            if (MANIFESTS / f"{variant}.json").exists():  # otherwise weights are random
                torch.save(filled_state_dict(variant), weights[variant])
        if args.profile:
            gpu_jobs.run_job(
                ["profile"], wait=False, variant=args.profile, weights=str(weights[args.profile]), device=args.device,
                quick=args.quick, seconds=args.budget_seconds, triton=True,
            )  # fmt: skip
            return
        result = {"machine": machine(args.device), "rows": []}
        print(json.dumps(result["machine"]), flush=True)
        measure(children(args, weights, folder), result, args.output, end)
    print(markdown(result["rows"]))
    print_fit(result["rows"])


def measure(waiting: list[Child], result: dict, output: Path | None, end: float) -> None:
    """Runs the processes one after another; while one runs, the next one imports what it needs."""
    for index, child in enumerate(waiting):
        left = end - time.monotonic()
        if left < 10:
            child.stop()
            skipped = [" ".join([*later.names, later.options["variant"]]) for later in waiting[index:]]
            print(f"no time left for: {', '.join(skipped)}")
            return
        if index == 0:
            child.start(left)
        if index + 1 < len(waiting):
            waiting[index + 1].start(left)
        start = time.monotonic()
        rows = child.run(left)
        result["rows"] += rows
        for row in rows:
            print(json.dumps(row), flush=True)
        print(f"# {' '.join(child.names)} {child.options['variant']}: {time.monotonic() - start:.0f} s", flush=True)
        if output:
            output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
