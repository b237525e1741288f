"""birefnet ablation: the paper's ablation (Tab. 1-3) on your data, at any scale.

Trains every row with every seed on the same pairs for the same steps, and writes OUT/ablation.md and OUT/ablation.png.
The same command resumes an interrupted ablation; finished runs are read, not repeated. docs/ablation.md has an example.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..stop_signal import STOPPED
from ..training import Recipe, TrainingData, from_values, load_recipe
from ..training.ablation import ROWS, ablate, choose_rows
from ..training.ablation_report import plot, report
from ..training.data import find_sets
from ..training.run_folder import RunFolder, write_errors_as_training_error
from .console import say

DESCRIPTION = "Trains and scores the rows of the paper's Tab. 1-3 on your data."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR", help="training pairs: im/ + gt/ or the like")
    parser.add_argument("--val-data", required=True, metavar="DIR", help="pairs to score on")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    parser.add_argument("--rows", nargs="+", default=[], metavar="NAME", help=", ".join(row.name for row in ROWS))
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="trainings of each row (%(default)s)")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="instead of birefnet_core/cli/ablation.toml")
    parser.add_argument("--backbone", metavar="NAME", default=argparse.SUPPRESS, help="instead of the recipe's")
    parser.add_argument(
        "--encoder", metavar="FILE", default=argparse.SUPPRESS, help="pretrained encoder for every row, as in the paper"
    )
    for flag in ("--size", "--batch-size", "--epochs", "--rlft"):
        parser.add_argument(flag, type=int, metavar="N", default=argparse.SUPPRESS, help="instead of the recipe's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no messages but warnings")


def run(args: argparse.Namespace) -> int:
    """Trains the missing rows; after each run, writes the report of all so far."""
    try:
        _ablate(args)
    except KeyboardInterrupt:
        say("stopped; the same command continues", error=True)
        return STOPPED
    say((args.out / "ablation.md").read_text(encoding="utf-8"))
    return 0


def _ablate(args: argparse.Namespace) -> None:
    rows = choose_rows(args.rows)
    changes = {key: value for key, value in vars(args).items() if key in Recipe.__dataclass_fields__}
    recipe = from_values({**load_recipe(args.recipe or Path(__file__).with_suffix(".toml")), **changes})
    data = TrainingData(sets=tuple(args.data), validation=(args.val_data,))
    pairs = len(find_sets(data.sets).pairs), len(find_sets(data.validation).pairs)
    runs, folder = [], RunFolder(args.out)
    for one in ablate(rows, recipe, data, args.out, seeds=args.seeds, device=args.device):
        runs.append(one)
        with write_errors_as_training_error(folder):
            plot(rows, runs, folder.path / "ablation.png")
            folder.write_text("ablation.md", report(rows, runs, recipe, pairs, "ablation.png"))
