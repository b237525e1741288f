"""Time and memory of one training step, against the plain form of the same network.

    python benchmarks/training.py [--backbone swin_v1_t] [--size 384] [--batch-size 2] [--rounds 3]

Every measurement is a process of its own, so that its peak is its own; the forms alternate, so that a busy machine is
busy for all of them; on such a machine the CPU seconds say more. The plain form is our network with torchvision's
deformable convolution and no checkpointing.
"""

from __future__ import annotations

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

# Form -> backend of the deformable convolution, activation checkpointing, trained part, precision.
FORMS = {
    "plain": ("torchvision", False, "all", "off"),
    "ours": ("auto", False, "all", "off"),
    "ours, checkpointing": ("auto", True, "all", "off"),
    "ours, decoder only": ("auto", False, "decoder", "off"),
    "ours, decoder only, checkpointing": ("auto", True, "decoder", "off"),
    "ours, bf16, checkpointing": ("auto", True, "all", "bf16"),
}


def measure(form: str, backbone: str, size: int, batch: int, steps: int) -> dict[str, float]:
    """Wall and CPU seconds of the fastest of some steps, and MiB of this process at its peak above before."""
    import torch

    import birefnet_core as bc
    from birefnet_core.losses import HybridLoss, loss_preset
    from birefnet_core.network.deformable_conv import DeformableConv2d
    from birefnet_core.ops import execution
    from birefnet_core.ops.deform_conv import use_backend
    from birefnet_core.training.model_setup import amp_dtype, autocast

    backend, lean, part, amp = FORMS[form]
    torch.manual_seed(0)
    torch.ones(8, 8) @ torch.ones(8, 8)
    before = peak()
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone=backbone)).train()
    for module in model.modules():
        if isinstance(module, DeformableConv2d):  # as trained: offsets are not whole numbers
            torch.nn.init.normal_(module.offset.weight, std=0.02)
    if part == "decoder":
        model.localization.encoder.requires_grad_(False).eval()
    model.set_grad_checkpointing(lean)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    loss = HybridLoss(loss_preset("dis5k"))
    x, y = torch.randn(batch, 3, size, size), (torch.rand(batch, 1, size, size) > 0.5).float()
    seconds, work = [], []
    for _ in range(steps):
        start, start_work = time.perf_counter(), time.process_time()
        with (
            use_backend(backend),
            execution.use_chunk_sizes(**({"deform_columns": None} if backend == "torchvision" else {})),
            autocast(amp_dtype(amp, x.device), x.device),
        ):
            output = model(x)
        loss(output, y).total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
        work.append(time.process_time() - start_work)
    return {"seconds": min(seconds), "work": min(work), "mib": peak() - before, "before": before}


def peak() -> float:
    """Greatest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform != "darwin" else 1024) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="swin_v1_t")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS, metavar="FORM")
    parser.add_argument("--only", choices=FORMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.backbone, args.size, args.batch_size, args.steps)))
        return
    results: dict[str, list[dict[str, float]]] = {form: [] for form in args.forms}
    same = ["--backbone", args.backbone, "--size", str(args.size), "--batch-size", str(args.batch_size)]
    for _ in range(args.rounds):
        for form, measured in results.items():
            command = [sys.executable, __file__, *same, "--steps", str(args.steps), "--only", form]
            measured.append(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
    print(f"{args.backbone}, {args.size} x {args.size}, batch {args.batch_size}: one training step, CPU\n")
    print("| form | s, fastest | of plain | CPU s | of plain | peak MiB | of plain |\n|---|---|---|---|---|---|---|")
    first = next(iter(results.values()))
    keys = ("seconds", "work", "mib")
    plain = {key: min(m[key] for m in first) for key in keys}
    for form, measured in results.items():
        best = {key: min(m[key] for m in measured) for key in keys}
        cells = " | ".join(f"{best[key]:.{0 if key == 'mib' else 2}f} | {best[key] / plain[key]:.2f}" for key in keys)
        print(f"| {form} | {cells} |")
    print("\nPeaks are above the interpreter with its libraries, about "
          f"{statistics.median(m['before'] for part in results.values() for m in part):.0f} MiB.")  # fmt: skip


if __name__ == "__main__":
    main()
