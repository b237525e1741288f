"""Processes that read data, and their end."""

import errno
import gc
import multiprocessing
import os

import pytest

import birefnet_core as bc
from birefnet_core.training import TrainingData, train
from birefnet_core.training.data.dataset import _print_unless_disconnected, _read_from_workers

from .conftest import read_state


def test_a_worker_that_is_killed_ends_the_training_in_a_sentence(shapes, tiny_recipe, tmp_path):
    def kill(values):
        if values["step"] == 4:  # the first of the second epoch, whose worker waits to be asked for more
            multiprocessing.active_children()[0].kill()

    recipe = tiny_recipe(workers=1, epochs=9, val_fraction=0)
    with pytest.raises(bc.TrainingError, match=r"a process that reads data was killed .*--resume, with --workers 0"):
        train(recipe, TrainingData(sets=(shapes,)), tmp_path, device="cpu", progress=kill)
    assert read_state(tmp_path)["position"]["step"] == 4


@pytest.mark.skipif(os.name == "nt", reason="no groups of processes")
def test_signals_to_the_group_of_a_training_leave_its_workers_alone(shapes, tiny_recipe, tmp_path):
    """As of torchrun, which passes SIGTERM on to the groups of its processes."""
    groups, others = set(), {*multiprocessing.active_children()}

    def look(values):
        groups.update(os.getpgid(process.pid) for process in {*multiprocessing.active_children()} - others)

    recipe = tiny_recipe(workers=2, epochs=1, batch_size=3, val_fraction=0)
    train(recipe, TrainingData(sets=(shapes,)), tmp_path, device="cpu", progress=look)
    assert len(groups) == 2 and os.getpgid(0) not in groups
    assert not {*multiprocessing.active_children()} - others


@pytest.mark.parametrize("where", ["start", "read"])
def test_limits_of_the_system_are_told_in_a_sentence(tiny_recipe, where):
    class Batches:
        def __iter__(self):
            if where == "start":  # of a process
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            return self

        def __next__(self):
            raise RuntimeError("Too many open files. Communication with the workers is no longer possible. Please")

    found = "Resource temporarily unavailable" if where == "start" else r"\(Too many open files\)"
    with pytest.raises(bc.TrainingError, match=rf"^8 processes .* more than .*{found}.*--resume and --workers 4"):
        next(_read_from_workers(Batches(), tiny_recipe(workers=8)))


def test_workers_end_quietly_where_another_cannot_be_started(shapes, tiny_recipe, tmp_path, monkeypatch, capsys):
    start, others, started = multiprocessing.process.BaseProcess.start, {*multiprocessing.active_children()}, []

    def start_one(process):
        if started:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(process)
        start(process)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", start_one)
    with pytest.raises(bc.TrainingError, match="2 processes that read data are more"):
        train(tiny_recipe(workers=2), TrainingData(sets=(shapes,)), tmp_path, device="cpu")
    gc.collect()
    assert started and not {*multiprocessing.active_children()} - others
    assert "Traceback" not in capsys.readouterr().err


def test_ending_the_workers_beside_a_dead_one_is_no_error_of_its_own(tiny_recipe):
    class Batches:
        ended = 0

        def __iter__(self):
            return self

        def __next__(self):
            raise ConnectionResetError("[Errno 104] Connection reset by peer")

        def _shutdown_workers(self):  # into which the handler of SIGCHLD may raise
            self.ended += 1
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    batches = Batches()
    with pytest.raises(bc.TrainingError, match=r"was killed \(\[Errno 104\] Connection reset by peer\)"):
        next(_read_from_workers(batches, tiny_recipe(workers=2)))
    assert batches.ended == 1


def test_a_worker_whose_training_has_ended_prints_no_traceback(capsys):
    for error in (ConnectionResetError("reset by peer"), ValueError("a fault")):
        _print_unless_disconnected(type(error), error, None)
    assert capsys.readouterr().err.strip() == "ValueError: a fault"
