"""The network in a training's last.pt."""

import pytest
import torch

from birefnet_core.checkpoints.io import read_file

MODEL = {"localization.a": torch.zeros(2), "localization.b": torch.zeros(2)}
AVERAGE = {"localization.b": torch.ones(2)}  # of what is trained
STATE = {"format": 1, "recipe": {"size": [96, 64]}, "position": {}, "optimizer": {}, "scaler": {}}


@pytest.mark.parametrize(
    ("ema", "expected"),
    [
        ({"steps": 3, "state": AVERAGE}, MODEL | AVERAGE),
        (None, MODEL),
        ({"steps": 3, "state": {"another": torch.ones(2)}}, MODEL),
        ({"steps": 3}, MODEL),
    ],
)
def test_the_moving_average_is_taken_where_there_is_one(tmp_path, caplog, ema, expected):
    torch.save({**STATE, "model": MODEL, "ema": ema}, tmp_path / "last.pt")
    file = read_file(tmp_path / "last.pt")
    assert {name: value.tolist() for name, value in file.tensors.items()} == {
        n: v.tolist() for n, v in expected.items()
    }
    assert ("moving average" in caplog.text) == (expected is not MODEL)
    assert file.metadata["training_size"] == "96x64"  # which version 0.1 stored in the recipe alone


@pytest.mark.parametrize("change", [{"recipe": None}, {"recipe": {"size": "large"}}, {"network": {"training_size": 3}}])
def test_a_state_that_says_nothing_of_its_size_has_weights_all_the_same(tmp_path, change):
    torch.save({**STATE, "recipe": {}, "model": MODEL, "ema": None, **change}, tmp_path / "last.pt")
    file = read_file(tmp_path / "last.pt")
    assert file.tensors.keys() == MODEL.keys() and not file.metadata
