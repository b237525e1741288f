"""Whether torch.compile pays on this machine's CPU: seconds of a pass with and without it, and of compiling.

    python benchmarks/compiled.py [--variants swin_v1_t pvt_v2_b2] [--sizes 512 1024] [--runs 5]

``Segmenter`` with ``compile=True`` and without, the deterministic weights of the tests, float32, one image of noise.
Both take turns in one process; "ratio" is the median of the turns' ratios, compiled over not compiled. "first" is the
first pass of each, which compiles. Peaks of memory cannot be told apart in one process and are not given.
"""

import argparse
import logging
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=["swin_v1_t", "pvt_v2_b2"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    import torch
    from conftest import filled_state_dict

    import birefnet_core as bc

    logging.basicConfig(level=logging.WARNING)
    print("| variant | size | first, s | first, compiled, s | s | compiled, s | ratio | largest difference |")
    print("|---|---|---|---|---|---|---|---|")
    for variant in args.variants:
        for size in args.sizes:
            torch._dynamo.reset()
            image = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(0))
            segmenters = [
                bc.Segmenter(bc.model_from_state_dict(filled_state_dict(variant), fused=True), compile=compile)
                for compile in (False, True)
            ]
            seconds: tuple[list[float], list[float]] = ([], [])
            masks = []
            for _ in range(1 + args.runs):
                masks = []
                for segment, taken in zip(segmenters, seconds, strict=True):
                    start = time.perf_counter()
                    masks.append(segment(image, size))
                    taken.append(time.perf_counter() - start)
            ratio = statistics.median(b / a for a, b in zip(*(taken[1:] for taken in seconds), strict=True))
            first, usual = [taken[0] for taken in seconds], [statistics.median(taken[1:]) for taken in seconds]
            difference = (masks[1] - masks[0]).abs().max()
            print(
                f"| {variant} | {size} | {first[0]:.1f} | {first[1]:.1f} | {usual[0]:.2f} | {usual[1]:.2f} "
                f"| {ratio:.2f} | {difference:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
