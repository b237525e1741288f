"""Exponential moving average of a network's weights and statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """Average of everything in a network's state, in float32 at least.

    In the first steps the decay is (1 + n) / (10 + n) where that is less, so that the average does not remember the
    weights it started from. Whole numbers (counters) are copied.

    Args:
        model: The network; its present state is where the average starts.
        decay: Share of the average that stays at each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the network's present state."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in model.state_dict().items():
            average = self.state[name]
            if average.is_floating_point():
                average.lerp_(value.to(average.dtype), 1 - decay)
            else:
                average.copy_(value)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within this, the network has the averaged state."""
        state = model.state_dict()
        own = {name: value.detach().clone() for name, value in state.items()}
        model.load_state_dict(self.state)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """For saving."""
        return {"steps": self.steps, "state": self.state}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self.steps = saved["steps"]
        values: Mapping[str, Tensor] = saved["state"]
        for name, value in values.items():
            self.state[name].copy_(value)
