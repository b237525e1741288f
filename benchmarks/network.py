"""What each part of the network's inference form is worth: time and peak memory, alternating, medians.

    python benchmarks/network.py [--variants swin_v1_t swin_v1_l] [--sizes 1024] [--runs 5] [--forms ...]

Forms, each with what the one before it has:

- concatenated: every convolution of several maps concatenates them, as in the paper, and makes the whole sum of a
  lateral connection;
- inputs: the inputs of decoder blocks are convolved without being concatenated;
- plain: so are the two maps of an image pyramid level, and lateral sums are made in chunks of channels. This is the
  network as it stands, in eval mode;
- norms: BatchNorm folded into convolutions, whereby a deformable convolution's ReLU and projection are computed chunk
  by chunk;
- fused: all of ``fuse_for_inference``, which ``Segmenter`` runs;
- fused, inputs: the same with the concatenations of "inputs", and fused, concatenated: with those of "concatenated".
  They show what the convolutions of maps that are not concatenated are worth to the network that is run.

Each measurement is a process of its own; the forms take turns, so that a change of the machine's speed meets all of
them. The first pass, at 256 x 256, is not measured. "MB" is the process's largest resident size, "pass MB" what came
with the pass. The floor is the time the network's multiplications would take at the speed of a large matrix product,
measured in the same run. Times are by the clock on the wall and in processor seconds (of all threads, their waiting for
each other included), which a busy machine disturbs less.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from resident import watched

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

FORMS = ("concatenated", "inputs", "plain", "norms", "fused", "fused, inputs", "fused, concatenated")


def concatenate(model, *, inputs: bool) -> None:
    """Brings back concatenated levels and whole lateral sums, and concatenated ``inputs`` of blocks."""
    import torch
    from torch import nn

    from birefnet_core.network.layers import resize
    from birefnet_core.network.localization import ImagePyramidEncoder, PyramidLevel
    from birefnet_core.network.reconstruction import LateralConnection
    from birefnet_core.ops.split_conv import SplitConv2d

    class ConcatenatingEncoder(ImagePyramidEncoder):
        def forward(self, image):
            levels = super().forward(image)
            return [PyramidLevel(levels.pop(0).concatenated()) for _ in range(len(levels))]

    class WholeLateral(LateralConnection):
        def forward(self, level, feature, size):
            return (nn.Conv2d.forward(self, level.full) + resize(feature, size),)

    class ConcatenatingConv2d(SplitConv2d):
        def forward(self, maps):
            return nn.Conv2d.forward(self, torch.cat(tuple(maps), dim=1))

    classes = {ImagePyramidEncoder: ConcatenatingEncoder, LateralConnection: WholeLateral}
    classes |= {SplitConv2d: ConcatenatingConv2d} if inputs else {}
    for module in model.modules():
        module.__class__ = classes.get(type(module), type(module))


def make(variant: str, form: str):
    """A network in one form, with weights of no meaning."""
    import birefnet_core as bc
    from birefnet_core.network.deformable_conv import DeformableConv2d

    model = bc.BiRefNet(bc.BiRefNetConfig(backbone=variant)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.fill_(0.01)
    if form.startswith("fused"):
        model = bc.fuse_for_inference(model)
    elif form == "norms":
        for module in list(model.modules()):
            if hasattr(module, "fuse") and not isinstance(module, DeformableConv2d):
                module.fuse()
    if form.endswith(("concatenated", "inputs")):
        concatenate(model, inputs=form.endswith("concatenated"))
    return model


def measure(variant: str, size: int, form: str) -> dict:
    """Runs one form once warm, and reports. Runs in a process of its own."""
    import torch

    torch.manual_seed(0)
    network = make(variant, form)
    x = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        network(x[..., :256, :256])
        with watched() as memory:
            start = clocks()
            network(x)
            wall, processor = (end - begin for begin, end in zip(start, clocks(), strict=True))
    peak = max(memory.peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return {"wall": wall, "processor": processor, "MB": peak, "pass MB": memory.above}


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
    """Multiply-adds of the network: convolutions, linear layers, attention, deformable convolutions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    import birefnet_core as bc

    with torch.device("meta"):
        model = bc.BiRefNet(bc.BiRefNetConfig(backbone=variant)).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, size, size))
    return counter.get_total_flops() // 2


def in_process(*arguments: object) -> dict:
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=["swin_v1_t", "swin_v1_l"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[1024])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    parser.add_argument("--one", nargs=3, metavar=("VARIANT", "SIZE", "FORM"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        variant, size, form = args.one
        print(json.dumps(measure(variant, int(size), form)))
        return
    print("| variant | size | form | s | of plain | of floor | processor s | of plain | of floor ", end="")
    print("| MB | pass MB | of plain |\n|---|---|---|---|---|---|---|---|---|---|---|---|")
    for variant in args.variants:
        for size in args.sizes:
            macs = count_macs(variant, size)
            rows: dict[str, list[dict]] = {form: [] for form in (*args.forms, "floor")}
            for _ in range(args.runs):
                for form in args.forms:
                    rows[form].append(in_process(variant, size, form))
                rows["floor"].append(floor(macs))
            for form in args.forms:
                print(f"| {variant} | {size} | {form} | {' | '.join(columns(rows, form))} |", flush=True)


def columns(rows: dict[str, list[dict]], form: str) -> list[str]:
    """A form's line of the table: medians, and medians of the runs' ratios."""

    def median(key: str) -> str:
        return f"{statistics.median(one[key] for one in rows[form]):.{0 if 'MB' in key else 2}f}"

    def ratio(key: str, below: str) -> str:
        if below not in rows:
            return ""
        return f"{statistics.median(a[key] / b[key] for a, b in zip(rows[form], rows[below], strict=True)):.2f}"

    times = [(median(clock), ratio(clock, "plain"), ratio(clock, "floor")) for clock in ("wall", "processor")]
    return [*times[0], *times[1], median("MB"), median("pass MB"), ratio("pass MB", "plain")]


if __name__ == "__main__":
    main()
