"""Trainings that go on."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

import birefnet_core as bc
from birefnet_core.training import Recipe, TrainingData, run_folder, train
from birefnet_core.training.run_folder import RunFolder

from .conftest import TINY, read_state


@pytest.mark.parametrize("part", [pytest.param("all", marks=pytest.mark.slow), "lora"])
def test_resuming_does_not_need_the_checkpoint_that_the_training_began_with(
    tiny_checkpoint, tiny_recipe, shapes, tmp_path, part
):
    init, data = tmp_path / "init.safetensors", TrainingData(sets=(shapes,))
    shutil.copy(tiny_checkpoint, init)
    recipe = tiny_recipe(init=str(init), train=part, epochs=1, batch_size=3, val_fraction=0)

    def stop(_):
        raise ValueError

    assert train(recipe, data, tmp_path / "whole", device="cpu").steps == 2
    with pytest.raises(ValueError):
        train(recipe, data, tmp_path / "parts", device="cpu", progress=stop)
    init.unlink()
    assert train(recipe, data, tmp_path / "parts", device="cpu", resume=True).steps == 2
    whole, parts = (tmp_path / name / "best.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    with pytest.raises(bc.CheckpointError, match=r"init\.safetensors"):
        train(recipe, data, tmp_path / "new", device="cpu", resume=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of folders")
def test_two_processes_do_not_train_in_one_folder(shapes, tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_SECONDS_TO_END", 0.2)
    code = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(bc.ConfigError, match="another process is training in this folder"):
            train(tiny_recipe(), TrainingData(sets=(shapes,)), tmp_path, device="cpu", resume=True)
        other.kill()
    with RunFolder(tmp_path).reserved():
        assert list(tmp_path.iterdir()) == []


BEST = Recipe(backbone="pvt_v2_b0", network=TINY, size=(64, 64), epochs=2, batch_size=5, workers=0, sheet=0, best="Sm")


@pytest.fixture(scope="module")
def half_done(shapes, tmp_path_factory):
    """The folder of a training that stopped before its last validation, and whose best score is too good."""
    folder = tmp_path_factory.mktemp("half")

    def stop(values):
        if values["step"] == 2:
            raise ValueError

    with pytest.raises(ValueError):
        train(BEST, TrainingData(sets=(shapes,)), folder, device="cpu", progress=stop)
    state = read_state(folder)
    state["position"]["best"] = 1.0  # which no network is better than
    torch.save(state, folder / "last.pt")
    return folder


@pytest.mark.parametrize("missing", [True, False])
def test_a_best_network_that_was_moved_away_is_saved_anew(half_done, shapes, tmp_path, caplog, missing):
    shutil.copytree(half_done, tmp_path, dirs_exist_ok=True)
    recipe, data, best = BEST, TrainingData(sets=(shapes,)), tmp_path / "best.safetensors"
    if missing:
        best.unlink()
    before = None if missing else best.read_bytes()
    result = train(recipe, data, tmp_path, device="cpu", resume=True)
    assert (best.read_bytes() != before) == ("best.safetensors is missing: the best" in caplog.text) == missing
    assert result.best == (result.scores["Sm"] if missing else 1.0)


@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_best_network_that_was_damaged_is_saved_anew(half_done, shapes, tmp_path, caplog, kept):
    """Its score is that of a network that is gone; kept, it would leave the training without a best one."""
    shutil.copytree(half_done, tmp_path, dirs_exist_ok=True)
    best = tmp_path / "best.safetensors"
    os.truncate(best, int(kept * best.stat().st_size))
    result = train(BEST, TrainingData(sets=(shapes,)), tmp_path, device="cpu", resume=True)
    (told,) = [message for message in caplog.messages if "The best network from now on takes its place." in message]
    assert told.startswith(f"{best}: ")
    assert result.best == result.scores["Sm"]
    assert bc.load_model(best).checkpoint.training_size == (64, 64)


@pytest.mark.parametrize("resume", [True, False])
def test_resuming_where_no_training_is_says_that_a_new_one_begins(shapes, tiny_recipe, tmp_path, caplog, resume):
    """The folder's name may be mistyped; scripts that always resume begin so, too."""
    recipe, data = tiny_recipe(epochs=1, batch_size=6, val_fraction=0), TrainingData(sets=(shapes,))
    told = f"{tmp_path / 'run'} holds no training to go on with: a new one begins."
    train(recipe, data, tmp_path / "run", device="cpu", resume=resume)
    assert (told in caplog.messages) == resume
    caplog.clear()
    train(recipe, data, tmp_path / "run", device="cpu", resume=True)
    assert told not in caplog.messages
