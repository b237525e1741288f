import sys

import numpy as np
import pytest

from birefnet_core.errors import ConfigError
from birefnet_core.metrics import KEYS, Protocol
from birefnet_core.metrics.protocol import lower_is_better, measure_files


def test_keys_keep_the_order_of_the_protocol():
    assert Protocol().score_keys == KEYS
    assert Protocol(keys=("mBA", "Sm", "SAD")).score_keys == ("Sm", "mBA", "SAD")


def test_only_needed_metrics_are_measured():
    assert [metric.name for metric in Protocol(keys=("meanF", "maxF")).metrics()] == ["F"]


@pytest.mark.parametrize(("keys", "message"), [(("Sm", "IoU"), "Unknown metrics IoU"), ((), "No metric")])
def test_unknown_keys_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        Protocol(keys=keys)


def test_without_opencv_hce_is_left_out_unless_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    protocol = Protocol()
    assert protocol.lacks_opencv
    assert "HCE" not in [metric.name for metric in protocol.metrics()]
    assert np.isnan(protocol.pick({"Sm": 1.0})["HCE"])
    with pytest.raises(ConfigError, match="OpenCV"):
        Protocol(keys=("HCE",))


def test_direction_of_scores():
    assert lower_is_better("HCE")
    assert not lower_is_better("maxF")


def test_oddities_are_noted(tmp_path, save):
    truth = save(tmp_path / "truth.png", np.full((20, 30), 1, np.uint8))
    wide = save(tmp_path / "wide.png", np.zeros((20, 60), np.uint8))
    coloured = save(tmp_path / "coloured.png", np.zeros((20, 30, 3), np.uint8))
    metrics = Protocol(keys=("MAE",)).metrics()
    notes = " ".join(measure_files("a", wide, truth, metrics).notes)
    assert "aspect ratio" in notes
    assert "labels 0 and 1" in notes
    assert "prediction in colour" in " ".join(measure_files("a", coloured, truth, metrics).notes)


def test_a_ground_truth_of_labels_is_scored_as_the_mask_that_training_reads(tmp_path, save):
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:15] = 1
    truth, prediction = save(tmp_path / "truth.png", labels), save(tmp_path / "prediction.png", labels * 255)
    outcome = measure_files("a", prediction, truth, Protocol(keys=("MAE",)).metrics())
    assert outcome.measurements["MAE:v1"] == {"MAE": 0}
    assert outcome.notes == ("ground truth of the labels 0 and 1, read as 0 and 255",)


def test_a_prediction_of_another_size_but_the_same_shape_is_not_odd(tmp_path, save):
    truth = save(tmp_path / "truth.png", np.full((333, 500), 255, np.uint8))
    small = save(tmp_path / "small.png", np.zeros((67, 100), np.uint8))
    outcome = measure_files("a", small, truth, Protocol(keys=("MAE",)).metrics())
    assert outcome.notes == ()
    assert outcome.measurements["MAE:v1"] == {"MAE": 1}
