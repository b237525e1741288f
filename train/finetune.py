"""`birefnet train` from a checkout, without installing (docs/training.md).

    python train/finetune.py --data DIR --out DIR [--init MODEL | --backbone NAME] [--recipe NAME] ...
    torchrun --nproc-per-node N train/finetune.py ...
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from birefnet_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
