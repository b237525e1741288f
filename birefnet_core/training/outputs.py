"""What a training writes besides its weights: metrics.jsonl, pictures, TensorBoard, the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .prepare import Prepared
from .recipe import Recipe
from .report import curves, report, sample_sheet, save_png
from .state import Folder, Position
from .validation import Validation


class Writer:
    """Writes the results of a training into its folder.

    Args:
        folder: The folder.
        recipe: Of the training.
        prepared: Its data.
        enabled: False in all processes but the first, which then write nothing.
    """

    def __init__(self, folder: Folder, recipe: Recipe, prepared: Prepared, *, enabled: bool) -> None:
        self.folder, self.recipe, self.prepared, self.enabled = folder, recipe, prepared, enabled
        self._board: Any = None
        self._has_board = enabled

    def step(self, position: Position, means: Mapping[str, float], lr: float, seconds: float) -> None:
        """A step."""
        self._log("step", position.epoch + 1, position.step, {"lr": lr, **_split(means), "seconds": round(seconds, 3)})

    def epoch(self, position: Position, means: Mapping[str, float]) -> None:
        """An epoch that is done."""
        self._log("epoch", position.epoch, position.step, _split(means))

    def validation(self, position: Position, result: Validation) -> None:
        """Scores, a sample sheet, and the curves so far."""
        self._log("validation", position.epoch, position.step, dict(result.scores))
        if self.enabled and result.thumbnails:
            save_png(sample_sheet(result.thumbnails), self.folder.path / _sheet_name(position.epoch))
        if self.enabled:
            save_png(curves(self.folder.rows()), self.folder.path / "curves.png")

    def finish(self, seconds: float) -> None:
        """The report."""
        if not self.enabled:
            return
        sheets = sorted((self.folder.path / "samples").glob("epoch_*.png"))
        rows = self.folder.rows()
        sheet = f"samples/{sheets[-1].name}" if sheets else None
        save_png(curves(rows), self.folder.path / "curves.png")
        text = report(self.recipe, self.prepared.text, rows, sheet=sheet, seconds=seconds)
        self.folder.write_text("report.md", text)
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
        """TensorBoard's writer where it is installed."""
        if self._board is None and self._has_board:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._has_board = False
            else:
                self._board = SummaryWriter(str(self.folder.path / "tensorboard"))
        return self._board


def _sheet_name(epoch: int) -> str:
    return f"samples/epoch_{epoch:04d}.png"


def _split(means: Mapping[str, float]) -> dict[str, Any]:
    """The loss, and its terms in a table of their own."""
    return {"loss": means["loss"], "terms": {name: value for name, value in means.items() if name != "loss"}}


def _number(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
