import numpy as np
import pytest

from birefnet_core.errors import DatasetError
from birefnet_core.metrics.cache import Cache


def test_measurements_come_back_as_they_were(tmp_path):
    curve = np.random.default_rng(0).random(256)
    with Cache(tmp_path / "new" / "cache.sqlite") as cache:
        cache.store(b"key", {"F:v1": {"curve": curve, "adaptive": 0.25}}, ("odd",))
    with Cache(tmp_path / "new" / "cache.sqlite") as cache:
        measurements, notes = cache.load(b"key")
        assert cache.load(b"other") == ({}, ())
    assert np.array_equal(measurements["F:v1"]["curve"], curve)
    assert measurements["F:v1"]["adaptive"] == 0.25
    assert notes == ("odd",)


def test_later_measurements_join_earlier_ones(tmp_path):
    with Cache(tmp_path / "cache.sqlite") as cache:
        cache.store(b"key", {"a": {"x": 1.0}}, ())
        cache.store(b"key", {"b": {"x": 2.0}}, ())
        assert set(cache.load(b"key")[0]) == {"a", "b"}


def test_the_key_is_the_content(tmp_path, save):
    one, two = np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)
    paths = [save(tmp_path / f"{name}.png", array) for name, array in (("a", one), ("b", one), ("c", two))]
    assert Cache.key(paths[0], paths[2]) == Cache.key(paths[1], paths[2])
    assert Cache.key(paths[0], paths[2]) != Cache.key(paths[2], paths[0])


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "cache.sqlite").write_text("this is not a database, and long enough to be looked at " * 20)
    with pytest.raises(DatasetError, match=r"cache\.sqlite cannot be used"):
        Cache(tmp_path / "cache.sqlite")
