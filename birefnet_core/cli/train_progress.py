"""Progress of a training: a bar on a terminal, lines in a file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from ..checkpoints.hub_client import hub_client
from ..text import clock_time
from .console import say

_HIDDEN = ("epoch", "step", "steps", "best", "lr")  # of a step's values: shown in a way of their own, or not
_FIRST_STEPS = 3  # after which the speed is known; the first step of all is slower than the others
_SECONDS = 30.0  # between two lines


class ProgressBar:
    """A progress bar with the terms of the loss and the remaining time; lines where the output is not a terminal.

    A training goes on where nobody reads them any more, as after a closed terminal or on a full disk.

    Args:
        quiet: Show nothing.
        clock: Seconds since some moment.
    """

    def __init__(self, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.bar: Any = None
        self.quiet, self.clock = quiet, clock
        self.is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._began = self._shown = clock()
        self._done = 0  # steps since the training was last started
        self._first_step = 0.0  # when it ended

    def __call__(self, step: dict[str, Any]) -> None:
        if self.quiet:
            return
        self._done += 1
        if self._done == 1:
            self._first_step = self.clock()
        if self._done == min(_FIRST_STEPS, step["steps"]) and step["steps"] > step["step"]:
            self._print(self._first_look(step))
        if self.is_terminal:
            self._update_bar(step)
        elif self.clock() - self._shown >= _SECONDS or step["step"] == step["steps"]:
            self._shown = self.clock()
            self._print(self._line(step))

    def _first_look(self, step: dict[str, Any]) -> str:
        each = (self.clock() - self._first_step) / max(1, self._done - 1)
        left = step["steps"] - step["step"]
        return f"{each:.2g} s a step: about {clock_time(each * left)} for the {left} steps left, besides validations"

    def _line(self, step: dict[str, Any]) -> str:
        """Its remaining time includes validations at their average so far."""
        each = (self.clock() - self._began) / self._done
        left = step["steps"] - step["step"]
        best = "" if step["best"] is None else f", best {step['best']:.4f}"
        return (
            f"{time.strftime('%H:%M:%S')} epoch {step['epoch']}, step {step['step']} of {step['steps']}, loss "
            f"{step['loss']:.4g}{best}, {clock_time(each * left)} left"
        )

    def _update_bar(self, step: dict[str, Any]) -> None:
        if self.bar is None:
            self.bar = hub_client("utils.tqdm").tqdm(total=step["steps"], initial=step["step"] - 1, unit="step")
        shown = {name: f"{value:.3g}" for name, value in step.items() if name not in _HIDDEN}
        if step["best"] is not None:
            shown["best"] = f"{step['best']:.4f}"
        self.bar.set_description(f"epoch {step['epoch']}", refresh=False)
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def _print(self, text: str) -> None:
        above = contextlib.nullcontext() if self.bar is None else self.bar.external_write_mode(file=sys.stderr)
        with above:
            say(text, error=True)
