"""The evaluation protocol of the paper (Sec. 4.2): metrics, and folders of masks turned into tables."""

from .boundary import BoundaryIoU, MeanBoundaryAccuracy
from .e_measure import EMeasure
from .evaluate import IncompleteEvaluation, SetResult, evaluate, evaluate_set, mean_of_sets
from .f_measure import FMeasure
from .hce import HumanCorrectionEfforts
from .mae import MeanAbsoluteError, MeanSquaredError
from .matting import AlphaMeanSquaredError, ConnectivityError, GradientError, SumOfAbsoluteDifferences
from .pair import Pair
from .protocol import KEYS, MATTING_KEYS, METRICS, Protocol
from .s_measure import SMeasure
from .tensors import score_masks
from .weighted_f import WeightedF

__all__ = [
    "KEYS",
    "MATTING_KEYS",
    "METRICS",
    "AlphaMeanSquaredError",
    "BoundaryIoU",
    "ConnectivityError",
    "EMeasure",
    "FMeasure",
    "GradientError",
    "HumanCorrectionEfforts",
    "IncompleteEvaluation",
    "MeanAbsoluteError",
    "MeanBoundaryAccuracy",
    "MeanSquaredError",
    "Pair",
    "Protocol",
    "SMeasure",
    "SetResult",
    "SumOfAbsoluteDifferences",
    "WeightedF",
    "evaluate",
    "evaluate_set",
    "mean_of_sets",
    "score_masks",
]
