"""Errors in the middle of a training: what was done is saved, and the training goes on as if there had been none."""

import json
import os
import shutil
import signal

import pytest
import torch

import birefnet_core as bc
from birefnet_core.training import TrainingData, loop, train
from birefnet_core.training.data.dataset import SegmentationDataset, seed_of
from birefnet_core.training.run_folder import RunFolder

from .conftest import assert_same, read_state, write_shapes

# Two batches to a step, three steps in an epoch, the last one of a single batch: ten pairs to train on, three held out.
RECIPE = {"accumulate": 2, "ema": 0.9, "augment.colour": 0.5, "clip": 1.0, "val_fraction": 0.25}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("pairs") / "set", 13)


@pytest.fixture
def folder(pairs, tmp_path):
    return shutil.copytree(pairs, tmp_path / "set")


@pytest.fixture(scope="module")
def whole_run(pairs, tmp_path_factory):
    """Trains by a recipe without an error, once; gives the folder."""
    made = {}

    def get(recipe):
        name = recipe.to_toml()
        if name not in made:
            made[name] = tmp_path_factory.mktemp("whole")
            train(recipe, TrainingData(sets=(pairs,)), made[name], device="cpu")
        return made[name]

    return get


@pytest.fixture
def compare_resumed(tmp_path, whole_run):
    """Resumes a training, without workers, and compares it with one that had neither them nor an error."""

    def compare(recipe, folder, step):
        recipe = recipe.replace(workers=0)
        data, parts, whole = TrainingData(sets=(folder,)), tmp_path / "parts", whole_run(recipe)
        assert read_state(parts)["position"]["step"] == step
        assert train(recipe, data, parts, device="cpu", resume=True).finished
        best = (parts / "best.safetensors").read_bytes()
        assert (whole / "best.safetensors").read_bytes() == best.replace(rb"\"workers\": 1", rb"\"workers\": 0")
        assert_same(read_state(parts), read_state(whole))
        logs = [[json.loads(line) for line in RunFolder(path).metrics.open()] for path in (whole, parts)]
        assert logs[0] == [{**row, **({"seconds": logs[0][i]["seconds"]} if "seconds" in row else {})}
                           for i, row in enumerate(logs[1])]  # fmt: skip

    return compare


@pytest.mark.parametrize(
    ("lost", "step", "workers"),
    [pytest.param("im", 2, 0, marks=pytest.mark.slow), pytest.param("gt", 2, 0, marks=pytest.mark.slow),
     ("", 4, 1), pytest.param("", 5, 1, marks=pytest.mark.slow),
     ("im", 3, 0), pytest.param("", 6, 0, marks=pytest.mark.slow)],
)  # fmt: skip
def test_data_that_vanish_lose_no_step(folder, tiny_recipe, tmp_path, caplog, compare_resumed, lost, step, workers):
    """Steps 3 and 6 are the last ones of an epoch, after which the held-out pairs are read."""
    recipe, away = tiny_recipe(workers=workers).replace(**RECIPE), tmp_path / "away"

    def unmount(values):
        if values["step"] == step:
            (folder / lost).rename(away)

    with pytest.raises(bc.DatasetError, match=r"shape\d\d\.png"):
        train(recipe, TrainingData(sets=(folder,)), tmp_path / "parts", device="cpu", progress=unmount)
    away.rename(folder / lost)
    saved = read_state(tmp_path / "parts")["position"]["step"]
    assert step <= saved <= step + workers * 2  # what a worker has read ahead is trained on
    assert f"The state after step {saved} is saved; --resume goes on from there." in caplog.text
    compare_resumed(recipe, folder, saved)


