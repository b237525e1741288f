import sys

import numpy as np
import pytest
from PIL import Image

from birefnet_core.errors import ConfigError
from birefnet_core.metrics import Protocol, evaluate_set
from birefnet_core.metrics.plot import plot_curves


def test_plot_has_one_row_for_each_set(folders, tmp_path):
    first = evaluate_set(*folders, method="one", set_name="a")
    second = evaluate_set(*folders, method="one", set_name="b")
    sizes = []
    for results in ([first], [first, second]):
        plot_curves(results, tmp_path / "p.png")
        with Image.open(tmp_path / "p.png") as image:
            assert image.format == "PNG"
            assert np.unique(image.convert("L")).size > 20
            sizes.append(image.size)
    assert sizes[1] == (sizes[0][0], 2 * sizes[0][1])


def test_plot_without_f_measure_is_refused(folders, tmp_path):
    result = evaluate_set(*folders, protocol=Protocol(keys=("MAE",)))
    with pytest.raises(ConfigError, match="maxF"):
        plot_curves([result], tmp_path / "p.png")


def test_plot_says_that_matplotlib_is_missing(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"matplotlib.*pip install matplotlib"):
        plot_curves([evaluate_set(*folders)], tmp_path / "p.png")
