"""What every metric is: a measurement of one pair, and a streaming mean of measurements."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ConfigError
from .pair import Pair

Measurement = dict[str, Any]  # name -> float, or float64 (256,) for a curve over thresholds

EPSILON = float(np.spacing(1))  # Matlab's eps, which the published definitions add to denominators


class Metric:
    """Mean of a measurement over pairs; subclasses define the measurement.

    The state is one running total per entry, whatever the number of pairs, so accumulators of several processes can
    be merged. A pair whose value is undefined (NaN) does not count.

    Attributes:
        name: Short name, the key of the registry.
        keys: Names of the scores, the first being the one people mean by the metric.
        lower_is_better: Direction of the scores.
        version: Raised whenever a measurement changes; part of the cache's key.
    """

    name: str
    keys: tuple[str, ...]
    lower_is_better = False
    version = 1

    def __init__(self) -> None:
        self._totals: Measurement = {}
        self._counts: dict[str, int] = {}

    @property
    def identity(self) -> str:
        """Names the measurement and its parameters: equal identities give equal measurements."""
        return f"{self.name}:v{self.version}"

    def measure(self, pair: Pair) -> Measurement:
        """Measures one pair without touching the state."""
        raise NotImplementedError

    def scores(self, measurement: Measurement) -> dict[str, float]:
        """Turns a measurement of one pair, or the mean measurement of a set, into scores."""
        return {key: float(measurement[key]) for key in self.keys}

    def add(self, measurement: Measurement) -> None:
        """Counts one pair's measurement."""
        for entry, value in measurement.items():
            self._count(entry, value, int(bool(np.all(np.isfinite(value)))))

    def update(self, pair: Pair) -> dict[str, float]:
        """Measures and counts one pair; returns its scores."""
        measurement = self.measure(pair)
        self.add(measurement)
        return self.scores(measurement)

    def merge(self, other: Metric) -> None:
        """Adds what another accumulator of the same metric has seen.

        Raises:
            ConfigError: the other metric measures something else.
        """
        if other.identity != self.identity:
            raise ConfigError(f"Cannot merge {other.identity} into {self.identity}; both must be the same metric.")
        for entry, total in other._totals.items():
            self._count(entry, total, other._counts[entry])

    def mean(self) -> Measurement:
        """The mean measurement; NaN for entries no pair has defined, {} before the first pair."""
        return {
            entry: total / self._counts[entry] if self._counts[entry] else np.full_like(total, np.nan)
            for entry, total in self._totals.items()
        }

    def compute(self) -> dict[str, float]:
        """Scores of the set: of the mean measurement, so a maximum is taken over the mean curve. NaN if empty."""
        mean = self.mean()
        return self.scores(mean) if mean else dict.fromkeys(self.keys, float("nan"))

    def _count(self, entry: str, value: Any, count: int) -> None:
        value = np.asarray(value, np.float64)
        if entry not in self._totals:
            self._totals[entry], self._counts[entry] = np.zeros(value.shape), 0
        if count:
            self._totals[entry] = self._totals[entry] + value
            self._counts[entry] += count
