"""The evaluation protocol of the paper (Sec. 4.2): measures, and tables of scores for folders of masks."""

from .evaluate import IncompleteEvaluation, SetResult, evaluate_folders, evaluate_set, mean_of_sets
from .measures.boundary_accuracy import BoundaryIoU, MeanBoundaryAccuracy
from .measures.e_measure import EMeasure
from .measures.f_measure import FMeasure
from .measures.hce import HumanCorrectionEfforts
from .measures.mae import MeanAbsoluteError, MeanSquaredError
from .measures.matting import AlphaMeanSquaredError, ConnectivityError, GradientError, SumOfAbsoluteDifferences
from .measures.s_measure import SMeasure
from .measures.weighted_f import WeightedF
from .metric import Metric
from .pair import Pair
from .protocol import KEYS, MATTING_KEYS, METRICS, Protocol
from .tensors import score_masks

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
    "Metric",
    "Pair",
    "Protocol",
    "SMeasure",
    "SetResult",
    "SumOfAbsoluteDifferences",
    "WeightedF",
    "evaluate_folders",
    "evaluate_set",
    "mean_of_sets",
    "score_masks",
]
