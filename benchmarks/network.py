"""The prepared network against its plain form: time and peak memory, alternating, medians.

    python benchmarks/network.py [--variants swin_v1_t swin_v1_l] [--sizes 1024] [--runs 5]

"plain" is our own network as it is trained: torchvision's deformable convolution, nothing folded,
everything concatenated as published. "prepared" is what Segmenter runs. Each measurement is a process of its
own; the two forms take turns, so that a change of the machine's speed meets both. Peak memory is the
process's largest resident size. The floor is the time the network's multiplications would take at the
speed of a large matrix product, measured in the same run.
"""

import argparse
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
    from birefnet_core.checkpoints.load import without_initialisation
    from birefnet_core.network import deform_conv, swin

    torch.manual_seed(0)
    with without_initialisation():
        model = bc.BiRefNet(bc.BiRefNetConfig(backbone=variant)).eval()
    for parameter in model.parameters():
        parameter.data.fill_(0.01)
    if form == "plain":
        deform_conv.best_route = lambda device: "torchvision"
        swin.INFERENCE_BUDGET = 2**60
        network = model
    else:
        network = bc.prepare(model)
        del model
    x = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        network(x[..., :256, :256])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        network(x)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak_mb": peak / 1024, "before_mb": before / 1024}


def gemm_macs_per_second() -> float:
    """Multiply-adds per second of a large float32 matrix product."""
    import torch

    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    a @ b
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2048**3 / statistics.median(times)


def count_macs(variant: str, size: int) -> int:
    """Multiply-adds of the published network: convolutions, linear layers, attention, deformable convolutions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    import birefnet_core as bc
    from birefnet_core.network import deform_conv

    total = 0

    def count_deformable(x, offset, weight, mask, geometry):
        nonlocal total
        total += weight.numel() * offset.shape[-1] * offset.shape[-2] * x.shape[0]
        return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[-2:])

    best, deform_conv.best_route = deform_conv.best_route, lambda device: "count"
    deform_conv.ROUTES["count"] = count_deformable
    try:
        with torch.device("meta"):
            model = bc.BiRefNet(bc.BiRefNetConfig(backbone=variant)).eval()
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model(torch.empty(1, 3, size, size))
    finally:
        deform_conv.best_route = best
        del deform_conv.ROUTES["count"]
    return total + counter.get_total_flops() // 2


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
    print("| variant | size | plain s | prepared s | ratio | floor s | of floor | plain MB | prepared MB | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for variant in args.variants:
        for size in args.sizes:
            plain, prepared, floors = [], [], []
            macs = count_macs(variant, size)
            for _ in range(args.runs):
                plain.append(in_process(variant, size, "plain"))
                prepared.append(in_process(variant, size, "prepared"))
                floors.append(macs / gemm_macs_per_second())
            pairs = list(zip(plain, prepared, strict=True))
            median = statistics.median
            seconds = [median(r["seconds"] for r in rows) for rows in (plain, prepared)]
            peaks = [median(r["peak_mb"] for r in rows) for rows in (plain, prepared)]
            time_ratio = median(b["seconds"] / a["seconds"] for a, b in pairs)
            memory_ratio = median(b["peak_mb"] / a["peak_mb"] for a, b in pairs)
            above_floor = median(b["seconds"] / f for b, f in zip(prepared, floors, strict=True))
            print(
                f"| {variant} | {size} | {seconds[0]:.2f} | {seconds[1]:.2f} | {time_ratio:.2f} | {median(floors):.2f} "
                f"| {above_floor:.2f} | {peaks[0]:.0f} | {peaks[1]:.0f} | {memory_ratio:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
