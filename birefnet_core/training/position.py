"""How far a training has come."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

_MOST_REPEATED = 100  # times: a training that goes on with other numbers of processes repeats some of its steps


@dataclasses.dataclass
class Position:
    """Progress of a training.

    Attributes:
        epoch: Counted from 0.
        batch: Batches of the epoch that are done.
        step: Optimizer steps done in all.
        best: Best score so far; None before the first validation.
        sums: Sums of the loss and its terms over the epoch's steps.
        count: Number of those steps.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    count: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Position:
        """The inverse of ``dataclasses.asdict``.

        Raises:
            ValueError, TypeError: Not a position.
        """
        position = cls(**values)
        for name in ("epoch", "batch", "step", "count"):
            value = getattr(position, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} {value!r}, expected a whole number from 0 on")
        # Tiny images have E-measures above 1.
        if position.best is not None and not (_is_number(position.best) and 0 <= position.best <= 2):
            raise ValueError(f"best {position.best!r}, expected a score")
        sums = position.sums
        if not isinstance(sums, dict) or not all(isinstance(name, str) and _is_number(sums[name]) for name in sums):
            raise ValueError("sums that are no numbers by name")
        return position

    def check(self, *, epochs: int, batches: int, steps: int) -> None:
        """Checks that a training can have come to this position.

        Args:
            epochs: Of the recipe.
            batches: Of a process in an epoch.
            steps: In an epoch, by one process: as many as there can be.

        Raises:
            ValueError: It cannot.
        """
        last = 0 if self.epoch == epochs else batches  # after the last epoch there is nothing left
        most = _MOST_REPEATED * epochs * steps
        for name, value, greatest in (
            ("epoch", self.epoch, epochs),
            ("batch", self.batch, last),
            ("step", self.step, most),
        ):
            if value > greatest:
                raise ValueError(f"{name} {value}, expected at most {greatest} by its recipe and data")
        if self.step < self.epoch + self.count:
            raise ValueError(f"step {self.step} in epoch {self.epoch} after {self.count} steps of it")
        if (self.batch and not self.count) or (self.count > 0) != ("loss" in self.sums):
            raise ValueError(f"sums of {len(self.sums)} terms over {self.count} steps at batch {self.batch}")

    def copy(self) -> Position:
        """One that stays as it is when this one goes on."""
        return dataclasses.replace(self, sums=dict(self.sums))

    def add_step(self, means: Mapping[str, float]) -> None:
        """Counts an optimizer step with its loss and terms."""
        self.step += 1
        self.count += 1
        for name, value in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def end_epoch(self) -> dict[str, float]:
        """Goes on to the next epoch; gives the means of the loss and its terms over this one."""
        means = {name: value / self.count for name, value in self.sums.items()}
        self.epoch, self.batch, self.sums, self.count = self.epoch + 1, 0, {}, 0
        return means


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
