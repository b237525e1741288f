"""The folder of a run: last.pt, metrics.jsonl and the names of all other files."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.io import open_file
from ..checkpoints.pickled import load_pickle
from ..errors import BiRefNetError, CheckpointError, ConfigError, TrainingError
from ..files import atomic_path, locked_folder, possible, remove_part
from ..placeholders import LFS, PAGE, advice, placeholder
from ..text import enumerate_names, first_line
from .data.folders import EXAMPLES
from .position import Position
from .recipe import SCORES, Recipe, differences
from .report import is_drawn

logger = logging.getLogger(__name__)

REPORT, CURVES, SAMPLES = "report.md", "curves.png", "samples"  # a folder, with a sheet of each validation
_SHEET = re.compile(r"epoch_\d+\.png", re.IGNORECASE)
FORMAT = 1  # layout of last.pt
_HEAD = 512  # bytes that tell what is in the place of last.pt
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # Windows has no quotas of this kind
_SECONDS_TO_END = 10.0  # within which the workers of a killed training notice its end and end too
# Temporary files of trainings; the names after the first are those of version 0.1.
_PART = re.compile(
    r"\.(birefnet-.+|(last\.pt|best(_adapter)?\.safetensors|metrics\.jsonl|recipe\.toml|report\.md|scores\.json"
    r"|(curves|epoch_\d+)\.png)\.\w+)\.part"
)


class RunFolder:
    """The folder of a run.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.expanduser(path))  # Path.expanduser raises for users who are not there

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

    def prepare_output_dir(self, *, resume: bool) -> None:
        """Creates the folder, see ``check``, and removes what killed processes left in it.

        Raises:
            ConfigError: See ``check``, or the folder cannot be made.
        """
        self.check(resume=resume)
        self.make()
        for part in self.path.rglob(".*.part"):  # of a process that was killed
            if _PART.fullmatch(part.name):
                remove_part(part)

    def check(self, *, resume: bool) -> None:
        """Refuses a folder with a run, unless that is to be resumed, or with files of others that would be replaced.

        Raises:
            ConfigError: It holds another run, one that cannot be resumed, or such files.
        """
        self.check_own()
        there = [p.name for p in (self.last, self.best, self.adapter, self.metrics) if os.path.lexists(p)]
        if there and not resume:
            raise ConfigError(
                f"{self.path} holds another run ({', '.join(there)}). Go on with it by --resume, or choose another "
                "folder."
            )
        if resume and not os.path.exists(self.last):
            if self._has_results():
                raise ConfigError(
                    f"{self.path}: last.pt is missing, without which this training cannot go on. {self._start_anew()}"
                )
            logger.warning("%s holds no training to go on with: a new one begins.", self.path)

    def check_own(self) -> None:
        """Checks that what a training would replace is of one: each writes its log first, and marks what it draws.

        Raises:
            ConfigError: It is a user's own.
        """
        self._check_kinds()
        if self._is_foreign_log():
            raise ConfigError(
                f"{self.path}: {self.metrics.name} would be replaced by this training, and is the log of none. Give "
                "--out another folder, or move what is there."
            )
        if any(os.path.exists(path) for path in (self.last, self.best, self.adapter, self.metrics)):
            return
        drawn = (self.path / CURVES, self.path / EXAMPLES, *self.sheets())
        texts = [path for path in (self.recipe, self.path / REPORT) if os.path.lexists(path)]
        if own := [*texts, *(path for path in drawn if os.path.lexists(path) and not is_drawn(path))]:
            names = enumerate_names([path.relative_to(self.path).as_posix() for path in own])
            raise ConfigError(
                f"{self.path}: {names} would be replaced by this training, and came from none, as there is no "
                f"{self.metrics.name}. Give --out another folder, or move what is there."
            )

    def _check_kinds(self) -> None:
        """Checks that no folder or pipe is in the place of a file, and none but a folder in that of the sheets.

        Raises:
            ConfigError: There is, which would be told when hours of work are to be written.
        """
        files = (self.last, self.best, self.adapter, self.metrics, self.recipe)
        for path in (*files, *(self.path / name for name in (REPORT, CURVES, EXAMPLES, SAMPLES))):
            is_kind, kind = (os.path.isdir, "folder") if path.name == SAMPLES else (os.path.isfile, "file")
            if os.path.exists(path) and not is_kind(path):
                raise ConfigError(
                    f"{path} is no {kind}, which this training would write. Move it, or give --out another folder."
                )

    def _is_foreign_log(self) -> bool:
        """Whether there is a log whose whole lines are all others than trainings write, and no state of a training."""
        if os.path.exists(self.last) or not os.path.isfile(self.metrics):
            return False
        with contextlib.suppress(OSError):  # one that cannot be read is told of when it is written to
            return b"\n" in self.metrics.read_bytes() and not self.rows()
        return False

    def sheets(self) -> list[Path]:
        """The sample sheets that are there, by names which disks that ignore case do not tell from a training's."""
        try:
            names = os.listdir(self.path / SAMPLES)
        except (OSError, ValueError):  # none yet; what cannot be listed is told of when it is written to
            return []
        return [self.path / SAMPLES / name for name in sorted(names) if _SHEET.fullmatch(name)]

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """Within this, which creates the folder, no other process trains in it.

        Raises:
            ConfigError: Another one does, or the folder cannot be made.
        """
        self.make()
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked_folder(self.path, _SECONDS_TO_END))
            except BlockingIOError as error:
                raise ConfigError(
                    f"{self.path}: another process is training in this folder. Wait for its end, or give each training "
                    "an --out of its own (several GPUs: torchrun)."
                ) from error
            except OSError:  # a folder that cannot be read: writing to it says so
                pass
            yield

    def _has_results(self) -> bool:
        """Whether there are results of more than a start that was interrupted before last.pt was written.

        Where the log is gone too, a network itself says after which step it was saved.
        """
        if rows := self.rows():
            return any(row["step"] for row in rows)
        return any(os.path.exists(path) and not _is_of_step_0(path) for path in (self.best, self.adapter))

    def make(self) -> None:
        """Creates the folder.

        Raises:
            ConfigError: It cannot be made.
        """
        try:
            possible(self.path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path}: the folder cannot be made ({error.strerror}).") from error

    def save(self, state: dict[str, Any]) -> None:
        """Writes last.pt atomically.

        Raises:
            CheckpointError: It could not be written; the former one is still there.
        """
        try:
            # Given a name instead of a file, torch loses the reason why it could not write.
            with atomic_path(self.last) as part, open(part, "wb") as file:
                torch.save({"format": FORMAT, **state}, file)
        except (OSError, RuntimeError) as error:
            # torch ends its file in spite of a signal, and fails as a part is missing.
            if interrupt := next((cause for cause in _causes(error) if isinstance(cause, KeyboardInterrupt)), None):
                raise interrupt from None
            full = is_full_disk(error)
            reason = "the disk is full. Free some space and go on with --resume" if full else first_line(error)
            kept = " The former one is still there." if os.path.exists(self.last) else ""
            raise CheckpointError(f"{self.last}: not written, {reason}.{kept}") from error

    def load(self, recipe: Recipe, *data: str, backgrounds: str | None = None) -> dict[str, Any] | None:
        """Reads last.pt; None where there is none yet.

        Args:
            recipe: The recipe of the training to resume.
            data: Fingerprints that its data may have.
            backgrounds: That of its backgrounds; None not to compare it.

        Raises:
            CheckpointError: Not readable.
            ConfigError: The state of another training.
        """
        if not os.path.exists(self.last):
            return None
        try:
            with open(self.last, "rb") as file:
                kind = placeholder(file.read(_HEAD))
            if kind in (LFS, PAGE):
                raise CheckpointError(f"{self.last}: it holds {kind}: {advice(kind)}. Without it: {self._start_anew()}")
            state = load_pickle(self.last, legacy=False, advice=self._start_anew())
        except OSError as error:  # of the system: nothing is known of what the file holds
            reason = error.strerror or first_line(error)
            raise CheckpointError(
                f"{self.last}: cannot be read ({reason}). Put the file there, or see to its disk and rights, and go on "
                f"with --resume. Without it: {self._start_anew()}"
            ) from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise CheckpointError(f"{self.last}: not a state that this version reads. {self._start_anew()}")
        with self.damage_as_checkpoint_error():
            self._check_same(state, recipe, data)
            # Versions before did not store it.
            if backgrounds is not None and state.get("backgrounds", backgrounds) != backgrounds:
                raise ConfigError(f"{self.path} was trained with other --backgrounds. Resume with the same ones.")
        return state

    def score_to_beat(self, best: float | None) -> float | None:
        """The best score so far; None, with a warning, where its network was taken away or damaged."""
        if best is None:
            return None
        if not os.path.exists(self.best):
            logger.warning("%s is missing: the best network from now on takes its place.", self.best)
            return None
        try:
            open_file(self.best)
        except CheckpointError as error:
            logger.warning("%s The best network from now on takes its place.", error)
            return None
        return best

    @contextlib.contextmanager
    def damage_as_checkpoint_error(self) -> Iterator[None]:
        """Makes a state that does not fit its own recipe a CheckpointError."""
        try:
            yield
        except BiRefNetError:
            raise
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.last}: not the state of this training ({first_line(error)}). {self._start_anew()}"
            ) from error

    def _start_anew(self) -> str:
        if os.path.exists(self.best):
            return f"Start a new folder with --init {self.best}."
        return "Start a new folder."

    def _check_same(self, state: dict[str, Any], recipe: Recipe, data: Collection[str]) -> None:
        changes = differences(state["recipe"], recipe)
        if changes:
            raise ConfigError(
                f"{self.path} was trained by another recipe ({', '.join(changes[:5])}). Resume with the same one, or "
                f"start a new folder with --init {self.best}."
            )
        if state["data"] not in data:
            raise ConfigError(
                f"{self.path} was trained on other data, by the names of folders and files or by what is validated "
                f"on. Resume with the same ones, or start a new folder with --init {self.best}."
            )

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file atomically."""
        with atomic_path(self.path / name) as part:
            Path(part).write_text(text, encoding="utf-8", errors="backslashreplace")

    def log(self, row: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; an incomplete or damaged one, as after a crash, is skipped."""
        if not os.path.exists(self.metrics):
            return []
        rows = []
        for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
                if _is_row(row):
                    rows.append(row)
        return rows

    def last_scores(self) -> dict[str, float]:
        """The scores of the last validation; none before the first."""
        validations = [row for row in self.rows() if row["kind"] == "validation"]
        scores = validations[-1] if validations else {}
        return {key: math.nan if scores[key] is None else scores[key] for key in SCORES if key in scores}

    def rewind(self, position: Position | None) -> None:
        """Removes the lines of metrics.jsonl that were written after a position; None for all."""
        rows = [] if position is None else [row for row in self.rows() if _was_before(row, position)]
        self.write_text(self.metrics.name, "".join(json.dumps(row) + "\n" for row in rows))


