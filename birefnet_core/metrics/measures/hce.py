"""Human correction efforts.

X. Qin, H. Dai, X. Hu, D.-P. Fan, L. Shao, L. Van Gool: "Highly Accurate Dichotomous Image Segmentation", ECCV 2022.
BiRefNet, Sec. 4.2 (HCE with relax 5).

Needs OpenCV (extra ``eval``) for contours and polygon approximation. No file is read or written: the skeleton of
the ground truth is computed, and only where the prediction misses it.

Shapes: H W; all masks are uint8 0/1 within the box around everything that is foreground in either map.
"""

from __future__ import annotations

import numpy as np

from ...checks import check_number
from ...errors import ConfigError
from ..metric import Measurement, Metric
from ..numpy_morphology import bounding_box
from ..optional import opencv
from ..pair import FOREGROUND_ABOVE, Pair
from ..skeleton import skeletonize

RELAX = 5  # pixels of tolerance (BiRefNet, Sec. 4.2)
POLYGON_TOLERANCE = 2.0  # epsilon of the Ramer-Douglas-Peucker approximation, as the authors
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


class HumanCorrectionEfforts(Metric):
    """Mouse clicks needed to correct a prediction: polygon corners along faulty borders plus faulty regions.

    The prediction is binarised above byte 128 *without* normalisation, as the authors' code does. Errors thinner
    than the tolerance are forgiven, except where they cut the object's skeleton. A faulty region that covers the
    whole image costs nothing (the authors' code takes it for background), so an empty ground truth predicted full
    scores 0, and so does the reverse.
    """

    name = "HCE"
    keys = ("HCE",)
    lower_is_better = True

    def __init__(self, relax: int = RELAX) -> None:
        """Takes the tolerance in pixels.

        Raises:
            ConfigError: the tolerance is negative, or OpenCV is missing.
        """
        super().__init__()
        check_number("relax", relax, whole=True)
        if relax < 0:
            raise ConfigError(f"The relaxation of HCE is {relax}; it must be a number of pixels, at least 0.")
        self.relax = relax
        opencv("HCE")

    @property
    def identity(self) -> str:
        return f"{super().identity}:relax={self.relax}"

    def measure(self, pair: Pair) -> Measurement:
        found = pair.prediction > FOREGROUND_ABOVE
        box = bounding_box(pair.mask | found, margin=self.relax + 2)  # farther pixels are background to every step
        truth, found = pair.mask[box].view(np.uint8), found[box].view(np.uint8)
        if not truth.size or not (truth ^ found).any():
            return {"HCE": 0.0}
        return {"HCE": float(_efforts(truth, found, self.relax))}


def _efforts(truth: np.ndarray, found: np.ndarray, relax: int) -> int:
    """Clicks to remove the false and to add the missed parts."""
    cv2 = opencv("HCE")
    hit = truth & found
    false, missed = found ^ hit, truth ^ hit
    core = cv2.erode(truth | found, _CROSS, iterations=min(relax, sum(truth.shape)))  # after which nothing changes
    false_left = _relaxed(false, core, 1 - truth, relax)
    missed_left = _relaxed(missed, core, 1 - found, relax)
    undecided = missed ^ missed_left  # forgiven, unless the object's skeleton runs through
    missed_left |= skeletonize(truth.view(bool), undecided.view(bool)).view(np.uint8)
    right = hit | missed_left  # what false parts have to be cut off from
    return _clicks(false_left, right) + _clicks(missed_left, 1 - (right | false_left))


def _relaxed(error: np.ndarray, core: np.ndarray, allowed: np.ndarray, relax: int) -> np.ndarray:
    """The error without its parts thinner than the tolerance: what survives erosion, grown back where allowed."""
    cv2 = opencv("HCE")
    grown = error & core
    for step in range(relax):
        before, grown = grown, cv2.dilate(grown, _CROSS)
        grown &= allowed
        if step >= RELAX and (grown == before).all():  # few steps take less time than finding that out
            break
    return grown & error


def _clicks(region: np.ndarray, beside: np.ndarray) -> int:
    """Corners of the borders a region shares with ``beside``, plus one click for every part that shares none."""
    cv2 = opencv("HCE")
    contours, _ = cv2.findContours(region, cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return 0
    points = np.concatenate(contours)[:, 0]  # P 2, column and row
    contour = np.repeat(np.arange(len(contours)), [len(c) for c in contours])
    place = points[:, 1].astype(np.intp) * region.shape[1] + points[:, 0]
    shared = cv2.dilate(beside, _CROSS).reshape(-1)[place].astype(bool)
    shared &= _first_visit(place, region.size)
    parts, labels = cv2.connectedComponents(region, connectivity=8)
    untouched = parts - 1 - np.unique(labels.reshape(-1)[place[shared]]).size
    if region.all():
        untouched = 0  # see the class
    return untouched + _corners(points, contour, shared)


def _first_visit(place: np.ndarray, size: int) -> np.ndarray:
    """Whether each entry is the first with its value; contours pass thin parts twice."""
    order = np.arange(place.size, dtype=np.int32)
    earliest = np.empty(size, np.int32)
    earliest[place[::-1]] = order[::-1]  # of equal places the last written stays
    return earliest[place] == order


def _corners(points: np.ndarray, contour: np.ndarray, shared: np.ndarray) -> int:
    """Corners of the polygons through the shared stretches of all contours.

    Args:
        points: int32 (P, 2), the points of all contours one after the other.
        contour: int (P,), the contour each belongs to.
        shared: bool (P,), whether it counts.
    """
    cv2 = opencv("HCE")
    linked = np.zeros(points.shape[0] + 1, bool)  # whether a point continues the one before
    linked[1:-1] = shared[1:] & shared[:-1] & (contour[1:] == contour[:-1])
    start, end = np.flatnonzero(shared & ~linked[:-1]), np.flatnonzero(shared & ~linked[1:])
    if not start.size:
        return 0
    # A contour is a ring: its last stretch may meet its first, which is then appended backwards, as the authors do.
    _, first, number = np.unique(contour[start], return_index=True, return_counts=True)
    last = first + number - 1
    meets = (number > 1) & (np.abs(points[start[first]] - points[end[last]]).max(axis=1) == 1)
    alone = np.ones(start.size, bool)
    alone[first[meets]] = alone[last[meets]] = False
    length = end - start + 1
    total = int(length[alone & (length <= 2)].sum())  # one or two points are their own polygon
    stretches = [points[a : b + 1] for a, b in zip(*(x[alone & (length > 2)] for x in (start, end)), strict=True)]
    stretches += [
        np.concatenate((points[start[j] : end[j] + 1], points[start[i] : end[i] + 1][::-1]))
        for i, j in zip(first[meets], last[meets], strict=True)
    ]
    return total + sum(len(cv2.approxPolyDP(stretch[:, None], POLYGON_TOLERANCE, False)) for stretch in stretches)
