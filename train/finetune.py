"""Trains a BiRefNet on your images and masks.

    python train/finetune.py --data DIR --out DIR [--init MODEL | --backbone NAME] [--recipe NAME] ...
    torchrun --nproc-per-node N train/finetune.py ...

Runs from a checkout, without installing; docs/training.md explains.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from birefnet_core.training.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(None, ROOT / "train" / "recipes"))
