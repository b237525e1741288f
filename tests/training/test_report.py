"""Sample sheets, progress bar, TensorBoard."""

import errno
import io
import os
import sys
from types import ModuleType

import pytest
import torch

from birefnet_core.cli.train_progress import ProgressBar, clock_time
from birefnet_core.masks import LEGEND
from birefnet_core.training import TrainingData, train
from birefnet_core.training.report import sample_sheet
from birefnet_core.training.run_folder import Position, RunFolder
from birefnet_core.training.run_log import RunLog
from birefnet_core.training.validation import THUMBNAIL, Thumbnail


def thumbnail() -> Thumbnail:
    """Columns: found, missed, false; the rows below are background."""
    mask, prediction = torch.zeros(2, THUMBNAIL, 3)
    mask[0], prediction[0] = torch.tensor([1.0, 1, 0]), torch.tensor([1.0, 0, 1])
    return Thumbnail(name="set/Ä", image=torch.full((THUMBNAIL, 3, 3), 0.4), mask=mask, prediction=prediction)


def test_sample_sheet_shows_errors_in_the_colours_of_the_whole_package():
    sheet = sample_sheet([thumbnail()])
    left, top = sheet.width - THUMBNAIL - 6, 18 + 18  # of the last column: gaps, and two lines of text
    pixels = [sheet.getpixel((left + column, top)) for column in range(3)]
    expected = (LEGEND[name] for name in ("true positive", "false negative", "false positive"))
    assert pixels == [tuple(round(255 * value) for value in colour) for colour in expected]
    assert sheet.getpixel((left, top + 1)) == (0, 0, 0)


def test_sample_sheet_has_a_row_for_each_sample():
    one, three = (sample_sheet([thumbnail()] * count) for count in (1, 3))
    assert one.width == three.width >= 4 * THUMBNAIL
    assert three.height - one.height > 2 * THUMBNAIL


def test_progress_bar_shows_terms_best_score_and_remaining_time(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = ProgressBar(quiet=False)
    step_values = {"epoch": 2, "steps": 8, "lr": 1e-3, "best": 0.75, "loss": 3.5, "bce": 3.25}
    for step in (5, 6):
        bar({**step_values, "step": step})
    text = str(bar.bar)
    bar.bar.close()
    assert "epoch 2" in text
    assert "6/8" in text
    assert all(part in text for part in ("loss=3.5", "bce=3.25", "best=0.7500"))
    assert "<" in text  # elapsed<remaining


def test_progress_in_a_file_is_lines_with_time_step_loss_and_time_left(capsys):
    now = [100.0]
    bar = ProgressBar(quiet=False, clock=lambda: now[0])
    assert not bar.is_terminal
    for step in range(1, 41):
        now[0] += 10.0
        best = None if step < 20 else 0.75
        bar({"epoch": 1 + step // 20, "step": step, "steps": 40, "lr": 1e-3, "best": best, "loss": 4.5})
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "10 s a step: about 6:10 for the 37 steps left, besides validations"
    assert len(lines) == 14  # one each thirty seconds, and the last
    assert lines[0].endswith("epoch 1, step 3 of 40, loss 4.5, 6:10 left")
    assert lines[-1].endswith("epoch 3, step 40 of 40, loss 4.5, best 0.7500, 0:00 left")


@pytest.mark.parametrize("stream", ["gone", "none", "full"])
def test_a_training_goes_on_where_its_progress_cannot_be_shown(monkeypatch, stream):
    reading, writing = os.pipe()
    os.close(reading)
    full = "/dev/full" if os.path.exists("/dev/full") else os.devnull
    with open(writing, "w") as lost, open(full, "w") as disk:
        monkeypatch.setattr(sys, "stderr", {"gone": lost, "none": None, "full": disk}[stream])
        bar = ProgressBar(quiet=False)
        for step in range(1, 9):
            bar({"epoch": 1, "step": step, "steps": 8, "lr": 1e-3, "best": None, "loss": 4.5})


def test_quiet_progress_says_nothing(capsys):
    bar = ProgressBar(quiet=True)
    for step in range(1, 9):
        bar({"epoch": 1, "step": step, "steps": 8, "lr": 1e-3, "best": None, "loss": 4.5})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_a_training_whose_terminal_has_gone_goes_on(monkeypatch, terminal):
    class Gone(io.StringIO):
        def isatty(self):
            return terminal

        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    now = [0.0]
    bar = ProgressBar(quiet=False, clock=lambda: now[0])
    for step in range(1, 6):
        now[0] += 40.0
        bar({"epoch": 1, "step": step, "steps": 5, "lr": 1e-3, "best": None, "loss": 4.5})
    assert now[0] == 200


def test_a_resumed_training_tells_the_speed_of_its_own_steps(capsys):
    now = [0.0]
    bar = ProgressBar(quiet=False, clock=lambda: now[0])
    for step in range(500, 504):
        now[0] += 2.0
        bar({"epoch": 5, "step": step, "steps": 1000, "lr": 1e-3, "best": 0.5, "loss": 4.5})
    assert capsys.readouterr().err.splitlines()[0].startswith("2 s a step: about 16:36 for the 498 steps left")


def test_times_are_hours_minutes_and_seconds():
    expected = {0: "0:00", 59.6: "1:00", 75: "1:15", 3600: "1:00:00", 90061: "25:01:01"}
    assert {seconds: clock_time(seconds) for seconds in expected} == expected


def test_tensorboard_gets_what_the_log_gets_where_it_is_installed(shapes, tiny_recipe, tmp_path, monkeypatch):
    rows: list[tuple] = []

    class SummaryWriter:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, name, value, step):
            rows.append((name, step))

        def close(self):
            rows.append(("closed", None))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, module.__name__, module)
    train(tiny_recipe(epochs=1), TrainingData(sets=(shapes,)), tmp_path, device="cpu")
    assert {("step/loss", 1), ("step/bce", 3), ("epoch/loss", 3), ("validation/Sm", 3), ("closed", None)} <= set(rows)


def test_a_tensorboard_that_does_not_load_is_left_out(tmp_path, tiny_recipe, monkeypatch, caplog):
    """As one for another version of protobuf, which is no ImportError."""

    class Broken(ModuleType):
        def __getattr__(self, name):
            raise TypeError("Descriptors cannot be created directly.")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", Broken("torch.utils.tensorboard"))
    log = RunLog(RunFolder(tmp_path), tiny_recipe(), enabled=True)
    for step in (1, 2):
        log.step(Position(step=step), {"loss": 1.0}, lr=1e-4, seconds=1.0)
    assert [row["step"] for row in RunFolder(tmp_path).rows()] == [1, 2]
    assert caplog.text.count("TensorBoard is left out, for it cannot be loaded: Descriptors cannot") == 1
