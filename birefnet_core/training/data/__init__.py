"""Data sets: folders -> pairs of an image and its mask -> validated -> augmented batches."""

from .folders import Pair, TrainingData, find_set, find_sets, find_training

__all__ = ["Pair", "TrainingData", "find_set", "find_sets", "find_training"]
