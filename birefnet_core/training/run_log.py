"""The log of a run: metrics.jsonl, TensorBoard, sample sheets, curves, the report."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from ..text import first_line
from .position import Position
from .recipe import Recipe
from .report import curves, report, sample_sheet, save_png
from .run_folder import CURVES, REPORT, SAMPLES, RunFolder
from .validation import Validation

logger = logging.getLogger(__name__)


class RunLog:
    """Writes the log of a run into its folder.

    Args:
        folder: The folder.
        recipe: Of the training.
        enabled: False in all processes but the main one: nothing is written.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe, *, enabled: bool) -> None:
        self.folder, self.recipe, self.enabled = folder, recipe, enabled
        self._board: Any = None
        self._has_board = enabled

    def step(self, position: Position, means: Mapping[str, float], lr: float, seconds: float) -> None:
        """Logs an optimizer step, if its turn has come.

        Args:
            position: After the step.
            means: The loss and its terms.
            lr: Learning rate.
            seconds: Duration of the step.
        """
        if position.step % self.recipe.log_steps:
            return
        self._log("step", position.epoch + 1, position.step, {"lr": lr, **_split(means), "seconds": round(seconds, 3)})

    def epoch(self, position: Position, means: Mapping[str, float]) -> None:
        """Logs the means over an epoch, after it."""
        self._log("epoch", position.epoch, position.step, _split(means))

    def validation(self, position: Position, result: Validation) -> None:
        """Logs scores, and draws a sample sheet and the curves so far."""
        self._log("validation", position.epoch, position.step, dict(result.scores))
        if self.enabled and result.thumbnails:
            save_png(sample_sheet(result.thumbnails), self.folder.path / _sheet_name(position.epoch))
        if self.enabled:
            save_png(curves(self.folder.rows()), self.folder.path / CURVES)

    def finish(self, preflight: str, seconds: float) -> None:
        """Writes the report.

        Args:
            preflight: Report of the validation of the data.
            seconds: Duration since the training was last started.
        """
        if not self.enabled:
            return
        sheets = sorted((self.folder.path / SAMPLES).glob("epoch_*.png"))
        rows = self.folder.rows()
        sheet = f"{SAMPLES}/{sheets[-1].name}" if sheets else None
        save_png(curves(rows), self.folder.path / CURVES)
        text = report(self.recipe, preflight, rows, sheet=sheet, seconds=seconds)
        self.folder.write_text(REPORT, text)
        if self._board is not None:
            self._board.close()

    def _log(self, kind: str, epoch: int, step: int, values: dict[str, Any]) -> None:
        if not self.enabled:
            return
        plain = {key: _number(value) for key, value in values.items()}
        self.folder.log({"kind": kind, "epoch": epoch, "step": step, **plain})
        board = self._open_board()
        if board is not None:
            for key, value in values.items():
                for name, number in value.items() if isinstance(value, dict) else ((key, value),):
                    board.add_scalar(f"{kind}/{name}", number, step)

    def _open_board(self) -> Any:
        """TensorBoard's writer, where TensorBoard is installed."""
        if self._board is None and self._has_board:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._has_board = False
            except Exception as error:  # of protobuf or NumPy, where their versions do not go together
                self._has_board = False
                logger.warning("TensorBoard is left out, for it cannot be loaded: %s", first_line(error))
            else:
                self._board = SummaryWriter(str(self.folder.path / "tensorboard"))
        return self._board


def _sheet_name(epoch: int) -> str:
    return f"{SAMPLES}/epoch_{epoch:04d}.png"


def _split(means: Mapping[str, float]) -> dict[str, Any]:
    """The loss, and its terms in a dictionary of their own."""
    return {"loss": means["loss"], "terms": {name: value for name, value in means.items() if name != "loss"}}


def _number(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
