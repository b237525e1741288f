"""Seconds, peak memory and load time of the fused network, by variant, precision, batch and size.

    python benchmarks/sizes.py [--variants swin_v1_t swin_v1_l] [--dtypes fp32] [--batches 1] [--sizes 256 512 1024]
    python benchmarks/sizes.py --load [--variants swin_v1_t swin_v1_l]

Each row is two processes: one pass at 128 x 128 to set everything up, then the pass that is measured. The first is as
users run it: its seconds, its peak with interpreter, libraries and weights ("process MB"), and how much of that came
with the pass ("with heap MB"), which the allocator's habits move by a third from run to run. In the second freed memory
goes back at once: "held MB" is what the pass itself needs, and "estimate MB" what ``Segmenter.memory_required`` says of
it. --load writes a file of each variant and times reading it into a network, and fusing that for inference.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from resident import giving_back, mebibytes, watched

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def network(variant: str):
    """A network with weights of no meaning but an ordinary size."""
    import torch

    import birefnet_core as bc

    model = bc.BiRefNet(bc.BiRefNetConfig(backbone=variant)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    return model


def measure_pass(variant: str, dtype: str, batch: int, size: int) -> dict:
    """Runs in a process of its own."""
    import torch

    import birefnet_core as bc
    from birefnet_core.devices import DTYPES
    from birefnet_core.network.cast import cast_for_inference

    model = bc.fuse_for_inference(cast_for_inference(network(variant), DTYPES[dtype]))
    segment = bc.Segmenter(model, batch_size=batch)
    x = torch.randn(batch, 3, size, size).to(next(segment.model.parameters()).dtype)
    with torch.inference_mode():
        segment.model(x[:, :, :128, :128])
        with watched() as memory:
            start = time.perf_counter()
            segment.model(x)
            seconds = time.perf_counter() - start
    process = max(memory.peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    estimate = segment.memory_required(size, size) / 2**20
    return {"seconds": seconds, "pass": memory.above, "estimate": estimate, "process": process}


def measure_load(variant: str, path: str) -> dict:
    """Runs in a process of its own."""
    import birefnet_core as bc

    before = mebibytes("VmRSS")
    start = time.perf_counter()
    model = bc.load_file(path)
    loaded = time.perf_counter()
    model = bc.fuse_for_inference(model)
    fused = time.perf_counter()
    return {"load": loaded - start, "fuse": fused - loaded, "resident": mebibytes("VmRSS") - before}


def in_process(*arguments: object, gives_back: bool = False) -> dict:
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    environment = giving_back() if gives_back else None
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def table_of_passes(args: argparse.Namespace) -> None:
    print("| variant | precision | batch | size | seconds | process MB | with heap MB | ", end="")
    print("held MB | estimate MB | of held |\n|---|---|---|---|---|---|---|---|---|---|")
    for variant, dtype, batch, size in itertools.product(args.variants, args.dtypes, args.batches, args.sizes):
        job = "pass", variant, dtype, batch, size
        found, held = in_process(*job), in_process(*job, gives_back=True)["pass"]
        columns = f"{found['seconds']:.2f} | {found['process']:.0f} | {found['pass']:.0f} | {held:.0f}"
        estimate = f"{found['estimate']:.0f} | {found['estimate'] / held:.2f}"
        print(f"| {variant} | {dtype} | {batch} | {size} | {columns} | {estimate} |", flush=True)


def table_of_loads(variants: list[str]) -> None:
    import birefnet_core as bc

    print("| variant | file MB | load s | fuse s | resident MB |")
    print("|---|---|---|---|---|")
    for variant in variants:
        with tempfile.TemporaryDirectory() as folder:
            path = bc.save_checkpoint(network(variant), Path(folder) / "x.safetensors")
            found = in_process("load", variant, path)
            file_mb = path.stat().st_size / 2**20
        columns = f"{found['load']:.2f} | {found['fuse']:.2f} | {found['resident']:.0f}"
        print(f"| {variant} | {file_mb:.0f} | {columns} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=["swin_v1_t", "swin_v1_l"])
    parser.add_argument("--dtypes", nargs="+", default=["fp32"], choices=("fp32", "fp16", "bf16"))
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512, 1024])
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one and args.one[0] == "load":
        print(json.dumps(measure_load(*args.one[1:])))
    elif args.one:
        variant, dtype, batch, size = args.one[1:]
        print(json.dumps(measure_pass(variant, dtype, int(batch), int(size))))
    elif args.load:
        table_of_loads(args.variants)
    else:
        table_of_passes(args)


if __name__ == "__main__":
    main()
