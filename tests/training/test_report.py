"""Sample sheets, progress bar, TensorBoard."""

import sys
from types import ModuleType

import torch

from birefnet_core.cli.train import ProgressBar
from birefnet_core.masks import LEGEND
from birefnet_core.training import TrainingData, train
from birefnet_core.training.report import sample_sheet
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
