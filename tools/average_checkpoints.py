"""Averages checkpoints of one network, and makes its masks more decided.

    python tools/average_checkpoints.py FILE [FILE ...] [--parts P ...] [--scale S] [--shift S] --out FILE

The mean of the weights of two trainings that started from the same weights is often better than either. The logits
of the network that is written are SCALE times those of the mean, plus SHIFT: for a scale above 1 there is less haze
on backgrounds and fewer grey areas within subjects. Both are chosen on validation images.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import birefnet_core as bc


def average(models: list[bc.BiRefNet], parts: list[float]) -> bc.BiRefNet:
    """Puts the weighted mean of all weights and statistics into the first network.

    Args:
        models: Of one architecture.
        parts: One for each; their sum is 1.
    """
    states = [model.state_dict() for model in models]
    mean = {
        name: sum(part * state[name] for part, state in zip(parts, states, strict=True))
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
    models[0].load_state_dict(mean)
    return models[0]


@torch.no_grad()
def scale_logits(model: bc.BiRefNet, scale: float, shift: float) -> None:
    """Changes the head, which is linear, so that logits become ``scale * logits + shift``."""
    weight, bias = model.reconstruction.head.parameters()
    weight.mul_(scale)
    bias.mul_(scale).add_(shift)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="checkpoints: names or files; what is known of the first is kept")
    parser.add_argument("--parts", type=float, nargs="+", help="of each in the mean; all the same by default")
    parser.add_argument("--scale", type=float, default=1.0, help="of the logits (%(default)s)")
    parser.add_argument("--shift", type=float, default=0.0, help="added to the logits after that (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write, in float16")
    args = parser.parse_args()
    parts = args.parts or [1.0] * len(args.files)
    if len(parts) != len(args.files) or sum(parts) <= 0 or min(parts) < 0 or args.scale <= 0:
        parser.error("give one part of at least 0 for each file, and a scale above 0")
    if os.path.lexists(args.out):  # Path.exists raises for names that are too long
        parser.error(f"{args.out} exists; choose another name")
    try:
        models = [bc.load_model(file) for file in args.files]
        first = models[0].config  # a patch order is one of files: in memory there is one
        if any(model.config.replace(patch_order=first.patch_order) != first for model in models):
            parser.error("the files are of different networks")
        model = average(models, [part / sum(parts) for part in parts])
        scale_logits(model, args.scale, args.shift)
        print(bc.save_checkpoint(model, args.out, dtype=torch.float16))
    except bc.BiRefNetError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
