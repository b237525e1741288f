import contextlib
import io
import os
import sqlite3
from pathlib import Path

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


def test_a_database_of_another_program_stays_as_it_is(tmp_path):
    path = tmp_path / "notes.db"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE notes (text TEXT)")
    before = path.read_bytes()
    with pytest.raises(DatasetError, match=r"notes\.db is a database of another program; choose another"):
        Cache(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["notes.db"]


class FullDisk:
    """Stands for a connection to a file on a full disk: nothing can be written, by the error of SQLite."""

    def __init__(self, connection, error):
        self.connection, self.error = connection, error

    def execute(self, text, *values):
        if text.startswith("CREATE"):
            raise self.error
        return self.connection.execute(text, *values)

    def close(self):
        self.connection.close()


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database or disk is full"), KeyboardInterrupt()])
def test_a_cache_that_cannot_be_begun_is_closed(tmp_path, monkeypatch, error):
    made, connect = [], sqlite3.connect

    def full(*arguments, **options):
        made.append(FullDisk(connect(*arguments, **options), error))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", full)
    expected = DatasetError if isinstance(error, sqlite3.Error) else KeyboardInterrupt
    with pytest.raises(expected):
        Cache(tmp_path / "cache.sqlite")
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].connection.execute("SELECT 1")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="cannot list what is open")
def test_a_file_that_is_no_cache_is_closed(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_text("this is not a database, and long enough to be looked at " * 20)
    with pytest.raises(DatasetError) as error:
        Cache(path)
    links = [os.path.join("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
    assert str(path) not in [os.readlink(link) for link in links if os.path.lexists(link)]
    assert error.value.__cause__ is not None  # whose traceback holds all that its frames hold


@pytest.mark.skipif(os.name == "nt", reason="has no such pipes")
def test_a_pipe_is_no_cache(tmp_path):
    os.mkfifo(tmp_path / "cache.sqlite")
    with pytest.raises(DatasetError, match="is a pipe or a device, expected the name of a file"):
        Cache(tmp_path / "cache.sqlite")


@pytest.mark.parametrize("content", [b"x" * 50, b"", "text", None, 5, b"PK\x03\x04" + bytes(40)])
def test_damaged_measurements_are_measured_again(tmp_path, content):
    with Cache(tmp_path / "cache.sqlite") as cache:
        cache.store(b"key", {"a": {"x": 1.0}}, ())
        cache.store(b"other", {"a": {"x": 1.0}}, ())
        cache._database.execute("UPDATE measurements SET content = ? WHERE pair = ?", (content, b"key"))
        assert cache.load(b"key") == ({}, ())
        assert cache.load(b"other")[0]["a"]["x"] == 1
        cache.store(b"key", {"a": {"x": 2.0}}, ())
        assert cache.load(b"key")[0]["a"]["x"] == 2


def test_pickles_in_a_cache_are_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "marker",))

    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([Evil()], dtype=object))
    with Cache(tmp_path / "cache.sqlite") as cache:
        cache.store(b"key", {"a": {"x": 1.0}}, ())
        cache._database.execute("UPDATE measurements SET content = ?", (buffer.getvalue(),))
        assert cache.load(b"key") == ({}, ())
    assert not (tmp_path / "marker").exists()


def test_a_cache_damaged_in_the_middle_is_refused_by_name(tmp_path):
    path = tmp_path / "cache.sqlite"
    with Cache(path) as cache:
        for number in range(200):
            cache.store(b"key %d" % number, {"a": {"x": np.zeros(500)}}, ())
    content = bytearray(path.read_bytes())
    for place in range(4096, len(content), 64):
        content[place] ^= 255
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"cache\.sqlite cannot be used"), Cache(path) as cache:
        for number in range(200):
            cache.load(b"key %d" % number)
