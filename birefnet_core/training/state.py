"""The state of a training on disk: last.pt and the folder it lies in."""

from __future__ import annotations

import dataclasses
import errno
import json
import pickle
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, ConfigError
from ..files import atomic_path
from .recipe import PRACTICAL, Recipe

FORMAT = 1  # layout of last.pt


@dataclasses.dataclass
class Position:
    """How far a training has come.

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


class Folder:
    """The folder of a training's results.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    @property
    def last(self) -> Path:
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def adapter(self) -> Path:
        return self.path / "best_adapter.safetensors"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    def claim(self, *, resume: bool) -> None:
        """Makes the folder, or makes sure that nothing in it is lost.

        Raises:
            ConfigError: It holds another run, or cannot be made.
        """
        if not resume:
            there = [p.name for p in (self.last, self.best, self.adapter, self.metrics) if p.exists()]
            if there:
                raise ConfigError(
                    f"{self.path} holds another run ({', '.join(there)}). Go on with it by --resume, or choose another "
                    "folder."
                )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path}: the folder cannot be made ({error.strerror}).") from error

    def save(self, state: dict[str, Any]) -> None:
        """Writes last.pt whole or not at all.

        Raises:
            CheckpointError: It could not be written; the former one is still there.
        """
        try:
            # Given a name instead of a file, torch loses the reason why it could not write.
            with atomic_path(self.last) as part, open(part, "wb") as file:
                torch.save({"format": FORMAT, **state}, file)
        except (OSError, RuntimeError) as error:
            full = is_full_disk(error)
            reason = "the disk is full. Free some space and go on with --resume" if full else _first_line(error)
            kept = " The former one is still there." if self.last.exists() else ""
            raise CheckpointError(f"{self.last}: not written, {reason}.{kept}") from error

    def load(self, recipe: Recipe, data: str) -> dict[str, Any] | None:
        """Reads last.pt; None where there is none yet.

        Args:
            recipe: The recipe of the training that wants to go on.
            data: Fingerprint of its data.

        Raises:
            CheckpointError: Not readable.
            ConfigError: The state of another training.
        """
        if not self.last.exists():
            return None
        try:
            state = torch.load(self.last, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            reason = _first_line(error)
            raise CheckpointError(f"{self.last}: cannot be read ({reason}). Start anew from {self.best}.") from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise CheckpointError(f"{self.last}: not a state that this version writes. Start anew from {self.best}.")
        self._check_same(state, recipe, data)
        return state

    def _check_same(self, state: dict[str, Any], recipe: Recipe, data: str) -> None:
        was, now = state["recipe"], json.loads(json.dumps(recipe.to_flat()))
        other = [key for key in now if key not in PRACTICAL and was.get(key) != now[key]]
        if other:
            changes = ", ".join(f"{key}: {was.get(key)!r} then, {now[key]!r} now" for key in other[:5])
            raise ConfigError(
                f"{self.path} was trained by another recipe ({changes}). Resume with the same one, or start a new "
                f"folder with --init {self.best}."
            )
        if state["data"] != data:
            raise ConfigError(
                f"{self.path} was trained on other data. Resume with the same files, or start a new folder with --init "
                f"{self.best}."
            )

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file whole or not at all."""
        with atomic_path(self.path / name) as part:
            Path(part).write_text(text, encoding="utf-8")

    def log(self, row: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a half-written last one is passed over."""
        if not self.metrics.exists():
            return []
        rows = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    def rewind(self, position: Position | None) -> None:
        """Takes the lines out of metrics.jsonl that came after a position, as they will come again; None for all."""
        rows = [] if position is None else [row for row in self.rows() if _was_before(row, position)]
        self.write_text(self.metrics.name, "".join(json.dumps(row) + "\n" for row in rows))


def _was_before(row: dict[str, Any], position: Position) -> bool:
    """Whether a line was written before the position was saved."""
    if row["step"] != position.step:
        return row["step"] < position.step
    return row["kind"] == "step" or row["epoch"] <= position.epoch


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one it arose from, says that no space is left."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
