"""What half precision costs and gains on this CPU: seconds, and how far masks move from float32.

    python benchmarks/precision.py [--variants pvt_v2_b0 swin_v1_t] [--size 256] [--runs 3]

The fused network with the deterministic weights of the tests, one image; the precisions take turns in one process,
"of fp32" is the median of the turns' ratios. Differences are those of masks in [0, 1].
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=["pvt_v2_b0", "swin_v1_t"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    import torch
    from conftest import filled_state_dict

    import birefnet_core as bc
    from birefnet_core.devices import DTYPES

    x = torch.randn(1, 3, args.size, args.size, generator=torch.Generator().manual_seed(0))
    print("| variant | size | precision | seconds | of fp32 | mean difference | largest |")
    print("|---|---|---|---|---|---|---|")
    for variant in args.variants:
        weights = filled_state_dict(variant)
        networks = {n: bc.model_from_state_dict(weights, dtype=d, fused=True) for n, d in DTYPES.items()}
        seconds: dict[str, list[float]] = {name: [] for name in networks}
        masks = {}
        with torch.inference_mode():
            for name in (*networks, *list(networks) * args.runs):  # the first of each sets everything up
                start = time.perf_counter()
                masks[name] = networks[name](x.to(DTYPES[name])).logits.float().sigmoid()
                seconds[name].append(time.perf_counter() - start)
        for name, mask in masks.items():
            turns = seconds[name][1:]
            ratio = statistics.median(a / b for a, b in zip(turns, seconds["fp32"][1:], strict=True))
            moved = (mask - masks["fp32"]).abs()
            print(
                f"| {variant} | {args.size} | {name} | {statistics.median(turns):.2f} | {ratio:.2f} | "
                f"{moved.mean():.5f} | {moved.max():.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
