"""The prepared network against its plain form: time and peak memory, alternating, medians.

    python benchmarks/network.py [--variants swin_v1_t swin_v1_l] [--sizes 1024] [--runs 5]

"plain" is our own network as it is trained: torchvision's deformable convolution, nothing folded,
everything concatenated as published. "prepared" is what Segmenter runs. Each measurement is a process of its
own; the two forms take turns, so that a change of the machine's speed meets both. Peak memory is the
process's largest resident size. The floor is the time the network's multiplications would take at the
speed of a large matrix product, measured in the same run. Each comparison is printed by the clock on the wall and in
processor seconds (of all threads, their waiting for each other included), which a busy machine disturbs less.
"""

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def measure(variant: str, size: int, form: str) -> dict:
    """Runs one form once warm, and reports. Runs in a process of its own."""
    import torch

    import birefnet_core as bc
    from birefnet_core.ops import execution
    from birefnet_core.ops.deform_conv import use_backend

    torch.manual_seed(0)
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone=variant)).eval()
    for parameter in model.parameters():
        parameter.data.fill_(0.01)
    network = model
    if form != "plain":
        network = bc.fuse_for_inference(model)
        del model
    x = torch.randn(1, 3, size, size)
    plain = contextlib.ExitStack()
    if form == "plain":
        plain.enter_context(use_backend("torchvision"))
        plain.enter_context(execution.use_chunk_sizes(deform_columns=None, map=None))
    with plain, torch.inference_mode():
        network(x[..., :256, :256])
        start = clocks()
        network(x)
        wall, processor = (end - begin for begin, end in zip(start, clocks(), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"wall": wall, "processor": processor, "peak_mb": peak / 1024}


def clocks() -> tuple[float, float]:
    """Seconds by the wall and of the processor."""
    return time.perf_counter(), time.process_time()


def floor(macs: int) -> dict:
    """Seconds so many multiply-adds would take in large float32 matrix products."""
    import torch

    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    a @ b
    times = []
    for _ in range(5):
        start = clocks()
        a @ b
        times.append([end - begin for begin, end in zip(start, clocks(), strict=True)])
    wall, processor = (statistics.median(column) * macs / 2048**3 for column in zip(*times, strict=True))
    return {"wall": wall, "processor": processor}


def count_macs(variant: str, size: int) -> int:
    """Multiply-adds of the published network: convolutions, linear layers, attention, deformable convolutions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    import birefnet_core as bc

    with torch.device("meta"):
        model = bc.BiRefNet(bc.BiRefNetConfig(backbone=variant)).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, size, size))
    return counter.get_total_flops() // 2


def in_process(*arguments: str) -> dict:
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=["swin_v1_t", "swin_v1_l"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[1024])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one", nargs=3, metavar=("VARIANT", "SIZE", "FORM"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        variant, size, form = args.one
        print(json.dumps(measure(variant, int(size), form)))
        return
    print("| variant | size | clock | plain s | prepared s | ratio | floor s | of floor ", end="")
    print("| plain MB | prepared MB | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for variant in args.variants:
        for size in args.sizes:
            plain, prepared, floors = [], [], []
            macs = count_macs(variant, size)
            for _ in range(args.runs):
                plain.append(in_process(variant, size, "plain"))
                prepared.append(in_process(variant, size, "prepared"))
                floors.append(floor(macs))
            for clock in ("wall", "processor"):
                print(row(variant, size, clock, plain, prepared, floors), flush=True)


def row(variant: str, size: int, clock: str, plain: list[dict], prepared: list[dict], floors: list[dict]) -> str:
    """A line of the table: medians, and medians of the runs' ratios."""

    def median(rows: list[dict], key: str) -> float:
        return statistics.median(one[key] for one in rows)

    def ratio(above: list[dict], below: list[dict], key: str) -> float:
        return statistics.median(a[key] / b[key] for a, b in zip(above, below, strict=True))

    return (
        f"| {variant} | {size} | {clock} | {median(plain, clock):.2f} | {median(prepared, clock):.2f} | "
        f"{ratio(prepared, plain, clock):.2f} | {median(floors, clock):.2f} | {ratio(prepared, floors, clock):.2f} | "
        f"{median(plain, 'peak_mb'):.0f} | {median(prepared, 'peak_mb'):.0f} | "
        f"{ratio(prepared, plain, 'peak_mb'):.2f} |"
    )


if __name__ == "__main__":
    main()
