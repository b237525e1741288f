"""`birefnet ablation` from a checkout, without installing: the paper's ablation on your data (docs/ablation.md)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from birefnet_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["ablation", *sys.argv[1:]]))
