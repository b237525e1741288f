"""The state of a training: all that a step changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import ConfigError
from ..network import BiRefNet
from .distributed import Ranks
from .ema import Ema
from .model_setup import amp_dtype, build_network, synchronise_norms
from .optim import Decay, make_optimizer
from .position import Position
from .recipe import Recipe


@dataclasses.dataclass
class TrainState:
    """What ``last.pt`` holds of a training: everything that a step changes."""

    model: BiRefNet
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    ema: Ema | None
    position: Position
    fitted: bool = True  # whether phases are fitted to the number of steps, as version 0.1 did not
    decay: Decay = "weights"  # what has weight decay; in version 0.1 "matrices"

    @classmethod
    def create(cls, recipe: Recipe, classes: int, ranks: Ranks) -> TrainState:
        """The state before the first step."""
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        model = build_network(recipe, classes).to(ranks.device).to(memory_format=layout)
        if recipe.sync_bn and ranks.world_size > 1:
            if ranks.device.type != "cuda":
                raise ConfigError("sync_bn needs GPUs: on the CPU, train with freeze_bn or larger batches.")
            model = synchronise_norms(model)
        half = amp_dtype(recipe.amp, ranks.device) == torch.float16
        return cls(
            model=model,
            optimizer=make_optimizer(model, recipe),
            scaler=torch.amp.GradScaler(ranks.device.type, enabled=half),
            ema=Ema(model, recipe.ema) if recipe.ema else None,
            position=Position(),
        )

    def state_dict(self) -> dict[str, Any]:
        """For saving."""
        return {
            "position": dataclasses.asdict(self.position),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "fitted": self.fitted,
            "decay": self.decay,
        }

    def load_state_dict(self, state: Mapping[str, Any], recipe: Recipe) -> None:
        """The inverse of ``state_dict``. Moments belong to their parameters by their order in the optimizer alone.

        Raises:
            Exception: The state is not that of such a training.
        """
        self.position, self.fitted = Position.from_dict(state["position"]), bool(state.get("fitted", False))
        self.decay = state.get("decay", "matrices")
        if self.decay != "weights":
            self.optimizer = make_optimizer(self.model, recipe, decay=self.decay)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])


class LastSound:
    """What a step changes before its optimizer step, as it was after the last whole one.

    That is the place in the training, and buffers such as the statistics of BatchNorm. With them, a state in which a
    step failed half done becomes the one before it; weights and moments change in the optimizer step alone.

    Args:
        state: The state. Nothing of it is kept before the first ``keep``.
    """

    def __init__(self, state: TrainState) -> None:
        self.state = state
        self._position: Position | None = None
        self._buffers: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}  # those of the network, copies
        for buffer in state.model.buffers():
            originals, copies = self._buffers.setdefault(buffer.dtype, ([], []))
            originals.append(buffer)
            copies.append(buffer.clone())

    @torch.no_grad()
    def keep(self) -> None:
        """Keeps the state as it is now."""
        self._position = self.state.position.copy()
        for originals, copies in self._buffers.values():
            torch._foreach_copy_(copies, originals)

    def discard(self) -> None:
        """Keeps nothing, as while the optimizer steps and where the weights are not finite."""
        self._position = None

    @torch.no_grad()
    def restore(self) -> bool:
        """Makes the state the one that was kept. Returns False, and changes nothing, where none was."""
        if self._position is None:
            return False
        self.state.position = self._position.copy()
        for originals, copies in self._buffers.values():
            torch._foreach_copy_(originals, copies)
        return True
