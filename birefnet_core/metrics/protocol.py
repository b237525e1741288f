"""Which metrics an evaluation takes, and the measurement of one pair of files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..checks import check_number, check_switch
from ..errors import ConfigError, DatasetError, ImageError
from ..mask_files import read_mask
from .measures.boundary_accuracy import BoundaryIoU, MeanBoundaryAccuracy
from .measures.e_measure import EMeasure
from .measures.f_measure import FMeasure
from .measures.haze import Haze
from .measures.hce import RELAX, HumanCorrectionEfforts
from .measures.mae import MeanAbsoluteError, MeanSquaredError
from .measures.matting import AlphaMeanSquaredError, ConnectivityError, GradientError, SumOfAbsoluteDifferences
from .measures.s_measure import SMeasure
from .measures.weighted_f import WeightedF
from .metric import Measurement, Metric
from .optional import opencv_if_installed
from .pair import FOREGROUND_ABOVE, Pair

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        SMeasure, FMeasure, WeightedF, EMeasure, MeanAbsoluteError, MeanSquaredError,
        HumanCorrectionEfforts, BoundaryIoU, MeanBoundaryAccuracy,
        SumOfAbsoluteDifferences, AlphaMeanSquaredError, GradientError, ConnectivityError, Haze,
    )
}  # fmt: skip

# Scores of an evaluation, in the order of its result.
KEYS = ("Sm", "maxF", "meanF", "adpF", "wF", "maxE", "meanE", "adpE", "MAE", "MSE", "HCE", "BIoU", "mBA")
MATTING_KEYS = ("SAD", "alphaMSE", "Grad", "Conn", "haze", "hazeArea")

_METRIC_OF_KEY = {key: name for name, metric in METRICS.items() for key in (name, *metric.keys)}
_OTHER_SHAPE = 0.01  # relative difference of aspect ratios above which a prediction is reported as distorted


def lower_is_better(key: str) -> bool:
    """Whether a smaller score of this key is the better one."""
    return METRICS[_METRIC_OF_KEY[key]].lower_is_better


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is measured.

    Attributes:
        keys: Scores, from ``KEYS`` and ``MATTING_KEYS``; None for all of ``KEYS``. Without OpenCV, HCE is then NaN,
            while naming it is an error.
        matting: Whether ``MATTING_KEYS`` are taken too.
        relax: Tolerance of HCE in pixels.
    """

    keys: tuple[str, ...] | None = None
    matting: bool = False
    relax: int = RELAX

    def __post_init__(self):
        unknown = [key for key in self.keys or () if key not in (*KEYS, *MATTING_KEYS)]
        if unknown or self.keys == ():
            found = f"Unknown metrics {', '.join(unknown)}" if unknown else "No metric"
            raise ConfigError(f"{found}; choose from {', '.join((*KEYS, *MATTING_KEYS))}.")
        check_switch("matting", self.matting)
        check_number("relax", self.relax, whole=True)
        if self.keys and "HCE" in self.keys:
            HumanCorrectionEfforts(self.relax)  # refuses what cannot be measured before the work begins
        elif self.relax < 0:
            raise ConfigError(f"The relaxation of HCE is {self.relax}; it must be a number of pixels, at least 0.")

    @property
    def lacks_opencv(self) -> bool:
        """Whether HCE is left out because OpenCV is missing."""
        return self.keys is None and opencv_if_installed() is None

    @property
    def score_keys(self) -> tuple[str, ...]:
        """The scores of the result, in order."""
        chosen = {*(self.keys or KEYS), *(MATTING_KEYS if self.matting else ())}
        return tuple(key for key in (*KEYS, *MATTING_KEYS) if key in chosen)

    def metrics(self) -> list[Metric]:
        """New, empty accumulators."""
        names = dict.fromkeys(_METRIC_OF_KEY[key] for key in self.score_keys)
        if self.lacks_opencv:
            del names["HCE"]
        return [HumanCorrectionEfforts(self.relax) if name == "HCE" else METRICS[name]() for name in names]

    def pick(self, scores: dict[str, float]) -> dict[str, float]:
        """The chosen scores, in order; NaN for what was not measured."""
        return {key: scores.get(key, float("nan")) for key in self.score_keys}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The measurement of one pair of files.

    Attributes:
        measurements: By the metrics' ``identity``.
        notes: Kinds of things worth a warning.
        failure: Why the pair could not be measured, or None.
    """

    stem: str
    measurements: dict[str, Measurement] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failure: str | None = None


def measure_files(stem: str, prediction: Path, ground_truth: Path, metrics: Iterable[Metric]) -> Outcome:
    """Reads and measures one pair; a file that cannot be used becomes a failure, not an exception."""
    try:
        return _measure_pair(stem, prediction, ground_truth, metrics)
    except (DatasetError, ImageError) as error:
        return Outcome(stem=stem, failure=str(error))
    except MemoryError:
        failure = f"too little memory for {prediction} and {ground_truth}; use fewer --workers."
        return Outcome(stem=stem, failure=failure)


def _measure_pair(stem: str, prediction: Path, ground_truth: Path, metrics: Iterable[Metric]) -> Outcome:
    predicted, true = read_mask(prediction, labels=False), read_mask(ground_truth)
    pair = Pair(predicted.pixels, true.pixels)
    notes = [f"prediction {note}" for note in predicted.notes]
    notes += [f"ground truth {note}" for note in true.notes]
    notes += _warnings(predicted.pixels, true.pixels, pair)
    return Outcome(
        stem=stem, measurements={metric.identity: metric.measure(pair) for metric in metrics}, notes=tuple(notes)
    )


def _warnings(predicted: np.ndarray, true: np.ndarray, pair: Pair) -> list[str]:
    notes = []
    stretch = predicted.shape[0] * true.shape[1] / (predicted.shape[1] * true.shape[0])
    if max(stretch, 1 / stretch) > 1 + _OTHER_SHAPE:
        notes.append("prediction of another aspect ratio than its ground truth, stretched to it")
    if predicted.dtype == np.uint16 and 0 < predicted.max() < 256:
        notes.append("prediction of 16 bits with values below 256: black in the high byte, which is scored")
    low, high = predicted.min(), predicted.max()
    if predicted.dtype == np.uint8 and low == 0 < high <= FOREGROUND_ABOVE and np.isin(predicted, (low, high)).all():
        notes.append("prediction of 0 and another dark value (labels?): black to HCE, mBA and the scores of mattes")
    if not pair.mask.any():
        faint = ", though not black" if true.any() else ""
        notes.append(f"empty ground truth{faint} (F-measures and BIoU count as 0, mBA leaves the pair out)")
    return notes
