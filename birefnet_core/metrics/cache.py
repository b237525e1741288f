"""Measurements that survive an interrupted evaluation, found again by the content of the files."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from ..errors import DatasetError
from ..files import make_parent, stream_conflict
from .metric import Measurement

_NOTES = "notes"  # the row that keeps a pair's notes beside its metrics
_READING = b"masks v2"  # changes with the rule that mask files are read by, so that no older measurement is taken


class Cache:
    """One SQLite file of measurements; a context manager.

    The key is what the two files contain and what is measured, so renamed files are found and changed ones are
    measured again. Every pair is on disk as soon as it is stored.
    """

    def __init__(self, path: str | Path):
        """Opens or creates the file.

        Raises:
            DatasetError: the file cannot be written or is not a cache.
        """
        self.path = Path(path)
        if (conflict := stream_conflict(self.path)) is not None:
            raise DatasetError(f"The cache {conflict}.")
        with self._errors(), ExitStack() as stack:
            make_parent(self.path)
            self._database = sqlite3.connect(self.path, timeout=60)
            stack.callback(self._database.close)
            tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables - {"measurements"}:
                raise DatasetError(f"The cache {self.path} is a database of another program; choose another file.")
            self._database.execute("PRAGMA journal_mode=WAL")  # a commit per pair without waiting for the disk
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS measurements (pair BLOB, metric TEXT, content BLOB, "
                "PRIMARY KEY (pair, metric)) WITHOUT ROWID"
            )
            stack.pop_all()  # it stays open where all of this succeeds

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            advice = "delete it or choose another"
            raise DatasetError(f"The cache {self.path} cannot be used ({reason}); {advice}.") from error

    @staticmethod
    def key(prediction: Path, ground_truth: Path) -> bytes:
        """Digest of what two files contain.

        Raises:
            DatasetError: one cannot be read.
        """
        digest = hashlib.blake2b(digest_size=20, person=_READING)
        for path in (prediction, ground_truth):
            try:
                content = path.read_bytes()
            except OSError as error:
                raise DatasetError(f"{path} cannot be read ({error}).") from error
            digest.update(len(content).to_bytes(8, "big"))
            digest.update(content)
        return digest.digest()

    def load(self, key: bytes) -> tuple[dict[str, Measurement], tuple[str, ...]]:
        """All measurements of a pair by metric identity, and its notes; nothing where they are damaged.

        Raises:
            DatasetError: The file is damaged.
        """
        with self._errors():
            rows = dict(self._database.execute("SELECT metric, content FROM measurements WHERE pair = ?", (key,)))
        try:
            notes = tuple(str(note) for note in json.loads(rows.pop(_NOTES, b"[]")))
            return {metric: _unpack(content) for metric, content in rows.items()}, notes
        except Exception:  # NumPy's and zipfile's readers raise nearly anything; the pair is measured again
            return {}, ()

    def store(self, key: bytes, measurements: dict[str, Measurement], notes: tuple[str, ...]) -> None:
        """Keeps what was measured of a pair.

        Raises:
            DatasetError: The file is damaged, or the disk full.
        """
        rows = [(key, metric, _pack(measurement)) for metric, measurement in measurements.items()]
        rows.append((key, _NOTES, json.dumps(notes).encode()))
        with self._errors(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO measurements VALUES (?, ?, ?)", rows)

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()


def _pack(measurement: Measurement) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **measurement)
    return buffer.getvalue()


def _unpack(content: bytes) -> Measurement:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {entry: stored[entry] for entry in stored.files}
