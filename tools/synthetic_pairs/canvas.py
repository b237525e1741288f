"""Drawing coverage: lines and polygons in a plane of -1 ... 1, antialiased by drawing large and averaging.

Shapes: S pixels of the large canvas, N pixels of the result, S = SUPERSAMPLING * N.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np

SUPERSAMPLING = 3

Point = tuple[float, float]


class Canvas:
    """A square that shapes are drawn on.

    Args:
        size: N, side of the result in pixels.
        matrix: 2, 3 affine map of the shape's plane (x right, y down) onto that of the canvas, both -1 ... 1.
    """

    def __init__(self, size: int, matrix: np.ndarray) -> None:
        self.size, self.matrix = size, np.asarray(matrix, np.float64)
        self._pixels = np.zeros((size * SUPERSAMPLING,) * 2, np.uint8)
        self._scale = math.sqrt(abs(np.linalg.det(self.matrix[:, :2]))) * self._pixels.shape[0] / 2

    def line(self, points: Iterable[Point], width: float, value: float = 1.0) -> None:
        """A stroke of that width (in the shape's units) along the points; thinner than a pixel, it covers less."""
        pixels = width * self._scale
        thickness = max(1, round(pixels))
        value = min(value, value * pixels) if pixels < 1 else value
        cv2.polylines(self._pixels, [self._place(points)], False, round(255 * value), thickness, cv2.LINE_8)

    def polygon(self, points: Iterable[Point], value: float = 1.0) -> None:
        """A filled polygon; value 0 cuts a hole."""
        cv2.fillPoly(self._pixels, [self._place(points)], round(255 * value))

    def ellipse(
        self, centre: Point, radii: Point, width: float | None = None, value: float = 1.0, turn: float = 0.0
    ) -> None:
        """An ellipse, filled, or as a ring where a width is given; turned by that angle."""
        points = ellipse(centre, radii, turn)
        if width is None:
            self.polygon(points, value)
        else:
            self.line([*points, points[0]], width, value)

    def circle(self, centre: Point, radius: float, width: float | None = None, value: float = 1.0) -> None:
        """A circle, filled, or as a ring where a width is given."""
        self.ellipse(centre, (radius, radius), width, value)

    def coverage(self) -> np.ndarray:
        """N, N float32 in [0, 1]."""
        small = cv2.resize(self._pixels, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return small.astype(np.float32) / 255

    def _place(self, points: Iterable[Point]) -> np.ndarray:
        flat = np.asarray(list(points), np.float64).reshape(-1, 2)
        moved = flat @ self.matrix[:, :2].T + self.matrix[:, 2]
        pixels = (moved + 1) / 2 * self._pixels.shape[0]
        return np.clip(np.round(pixels), -20000, 20000).astype(np.int32).reshape(-1, 1, 2)


def ellipse(
    centre: Point, radii: Point, turn: float = 0.0, first: float = 0.0, last: float = 2 * math.pi
) -> list[Point]:
    """Points of an elliptical arc."""
    angles = np.linspace(first, last, 48, endpoint=last - first < 2 * math.pi - 1e-6)
    x, y = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
    cos, sin = math.cos(turn), math.sin(turn)
    return list(zip(centre[0] + cos * x - sin * y, centre[1] + sin * x + cos * y, strict=True))


def at(angle: float, radius: float, centre: Point = (0.0, 0.0)) -> Point:
    """A point in polar coordinates."""
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)


def curve(points: Iterable[Point], count: int = 40) -> list[Point]:
    """A Bézier curve with these control points."""
    control = np.asarray(list(points), np.float64)
    t = np.linspace(0, 1, count)[:, None]
    degree = len(control) - 1
    weights = [math.comb(degree, i) * t**i * (1 - t) ** (degree - i) for i in range(degree + 1)]
    return [tuple(p) for p in sum(w * c for w, c in zip(weights, control, strict=True))]


def wander(
    rng: np.random.Generator, start: Point, angle: float, length: float, bend: float, steps: int = 24
) -> list[Point]:
    """A path that changes its direction at random."""
    turns = np.cumsum(rng.normal(0, bend, steps)) + angle
    step = length / steps
    xs, ys = start[0] + np.cumsum(np.cos(turns)) * step, start[1] + np.cumsum(np.sin(turns)) * step
    return [start, *zip(xs, ys, strict=True)]
