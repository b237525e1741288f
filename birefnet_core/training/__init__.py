"""Training and fine-tuning (Sec. 3.5-3.6): data, augmentation, loop, results."""

from .augment import Augmentation
from .data import TrainingData
from .loop import Trainer, TrainingResult, train
from .preflight import preflight
from .prepare import prepare
from .recipe import Recipe, from_values, load_recipe

__all__ = [
    "Augmentation",
    "Recipe",
    "Trainer",
    "TrainingData",
    "TrainingResult",
    "from_values",
    "load_recipe",
    "preflight",
    "prepare",
    "train",
]
