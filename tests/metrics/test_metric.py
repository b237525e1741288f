import math
import pickle

import numpy as np
import pytest

from birefnet_core.errors import ConfigError
from birefnet_core.metrics import KEYS, METRICS, FMeasure, MeanAbsoluteError, Pair, Protocol
from birefnet_core.metrics.measures.hce import HumanCorrectionEfforts

ALL = list(METRICS)


@pytest.fixture
def pairs(random_mask):
    rng = np.random.default_rng(0)
    kinds = ["soft", "smooth", "binary", "smooth", "empty"]
    return [Pair(random_mask(rng, (30, 40), "soft"), random_mask(rng, (30, 40), kind)) for kind in kinds]


@pytest.mark.parametrize("name", ALL)
def test_merged_accumulators_equal_one(name, pairs):
    whole, left, right = (METRICS[name]() for _ in range(3))
    for pair in pairs:
        whole.update(pair)
    for pair in pairs[:2]:
        left.update(pair)
    for pair in pairs[2:]:
        right.update(pair)
    left.merge(pickle.loads(pickle.dumps(right)))  # as it would come from another process
    assert left.compute() == pytest.approx(whole.compute(), abs=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_scores_have_the_metric_s_keys_and_are_floats(name, pairs):
    metric = METRICS[name]()
    for scores in (metric.compute(), metric.update(pairs[1]), metric.compute()):
        assert tuple(scores) == metric.keys
        assert all(type(score) is float for score in scores.values())


def test_nothing_measured_is_nan():
    assert all(math.isnan(score) for score in FMeasure().compute().values())


def test_state_does_not_grow_with_the_pairs(pairs):
    metric = FMeasure()
    metric.update(pairs[0])
    before = len(pickle.dumps(metric))
    for _ in range(50):
        metric.update(pairs[1])
    assert len(pickle.dumps(metric)) < before + 50


def test_merging_another_metric_is_refused():
    with pytest.raises(ConfigError, match="F:v1"):
        MeanAbsoluteError().merge(FMeasure())


def test_merging_another_tolerance_is_refused():
    with pytest.raises(ConfigError, match="relax=3"):
        HumanCorrectionEfforts(5).merge(HumanCorrectionEfforts(3))


def test_every_key_has_a_metric():
    assert set(KEYS) <= {key for metric in Protocol().metrics() for key in metric.keys} | {"HCE"}
