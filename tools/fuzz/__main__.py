"""python -m tools.fuzz --seed 7 --minutes 5 [--part images] [--output fuzz_output]

Each case is decided by the seed, the part and its number alone. Exit code 1 where any case failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # names that are mutated are not looked for on the Hub

from . import sources
from .run import PARTS, fuzz


def main() -> int:
    """Parses the command line and fuzzes."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M", help="in all (%(default)s)")
    parser.add_argument("--part", nargs="*", default=[], choices=[*PARTS, []], help="default: all of them in turn")
    parser.add_argument("--output", type=Path, default=Path("fuzz_output"), help="where failing cases go (%(default)s)")
    args = parser.parse_args()
    try:
        report = fuzz(args.seed, args.minutes * 60, args.part or list(PARTS), args.output)
    finally:
        shutil.rmtree(sources.folder(), ignore_errors=True)
    print(report.text())
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
