"""What a training shows: sample sheets, progress bar, TensorBoard."""

import sys
from types import ModuleType

import torch

from birefnet_core.cli.train import Bar
from birefnet_core.training import TrainingData, train
from birefnet_core.training.report import error_map, sample_sheet
from birefnet_core.training.validation import THUMBNAIL, Thumbnail


def thumbnail() -> Thumbnail:
    """Left: found; middle: missed; right: invented; a dark line below."""
    mask, prediction = torch.zeros(2, THUMBNAIL, 3, dtype=torch.uint8)
    mask[0], prediction[0] = torch.tensor([255, 255, 0]), torch.tensor([255, 0, 255])
    colours = torch.full((THUMBNAIL, 3, 3), 90, dtype=torch.uint8)
    return Thumbnail(name="set/Ä", image=colours, mask=mask, prediction=prediction)


def test_error_map_is_white_where_right_red_where_missed_blue_where_invented():
    found, missed, invented = error_map(thumbnail())[0].tolist()
    assert found == [255, 255, 255]
    assert missed[0] > 2 * missed[2]
    assert invented[2] > 2 * invented[0]


def test_sample_sheet_has_a_line_for_each_sample():
    one, three = (sample_sheet([thumbnail()] * count) for count in (1, 3))
    assert one.width == three.width >= 4 * THUMBNAIL
    assert three.height - one.height > 2 * THUMBNAIL


def test_progress_bar_tells_terms_best_score_and_remaining_steps(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = Bar(quiet=False)
    news = {"epoch": 2, "steps": 8, "lr": 1e-3, "best": 0.75, "loss": 3.5, "bce": 3.25}
    for step in (5, 6):
        bar({**news, "step": step})
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