@pytest.mark.parametrize("at", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_signal_during_a_validation_stops_it(pairs, tiny_recipe, tmp_path, monkeypatch, compare_resumed, at):
    """A validation may take longer than what is left before the process is killed. Resuming begins with it."""
    recipe, read = tiny_recipe().replace(**RECIPE), SegmentationDataset.read
    validated = []

    def read_and_stop(dataset, index, rng):
        if rng.generator.initial_seed() == seed_of("validation", dataset.pairs[index].name):
            validated.append(index)
            if len(validated) == at:
                os.kill(os.getpid(), signal.SIGTERM)
        return read(dataset, index, rng)

    monkeypatch.setattr(SegmentationDataset, "read", read_and_stop)
    data = TrainingData(sets=(pairs,))
    result = train(recipe, data, tmp_path / "parts", device="cpu")
    monkeypatch.undo()
    # The last image is not waited for in vain.
    assert (result.signal, result.steps, len(validated)) == (signal.SIGTERM, 3 if at < 3 else 4, at)
    compare_resumed(recipe, pairs, result.steps)


class Failing:
    """Batches of which one cannot be read, as a generator."""

    def __init__(self, batches, number):
        self.batches, self.number, self.close = batches, number, batches.close

    def __next__(self):
        self.number -= 1
        if self.number < 0:
            raise OSError("Stale file handle")
        return next(self.batches)


@pytest.mark.parametrize("ema", [0.9, pytest.param(0.0, marks=pytest.mark.slow)])
def test_a_step_that_is_half_done_is_none(pairs, tiny_recipe, tmp_path, monkeypatch, compare_resumed, ema):
    """Its first batch has changed the statistics of BatchNorm already."""
    recipe = tiny_recipe().replace(**RECIPE).replace(ema=ema)
    load = loop.load_batches
    monkeypatch.setattr(loop, "load_batches", lambda *args: Failing(load(*args), 3))
    with pytest.raises(OSError, match="Stale file handle"):
        train(recipe, TrainingData(sets=(pairs,)), tmp_path / "parts", device="cpu")
    monkeypatch.undo()
    assert read_state(tmp_path / "parts")["position"]["batch"] == 2
    compare_resumed(recipe, pairs, 1)


@pytest.mark.parametrize("where", ["optimizer", "progress", "save"])
def test_only_a_sound_state_is_saved(pairs, tiny_recipe, tmp_path, monkeypatch, caplog, where):
    def fail(*_, **__):
        raise ValueError(where)

    def spoil(values):
        if values["step"] == 1:
            if where == "optimizer":
                monkeypatch.setattr(torch.optim.AdamW, "step", fail)
            if where == "save":
                monkeypatch.setattr(RunFolder, "save", fail)
            if where != "optimizer":
                raise KeyError("of the caller")

    recipe = tiny_recipe(ema=0.9)
    with pytest.raises(ValueError if where == "optimizer" else KeyError):
        train(recipe, TrainingData(sets=(pairs,)), tmp_path, device="cpu", progress=spoil)
    saved = read_state(tmp_path)["position"]["step"]
    assert saved == (1 if where == "progress" else 0)
    assert ("The state after step 1 could not be saved: save" in caplog.text) == (where == "save")
    assert ("is saved" in caplog.text) == (where == "progress")


def test_weights_that_are_not_finite_are_not_saved_after_an_error_either(pairs, tiny_recipe, tmp_path, caplog):
    def spoil(values):
        if values["step"] == 1:
            with torch.no_grad():
                next(trainer.state.model.parameters())[0] = torch.inf
            raise KeyError("of the caller")

    recipe = tiny_recipe(ema=0.9)
    datasets = loop.load_datasets(recipe, TrainingData(sets=(pairs,)), loop.Ranks())
    trainer = loop.Trainer(recipe, datasets, RunFolder(tmp_path), loop.Ranks(), spoil)
    trainer.start(resume=False)
    with pytest.raises(KeyError):
        trainer.run(loop.StopSignal())
    assert read_state(tmp_path)["position"]["step"] == 0
    assert "could not be saved: the weights are not finite after step 1" in caplog.text


def test_a_loss_that_is_not_finite_leaves_the_earlier_state(pairs, tiny_recipe, tmp_path, caplog):
    def spoil(values):
        if values["step"] == 1:
            with torch.no_grad():
                next(trainer.state.model.parameters())[0] = torch.nan

    recipe = tiny_recipe(ema=0.9)
    datasets = loop.load_datasets(recipe, TrainingData(sets=(pairs,)), loop.Ranks())
    trainer = loop.Trainer(recipe, datasets, RunFolder(tmp_path), loop.Ranks(), spoil)
    trainer.start(resume=False)
    with pytest.raises(bc.TrainingError, match="loss is not finite in epoch 1, step 2"):
        trainer.run(loop.StopSignal())
    assert read_state(tmp_path)["position"]["step"] == 0
    assert "saved" not in caplog.text
