"""The CPU's deformable convolution against torchvision's operator: time, extra memory, difference.

    python benchmarks/deform.py [--size 256] [--runs 3] [--kernels 1 3 7]

64 -> 256 channels, batch 1, float32, as in the finest stage of the network at four times the size. The two take turns
in one process after a first call each; ratios are medians of the turns', by the wall's clock and in processor
seconds, which a busy machine disturbs less. Extra memory is the peak of resident memory above that before the
call, each in a process of its own that gives freed memory back at once; the result is part of it.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from resident import giving_back, watched

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BACKENDS = ("torchvision", "embedding_bag")


def inputs(kernel: int, size: int) -> tuple:
    """Map, offsets, weight and modulation; offsets reach a few pixels, as in a trained network."""
    import torch

    torch.manual_seed(0)
    x, weight = torch.randn(1, 64, size, size), torch.randn(256, 64, kernel, kernel) / (8 * kernel)
    offset, mask = 2 * torch.randn(1, 2 * kernel**2, size, size), 2 * torch.rand(1, kernel**2, size, size)
    return x, offset, weight, mask


def call(backend: str, kernel: int, x, offset, weight, mask):
    """One deformable convolution; torchvision's is the operator as it is."""
    if backend == "torchvision":
        from torchvision.ops import deform_conv2d

        return deform_conv2d(x, offset, weight, mask=mask, padding=kernel // 2)
    from birefnet_core import deform_conv2d

    return deform_conv2d(x, offset, weight, mask=mask, padding=kernel // 2, backend=backend)


def extra_memory(backend: str, kernel: int, size: int) -> float:
    """MiB. Runs in a process of its own."""
    import torch

    given = inputs(kernel, size)
    with torch.inference_mode():
        call(backend, kernel, *inputs(kernel, 16))  # whatever is set up at the first call
        with watched() as memory:
            call(backend, kernel, *given)
    return memory.above


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kernels", nargs="+", type=int, default=[1, 3, 7])
    parser.add_argument("--measure", nargs=2, metavar=("BACKEND", "KERNEL"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(extra_memory(args.measure[0], int(args.measure[1]), args.size))
        return
    import torch

    print("| kernel | torchvision s | ours s | ratio | processor | torchvision MB | ours MB | ratio | difference |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kernel in args.kernels:
        given = inputs(kernel, args.size)
        wall: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
        processor: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
        results = {}
        with torch.inference_mode():
            for backend in BACKENDS * (args.runs + 1):
                start = time.perf_counter(), time.process_time()
                results[backend] = call(backend, kernel, *given)
                wall[backend].append(time.perf_counter() - start[0])
                processor[backend].append(time.process_time() - start[1])
        theirs, ours = wall["torchvision"][1:], wall["embedding_bag"][1:]
        difference = (results["embedding_bag"] - results["torchvision"]).abs().max().item()
        ratio = statistics.median(b / a for a, b in zip(theirs, ours, strict=True))
        turns = zip(processor["torchvision"][1:], processor["embedding_bag"][1:], strict=True)
        processor_ratio = statistics.median(b / a for a, b in turns)
        memory = []
        for backend in BACKENDS:
            command = [sys.executable, __file__, "--size", str(args.size), "--measure", backend, str(kernel)]
            result = subprocess.run(command, check=True, capture_output=True, text=True, env=giving_back())
            memory.append(float(result.stdout))
        print(
            f"| {kernel} x {kernel} | {statistics.median(theirs):.2f} | {statistics.median(ours):.2f} | {ratio:.2f} | "
            f"{processor_ratio:.2f} | {memory[0]:.0f} | {memory[1]:.0f} | {memory[1] / memory[0]:.2f} | "
            f"{difference:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
