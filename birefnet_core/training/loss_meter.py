"""The loss of an optimizer step."""

from __future__ import annotations

import math

import torch

from ..errors import TrainingError
from ..losses import LossValue
from .distributed import Ranks
from .position import Position


class LossMeter:
    """Loss and terms of one optimizer step, over its batches and all processes.

    Attributes:
        sums: Means over the batches of this process.
        bad: Names of the images in batches whose loss is not finite.
        failed: Whether any process has such a batch; known after ``reduce``.
    """

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.bad: tuple[str, ...] = ()
        self.failed = False

    def add(self, value: LossValue, batches: int, names: tuple[str, ...]) -> None:
        """Adds one batch.

        Args:
            value: Its loss.
            batches: Number of batches in the step.
            names: Of its images.
        """
        numbers = torch.stack([value.total.detach(), *value.terms.values()]).tolist()
        if not all(map(math.isfinite, numbers)):
            self.bad += names
        for name, number in zip(("loss", *value.terms), numbers, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + number / batches

    def reduce(self, ranks: Ranks, stop: bool) -> tuple[dict[str, float], bool]:
        """Means over all processes, and whether any of them requests a stop."""
        stopped, failed, *totals = ranks.all_reduce_sum([float(stop), float(bool(self.bad)), *self.sums.values()])
        self.failed = failed > 0
        return {name: total / ranks.world_size for name, total in zip(self.sums, totals, strict=True)}, stopped > 0

    def not_finite(self, ranks: Ranks, position: Position, earlier: str) -> TrainingError:
        """The error for a loss that is not finite, after ``reduce``.

        Args:
            ranks: The processes, all of which call this.
            position: Before the step.
            earlier: Name of the file that holds an earlier state.
        """
        names = [name for part in ranks.all_gather_object(self.bad) for name in part]
        terms = ", ".join(f"{name} {value:g}" for name, value in self.sums.items())
        return TrainingError(
            f"the loss is not finite in epoch {position.epoch + 1}, step {position.step + 1} ({terms}). The batch's "
            f"images: {', '.join(names)}. Check them; else lower the learning rate, set clip=1, or amp='off'. "
            f"{earlier} holds an earlier state."
        )
