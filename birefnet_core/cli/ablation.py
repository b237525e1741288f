"""birefnet ablation: the paper's ablation (Tab. 1-3) on your data, at any scale.

Trains every row with every seed on the same pairs for the same steps, and writes OUT/ablation.md and OUT/ablation.png.
The same command resumes an interrupted ablation; finished runs are read, not repeated. docs/ablation.md has an example.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ..stop_signal import STOPPED
from ..training import Recipe, TrainingData, from_values, load_recipe
from ..training.ablation import ROWS, SCORES_FILE, Row, ablate, choose_rows, mask_of, run_folder
from ..training.ablation_report import TITLE, plot, report
from ..training.data import find_sets
from ..training.data.folders import FoundPairs
from ..training.report import check_report
from ..training.run_folder import RunFolder, write_errors_as_training_error
from ..training.run_inputs import check_files_stay
from .console import say
from .outputs import Inputs, Outputs, model_files, prepare_file, refuse_input

REPORT, PLOT = "ablation.md", "ablation.png"
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
    args.out = RunFolder(args.out).path  # as the trainings take it, where it begins with ~
    try:
        _ablate(args)
    except KeyboardInterrupt:
        say("stopped; the same command continues", error=True)
        return STOPPED
    say((args.out / REPORT).read_text(encoding="utf-8"))
    return 0


def _ablate(args: argparse.Namespace) -> None:
    rows = choose_rows(args.rows)
    changes = {key: value for key, value in vars(args).items() if key in Recipe.__dataclass_fields__}
    recipe_file = args.recipe or Path(__file__).with_suffix(".toml")
    recipe = from_values({**load_recipe(recipe_file), **changes})
    data = TrainingData(sets=tuple(args.data), validation=(args.val_data,))
    found = find_sets(data.sets), find_sets(data.validation)
    _check_outputs(args, rows, recipe, recipe_file, found)
    pairs = len(found[0].pairs), len(found[1].pairs)
    runs, folder = [], RunFolder(args.out)
    for one in ablate(rows, recipe, data, args.out, seeds=args.seeds, device=args.device):
        runs.append(one)
        with write_errors_as_training_error(folder):
            folder.write_text(REPORT, report(rows, runs, recipe, pairs, PLOT))
            plot(rows, runs, folder.path / PLOT)


def _check_outputs(
    args: argparse.Namespace, rows: Sequence[Row], recipe: Recipe, recipe_file: Path, found: Sequence[FoundPairs]
) -> None:
    """Checks, before the first training, that nothing which is read would be replaced in any row's folder.

    Each training checks its own folder too, but those of the last rows begin after hours.

    Raises:
        ConfigError: Something would be, or the report cannot be written.
    """
    files = [recipe_file, *(file for part in found for file in part.files)]
    weights = [path for source in (recipe.init, recipe.encoder) for path in model_files(source)]
    inputs, outputs = Inputs([*files, *weights]), Outputs()
    for name in (REPORT, PLOT):
        prepare_file(RunFolder(args.out).path / name, "--out", inputs, outputs, streams=False)
    check_report(args.out / REPORT, args.out / PLOT, TITLE)
    truths = [pair.mask for pair in found[1].pairs if pair.mask is not None]
    for folder in (run_folder(args.out, row, seed) for row in rows for seed in range(args.seeds)):
        if os.path.exists(folder.path / SCORES_FILE):  # it is done: read, and not written to
            continue
        folder.check_own()
        check_files_stay(folder, files if os.path.exists(folder.last) else [*files, *weights])
        for truth in truths:
            refuse_input(mask_of(folder, truth), "--out", inputs)
