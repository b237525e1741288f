"""The same numbers as PySODMetrics on random masks.

Its S-measure guards divisions by zero that published code turns into 0, and its HCE binarises the normalised
prediction; ours follow the published values there (see the classes).
"""

import math
import warnings

import numpy as np
import py_sod_metrics as theirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birefnet_core.metrics import (
    EMeasure,
    FMeasure,
    HumanCorrectionEfforts,
    MeanAbsoluteError,
    Pair,
    SMeasure,
    WeightedF,
)

KINDS = st.sampled_from(["soft", "smooth", "binary", "grey", "empty", "full"])
MASKS = given(st.integers(1, 48), st.integers(1, 48), KINDS, KINDS, st.integers(0, 2**32 - 1))
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def draw(random_mask):
    """Prediction and ground truth of the given kinds."""

    def pair(height, width, prediction, truth, seed):
        rng = np.random.default_rng(seed)
        shape = height, width
        return random_mask(rng, shape, prediction), random_mask(rng, shape, truth)

    return pair


def step(metric, prediction, truth):
    """Their results for one pair."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        metric = metric()
        metric.step(prediction, truth)
        return metric.get_results()


@settings(max_examples=250, deadline=None)
@MASKS
def test_f_measure_equals_pysodmetrics(draw, height, width, prediction, truth, seed):
    prediction, truth = draw(height, width, prediction, truth, seed)
    expected = step(theirs.Fmeasure, prediction, truth)
    found = FMeasure().measure(Pair(prediction, truth))
    np.testing.assert_allclose(found["curve"], expected["fm"]["curve"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["precision"], expected["pr"]["p"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["recall"], expected["pr"]["r"], rtol=0, atol=1e-12)
    assert found["adaptive"] == pytest.approx(expected["fm"]["adp"], abs=1e-12)


@settings(max_examples=250, deadline=None)
@MASKS
def test_e_measure_equals_pysodmetrics(draw, height, width, prediction, truth, seed):
    prediction, truth = draw(height, width, prediction, truth, seed)
    expected = step(theirs.Emeasure, prediction, truth)["em"]
    if truth.size == 1:  # theirs divides by N - 1 + epsilon
        expected = {key: value * np.spacing(1) for key, value in expected.items()}
    found = EMeasure().measure(Pair(prediction, truth))
    np.testing.assert_allclose(found["curve"], expected["curve"], rtol=1e-12, atol=1e-12)
    assert found["adaptive"] == pytest.approx(expected["adp"], rel=1e-12, abs=1e-12)


@settings(max_examples=250, deadline=None)
@MASKS
def test_s_measure_equals_pysodmetrics(draw, height, width, prediction, truth, seed):
    prediction, truth = draw(height, width, prediction, truth, seed)
    pair = Pair(prediction, truth)
    found = SMeasure().update(pair)["Sm"]
    smallest = min(*pair.quadrant_counts.sum(axis=(1, 2)), *pair.counts.sum(axis=1))
    if 0 < pair.foreground < pair.size and smallest < 2:
        assert found == 0  # undefined
    else:
        assert found == pytest.approx(float(step(theirs.Smeasure, prediction, truth)["sm"]), abs=1e-9)


@settings(max_examples=250, deadline=None)
@MASKS
def test_weighted_f_and_mae_equal_pysodmetrics(draw, height, width, prediction, truth, seed):
    prediction, truth = draw(height, width, prediction, truth, seed)
    pair = Pair(prediction, truth)
    expected = step(theirs.WeightedFmeasure, prediction, truth)["wfm"]
    assert WeightedF().update(pair)["wF"] == pytest.approx(expected, abs=1e-12)
    expected = step(theirs.MAE, prediction, truth)["mae"]
    assert MeanAbsoluteError().update(pair)["MAE"] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=250, deadline=None)
@given(
    st.integers(1, 70), st.integers(1, 70), KINDS, KINDS, st.integers(0, 8), st.booleans(), st.integers(0, 2**32 - 1)
)
def test_hce_equals_pysodmetrics_binarised_alike(draw, height, width, prediction, truth, relax, alike, seed):
    prediction, truth = draw(height, width, prediction, truth, seed)
    if alike:  # the truth moved and speckled, which has more structure than two unrelated masks
        noise = np.random.default_rng(seed).random(truth.shape) < 0.01
        prediction = np.roll(truth, (3, -2), axis=(0, 1)) ^ np.where(noise, 255, 0).astype(np.uint8)
    metric = theirs.HumanCorrectionEffortMeasure(relax=relax)
    metric.step((prediction > 128).astype(np.float64), truth > 128, normalize=False)
    expected = metric.get_results()["hce"]
    found, mask = prediction > 128, truth > 128
    if (found != mask).all() and found.all() != mask.all() and (found.all() or mask.all()):
        expected = 0  # one faulty region over the whole image: free in the authors' code
    assert HumanCorrectionEfforts(relax).update(Pair(prediction, truth))["HCE"] == expected


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(KINDS, KINDS), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_means_over_a_set_equal_pysodmetrics(draw, kinds, seed):
    f_measure, e_measure = theirs.Fmeasure(), theirs.Emeasure()
    ours_f, ours_e = FMeasure(), EMeasure()
    for number, (prediction, truth) in enumerate(kinds):
        prediction, truth = draw(20, 30, prediction, truth, seed + number)
        for metric in (f_measure, e_measure):
            metric.step(prediction, truth)
        for metric in (ours_f, ours_e):
            metric.update(Pair(prediction, truth))
    curve = f_measure.get_results()["fm"]["curve"]
    assert ours_f.compute()["maxF"] == pytest.approx(curve.max(), abs=1e-12)
    assert ours_f.compute()["meanF"] == pytest.approx(curve.mean(), abs=1e-12)
    curve = e_measure.get_results()["em"]["curve"]
    assert ours_e.compute()["maxE"] == pytest.approx(curve.max(), abs=1e-12)
    assert ours_e.compute()["meanE"] == pytest.approx(curve.mean(), abs=1e-12)
    assert not any(math.isnan(score) for score in (ours_f.compute() | ours_e.compute()).values())