def _is_row(row: Any) -> bool:
    """Whether a value is a line that ``RunLog`` writes."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), int) for key in ("epoch", "step")):
        return False
    if row.get("kind") == "validation":
        return all(isinstance(row.get(key, ""), (float, int, type(None))) for key in SCORES)
    return row.get("kind") in ("step", "epoch") and isinstance(row.get("terms"), dict) and "loss" in row


def _was_before(row: dict[str, Any], position: Position) -> bool:
    """Whether a line was written before the position was saved."""
    if row["step"] != position.step:
        return row["step"] < position.step
    return row["kind"] == "step" or row["epoch"] <= position.epoch


def _is_of_step_0(path: Path) -> bool:
    """Whether a file of weights says that a training saved it before its first step."""
    try:
        training = json.loads(open_file(path).metadata["training"])
        return bool(training["step"] == 0)
    except (CheckpointError, LookupError, TypeError, ValueError, RecursionError):
        return False


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, means that no space is left, or none of a quota."""
    return any(isinstance(cause, OSError) and cause.errno in _FULL for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from or while handling."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def write_errors_as_training_error(folder: RunFolder) -> Iterator[None]:
    """Makes small files that cannot be written into a run's folder a TrainingError, as it is for large ones."""
    try:
        yield
    except OSError as error:
        names = [os.path.abspath(os.fsdecode(name)) for name in (error.filename, error.filename2) if name is not None]
        inside = any(Path(os.path.abspath(folder.path)) in (Path(name), *Path(name).parents) for name in names)
        if is_full_disk(error):
            reason = "the disk is full. Free some space"
        elif inside:
            why = error.strerror or first_line(error)
            reason = f"{Path(names[-1]).name} cannot be written ({why}). Make way for it"
        else:
            raise
        kept = " and ".join(path.name for path in (folder.last, folder.best) if os.path.exists(path))
        more = f" and go on with --resume; as they were last saved: {kept}." if kept else "."
        raise TrainingError(f"{folder.path}: {reason}{more}") from error
