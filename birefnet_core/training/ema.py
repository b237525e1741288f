"""Exponential moving average of a network's weights and statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """Average of the parameters that are trained and of the buffers, in float32 at least.

    In the first steps the decay is (1 + n) / (10 + n) where that is less, so that the average soon forgets the
    initial weights. Integers (counters) are copied.

    Args:
        model: The network; the average begins with its present state. Parameters without ``requires_grad`` are left
            out.
        decay: Weight of the average at each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        self.state = {name: _copy(value) for name, value in model.state_dict().items() if name not in frozen}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Adds the network's present state to the average."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        state = model.state_dict()
        floating = [name for name, average in self.state.items() if average.is_floating_point()]
        averages = [self.state[name] for name in floating]
        values = [state[name].to(average.dtype) for name, average in zip(floating, averages, strict=True)]
        torch._foreach_lerp_(averages, values, 1 - decay)
        for name in self.state.keys() - set(floating):
            self.state[name].copy_(state[name])

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within this, the network has the averaged state."""
        state = model.state_dict()
        own = {name: state[name].clone() for name in self.state}
        _overwrite(state, self.state)
        try:
            yield
        finally:
            _overwrite(state, own)

    def state_dict(self) -> dict[str, Any]:
        """For saving."""
        return {"steps": self.steps, "state": self.state}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``. Version 0.1 saved frozen parameters too; they are left out.

        Raises:
            KeyError: A value is missing.
        """
        self.steps = saved["steps"]
        _overwrite(self.state, {name: saved["state"][name] for name in self.state})


def _copy(value: Tensor) -> Tensor:
    copy = value.detach().clone()
    return copy.to(torch.promote_types(copy.dtype, torch.float32)) if copy.is_floating_point() else copy


@torch.no_grad()
def _overwrite(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        targets[name].copy_(value)
