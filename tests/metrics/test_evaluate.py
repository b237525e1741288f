import math
import multiprocessing
import os
import shutil
import signal
import sys
import types
import warnings
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

import birefnet_core as bc
import birefnet_core.metrics.evaluate as evaluation
from birefnet_core.errors import ConfigError, DatasetError
from birefnet_core.metrics import (
    KEYS,
    FMeasure,
    IncompleteEvaluation,
    Protocol,
    SetResult,
    evaluate_set,
    mean_of_sets,
)
from birefnet_core.metrics.protocol import measure_files

ELSEWHERE = """
from birefnet_core.metrics import FMeasure
from birefnet_core.metrics.protocol import measure_files
def accumulate(stems, folders):
    metric = FMeasure()
    for stem in stems:
        files = [f"{folder}/{stem}.png" for folder in folders]
        metric.add(measure_files(stem, *files, [metric]).measurements["F:v1"])
    return metric
"""
RECORDED_NAMES = {"BIoU": "maxBIoU", "mBA": "MBA"}


def tree(folder):
    """Everything below a folder: names, contents, times."""
    return {path: (path.is_file() and path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.filterwarnings("ignore")
def test_evaluate_equals_the_recorded_set(recorded, recorded_folders):
    scores = bc.evaluate(*recorded_folders)
    assert tuple(scores) == KEYS
    assert all(type(score) is float for score in scores.values())
    expected = {key: recorded["set"]["official"][RECORDED_NAMES.get(key, key)] for key in KEYS}
    expected["mBA"] = recorded["set"]["official_MBA_over_finite_pairs"]
    assert scores == pytest.approx(expected, abs=1e-9)


def test_scores_of_images_equal_the_recorded_pairs(recorded, recorded_folders):
    images = evaluate_set(*recorded_folders).images
    assert set(images) == set(recorded["pairs"])
    for stem, scores in images.items():
        official = recorded["pairs"][stem]["official"]
        expected = {key: official[RECORDED_NAMES.get(key, key)] for key in KEYS}
        assert scores == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", ["gt", "labels"])
def test_nothing_is_written_beside_the_data_set(tmp_path, recorded, recorded_folders, name):
    for source, target in zip(recorded_folders, ("pred", name), strict=True):
        shutil.copytree(source, tmp_path / "data" / target)
    before = tree(tmp_path)
    result = evaluate_set(tmp_path / "data" / "pred", tmp_path / "data" / name)
    assert tree(tmp_path) == before
    assert result.scores["HCE"] == recorded["set"]["official"]["HCE"]  # whatever the folder is called


def test_processes_give_what_one_process_gives(folders):
    whole = evaluate_set(*folders)
    shared = evaluate_set(*folders, workers=2)
    np.testing.assert_equal(shared.images, whole.images)  # to the last bit, and NaN equals NaN
    np.testing.assert_equal(shared.scores, whole.scores)  # pairs are counted in order


def test_accumulators_of_other_processes_merge(folders, tmp_path, monkeypatch):
    """The state of a metric comes back from a process that has seen other pairs."""
    here = FMeasure()
    for stem in "01":
        here.add(measure_files(stem, *(folder / f"{stem}.png" for folder in folders), [here]).measurements["F:v1"])
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    monkeypatch.syspath_prepend(tmp_path)
    elsewhere = types.ModuleType("elsewhere")
    exec(ELSEWHERE, vars(elsewhere))
    monkeypatch.setitem(sys.modules, "elsewhere", elsewhere)
    with evaluation._pool(1) as pool:  # shares what has been imported for other tests' processes
        assert pool.submit(os.getpid).result() != os.getpid()
        here.merge(pool.submit(elsewhere.accumulate, "234", folders).result())
    whole = evaluate_set(*folders).scores
    assert here.compute() == pytest.approx({key: whole[key] for key in ("maxF", "meanF", "adpF")}, abs=1e-12)


def test_the_cache_saves_measuring_again(folders, tmp_path, monkeypatch):
    first = evaluate_set(*folders, cache=tmp_path / "cache")
    monkeypatch.setattr(evaluation, "measure_files", None)
    np.testing.assert_equal(evaluate_set(*folders, cache=tmp_path / "cache").images, first.images)


def test_the_cache_resumes_and_sees_changes(folders, tmp_path, save, monkeypatch):
    measured = []
    stop_after = 2

    def watch(stem, *arguments):
        if len(measured) == stop_after:
            raise KeyboardInterrupt
        measured.append(stem)
        return measure_files(stem, *arguments)

    monkeypatch.setattr(evaluation, "measure_files", watch)
    with pytest.raises(KeyboardInterrupt):
        evaluate_set(*folders, cache=tmp_path / "cache")
    stop_after = None
    evaluate_set(*folders, cache=tmp_path / "cache")
    assert sorted(measured) == ["0", "1", "2", "3", "4"]  # each once
    save(folders[0] / "3.png", np.zeros((40, 50), np.uint8))
    evaluate_set(*folders, cache=tmp_path / "cache")
    assert measured[5:] == ["3"]


def test_the_cache_knows_metrics_apart(folders, tmp_path):
    evaluate_set(*folders, cache=tmp_path / "cache")
    relaxed = bc.evaluate(*folders, metrics=["HCE"], hce_relax=0, cache=tmp_path / "cache")
    assert relaxed == bc.evaluate(*folders, metrics=["HCE"], hce_relax=0)


def test_chosen_metrics_only(folders):
    assert tuple(bc.evaluate(*folders, metrics=["MAE", "Sm"])) == ("Sm", "MAE")


def test_missing_predictions_stop_unless_allowed(folders):
    (folders[0] / "2.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 5 ground truths have no prediction: 2\."):
        bc.evaluate(*folders)
    with pytest.warns(UserWarning, match="not scored: 2"):
        bc.evaluate(*folders, allow_missing=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_unreadable_files_leave_the_other_results(folders, workers):
    (folders[0] / "1.png").write_bytes(b"broken")
    with pytest.raises(IncompleteEvaluation, match=r"1 of 5 pairs .*1\.png") as caught:
        bc.evaluate(*folders, workers=workers)
    result = caught.value.result
    assert set(result.images) == {"0", "2", "3", "4"}
    assert set(result.failures) == {"1"}
    with pytest.warns(UserWarning, match="1 left out"):
        np.testing.assert_equal(bc.evaluate(*folders, workers=workers, allow_missing=True), result.scores)


def test_unreadable_files_with_a_cache(folders, tmp_path):
    (folders[1] / "4.png").write_bytes(b"")
    with pytest.raises(IncompleteEvaluation, match=r"4\.png"):
        bc.evaluate(*folders, cache=tmp_path / "cache")


def test_nothing_readable_is_an_error_even_if_allowed(folders):
    for path in folders[0].iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(IncompleteEvaluation, match="5 of 5"):
        bc.evaluate(*folders, allow_missing=True)


def test_odd_pairs_are_warned_about_once_per_kind(folders, save):
    for stem in "03":
        save(folders[0] / f"{stem}.png", np.zeros((40, 50, 3), np.uint8))
    save(folders[1] / "1.png", np.zeros((40, 80), np.uint8))
    with pytest.warns(UserWarning) as caught:
        bc.evaluate(*folders, metrics=["MAE"])
    messages = sorted(str(warning.message) for warning in caught)
    assert [message.split(",")[0] for message in messages] == [
        "truth: empty ground truth (F-measures and BIoU count as 0",
        "truth: prediction in colour",
        "truth: prediction of another aspect ratio than its ground truth",
    ]
    assert "in 2 pairs: 0, 3." in messages[1]


def test_a_prediction_of_bytes_in_16_bits_is_warned_about(folders, save):
    save(folders[0] / "2.png", np.full((40, 50), 255, np.uint16))
    with pytest.warns(UserWarning, match="16 bits with values below 256: black in the high byte.*: 2"):
        bc.evaluate(*folders, metrics=["MAE"])


@pytest.mark.parametrize(("value", "warned"), [(1, True), (100, True), (128, True), (129, False), (255, False)])
def test_a_prediction_of_labels_is_warned_about(folders, save, value, warned):
    prediction = np.zeros((40, 50), np.uint8)
    prediction[10:30, 10:30] = value
    save(folders[0] / "2.png", prediction)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bc.evaluate(*folders, metrics=["MAE"])
    assert any("another dark value (labels?)" in str(warning.message) for warning in caught) == warned


def test_without_opencv_hce_is_nan_with_a_warning(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.warns(UserWarning, match="HCE is NaN"):
        scores = bc.evaluate(*folders)
    assert tuple(scores) == KEYS
    assert math.isnan(scores.pop("HCE"))
    assert not any(math.isnan(score) for score in scores.values())


def test_progress_counts_pairs(folders):
    seen = []
    bc.evaluate(*folders, metrics=["MAE"], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 5) for number in range(1, 6)]


def test_a_process_that_may_not_start_others_measures_itself(folders, monkeypatch):
    """As those of multiprocessing.Pool."""
    expected = bc.evaluate(*folders)
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    np.testing.assert_equal(bc.evaluate(*folders, workers=2), expected)


def test_no_workers_are_refused(folders):
    with pytest.raises(ConfigError, match="workers=0"):
        bc.evaluate(*folders, workers=0)


def test_the_mean_of_sets_counts_every_set_the_same():
    results = [
        SetResult(method="m", set_name=name, scores={"maxF": score}, curves={"F": np.full(256, score)})
        for name, score in (("a", 0.2), ("b", 0.6))
    ]
    mean = mean_of_sets(results, "both")
    assert mean.scores["maxF"] == pytest.approx(0.4)
    assert mean.curves["F"][0] == pytest.approx(0.4)


def test_a_worker_that_dies_costs_no_more_than_its_pair(folders, monkeypatch):
    """All processes are killed once, as by a system without memory; every pair is measured all the same."""
    pools = []

    def pool(workers):
        pools.append(make(workers))
        return pools[-1]

    make = evaluation._pool
    monkeypatch.setattr(evaluation, "_pool", pool)
    expected = evaluate_set(*folders, protocol=Protocol(keys=("MAE",))).images

    def kill(done, total):
        if done == 1:
            for process in list(pools[0]._processes.values()):
                os.kill(process.pid, signal.SIGKILL)

    result = evaluate_set(*folders, protocol=Protocol(keys=("MAE",)), workers=2, progress=kill)
    assert result.images == expected


def test_a_pair_that_kills_its_worker_is_named(folders, monkeypatch):
    stems = sorted(path.stem for path in Path(folders[1]).iterdir())

    class Executor:
        """Stands for a pool whose processes die of one pair."""

        def __init__(self, workers):
            self.broken = False

        def submit(self, function, *arguments):
            if self.broken:
                raise BrokenProcessPool
            future = Future()
            self.broken = bool(arguments) and arguments[0][0] == stems[0]
            if self.broken:
                future.set_exception(BrokenProcessPool())
            else:
                future.set_result(function(*arguments))
            return future

        def shutdown(self, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(evaluation, "_pool", Executor)
    with pytest.raises(IncompleteEvaluation, match="died, perhaps for lack of memory") as caught:
        evaluate_set(*folders, protocol=Protocol(keys=("MAE",)), workers=2)
    assert sorted(caught.value.result.images) == stems[1:]
    assert list(caught.value.result.failures) == stems[:1]
