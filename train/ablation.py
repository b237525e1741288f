"""The paper's ablation (Tab. 1-3) on your data, as small as you like.

    python train/ablation.py --data DIR --val-data DIR --out DIR [--rows NAME ...] [--seeds N] [--epochs N] ...

Trains every row with every seed on the same pairs for the same steps, and writes OUT/ablation.md and OUT/ablation.png.
Stopped and called again it goes on; finished runs are read, not repeated. docs/ablation.md has an example.
"""

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout, without installing

from birefnet_core.errors import exit_code  # noqa: E402
from birefnet_core.training import Recipe, TrainingData, from_values, load_recipe  # noqa: E402
from birefnet_core.training.ablation import ROWS, ablate, choose_rows  # noqa: E402
from birefnet_core.training.ablation_report import plot, report  # noqa: E402
from birefnet_core.training.data import find_sets  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR", help="training pairs: im/ + gt/ or the like")
    parser.add_argument("--val-data", required=True, metavar="DIR", help="pairs to score on")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    parser.add_argument("--rows", nargs="+", default=[], metavar="NAME", help=", ".join(row.name for row in ROWS))
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="trainings of each row (%(default)s)")
    parser.add_argument("--recipe", type=Path, default=ROOT / "train" / "ablation.toml", metavar="FILE")
    parser.add_argument("--backbone", metavar="NAME", default=argparse.SUPPRESS, help="instead of the recipe's")
    parser.add_argument(
        "--encoder", metavar="FILE", default=argparse.SUPPRESS, help="pretrained encoder for every row, as in the paper"
    )
    for flag in ("--size", "--batch-size", "--epochs", "--rlft"):
        parser.add_argument(flag, type=int, metavar="N", default=argparse.SUPPRESS, help="instead of the recipe's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no messages but warnings")
    return parser


def main() -> int:
    args = build_parser().parse_args()
    logging.basicConfig(level=logging.WARNING if args.quiet else logging.INFO, format="%(message)s")
    return exit_code(lambda: run_rows(args), interrupted="stopped; the same command goes on")


def run_rows(args: argparse.Namespace) -> int:
    """Trains what is missing; after each run, writes the report of all so far."""
    rows = choose_rows(args.rows)
    changes = {key: value for key, value in vars(args).items() if key in Recipe.__dataclass_fields__}
    recipe = from_values({**load_recipe(args.recipe), **changes})
    data = TrainingData(sets=tuple(args.data), validation=(args.val_data,))
    pairs = len(find_sets(data.sets).pairs), len(find_sets(data.validation).pairs)
    runs = []
    for run in ablate(rows, recipe, data, args.out, seeds=args.seeds, device=args.device):
        runs.append(run)
        plot(rows, runs, args.out / "ablation.png")
        (args.out / "ablation.md").write_text(report(rows, runs, recipe, pairs, "ablation.png"), encoding="utf-8")
    print((args.out / "ablation.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
