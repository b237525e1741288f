"""Training and fine-tuning (Sec. 3.5-3.6): data, recipe, loop, results."""

from .data import TrainingData
from .data.augment import Augmentation
from .data.load import load_datasets
from .data.preflight import validate_dataset
from .loop import Trainer, TrainingResult, train
from .recipe import Recipe, from_values, load_recipe

__all__ = [
    "Augmentation",
    "Recipe",
    "Trainer",
    "TrainingData",
    "TrainingResult",
    "from_values",
    "load_datasets",
    "load_recipe",
    "train",
    "validate_dataset",
]
