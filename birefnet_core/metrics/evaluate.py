"""Folders of predictions and ground truths in, scores out."""

from __future__ import annotations

import multiprocessing
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..checks import check_number, check_switch
from ..errors import ConfigError, DatasetError
from ..files import path_of
from ..text import enumerate_names
from .folders import LISTED, pair_folders, set_name_of
from .measures.hce import RELAX
from .metric import Metric
from .optional import OPENCV, opencv_if_installed
from .protocol import Outcome, Protocol, measure_files

if TYPE_CHECKING:
    from .cache import Cache

Progress = Callable[[int, int], None]  # pairs done, pairs in all
_Task = tuple[str, Path, Path]  # stem, prediction, ground truth
_Arguments = tuple[_Task, Protocol, frozenset[str]]  # of ``_measure_missing``
_AHEAD = 2  # pairs handed out per worker, so that none waits


@dataclass(frozen=True, kw_only=True)
class SetResult:
    """What one method reached on one set.

    Attributes:
        method: Name of the method.
        set_name: Name of the set.
        scores: The set's scores.
        images: Scores of every image, by stem.
        curves: Mean curves over 256 thresholds, 255 first: precision, recall, F, E, BIoU (those measured).
        notes: Kinds of warnings about files, with the stems they concern.
        failures: Pairs that could not be measured, and why. They are not part of the scores.
        missing: Ground truths without prediction.
        extra: Predictions without ground truth.
        files: Prediction and ground truth of every image, by stem.
    """

    method: str
    set_name: str
    scores: dict[str, float]
    images: dict[str, dict[str, float]] = field(default_factory=dict)
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    files: dict[str, tuple[Path, Path]] = field(default_factory=dict)

    def warnings(self) -> list[str]:
        """Everything worth knowing besides the scores, as sentences."""
        lines = []
        for kind, stems in self.notes.items():
            pairs = "1 pair" if len(stems) == 1 else f"{len(stems)} pairs"
            lines.append(f"{self.set_name}: {kind}, in {pairs}: {enumerate_names(stems, LISTED)}.")
        if self.missing:
            lines.append(f"{self.set_name}: not predicted and not scored: {enumerate_names(self.missing, LISTED)}.")
        if self.extra:
            lines.append(f"{self.set_name}: predicted but without ground truth: {enumerate_names(self.extra, LISTED)}.")
        lines += [f"{self.set_name}: {stem} left out: {reason}" for stem, reason in self.failures.items()]
        return lines


class IncompleteEvaluation(DatasetError):
    """Some pairs could not be measured; ``result`` holds what could."""

    def __init__(self, message: str, result: SetResult):
        super().__init__(message)
        self.result = result


def evaluate_folders(
    pred_dir: str | Path,
    gt_dir: str | Path,
    *,
    metrics: Sequence[str] | str | None = None,
    hce_relax: int = RELAX,
    workers: int = 1,
    cache: str | Path | None = None,
    allow_missing: bool = False,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Scores a folder of predictions by the protocol of the paper (Sec. 4.2).

    Files pair by stem and may be of any format; predictions are resized to their ground truths. Nothing is written
    but the cache.

    Args:
        pred_dir: Folder of predictions.
        gt_dir: Folder of ground truths.
        metrics: Score or scores to take, from ``KEYS`` and ``MATTING_KEYS``; by default all of ``KEYS``.
        hce_relax: Tolerance of HCE in pixels.
        workers: Processes; each holds one pair at a time. With more than one, a script must keep its calls under
            ``if __name__ == "__main__":``.
        cache: File that keeps measurements, so that an interrupted evaluation resumes.
        allow_missing: Whether missing, extra and unreadable files are left out with a warning instead of an error.
        progress: Called with (pairs done, pairs in all).

    Returns:
        Scores as floats, keys in the order of ``KEYS``. HCE is NaN with a warning if OpenCV is not installed.

    Raises:
        DatasetError: the folders do not pair up.
        IncompleteEvaluation: files could not be used; its ``result`` holds the scores of the others.
        ConfigError: unknown metrics, or metrics that need a package which is missing.
    """
    keys = (metrics,) if isinstance(metrics, str) else metrics
    protocol = Protocol(keys=None if keys is None else tuple(keys), relax=hce_relax)
    result = evaluate_set(
        pred_dir,
        gt_dir,
        protocol=protocol,
        workers=workers,
        cache=cache,
        allow_missing=allow_missing,
        progress=progress,
    )
    if protocol.lacks_opencv:
        warnings.warn(f"HCE is NaN: it needs OpenCV (pip install {OPENCV}).", stacklevel=2)
    for line in result.warnings():
        warnings.warn(line, stacklevel=2)
    return result.scores


def evaluate_set(
    pred_dir: str | Path,
    gt_dir: str | Path,
    *,
    method: str | None = None,
    set_name: str | None = None,
    protocol: Protocol | None = None,
    workers: int = 1,
    cache: str | Path | None = None,
    allow_missing: bool = False,
    progress: Progress | None = None,
) -> SetResult:
    """``evaluate_folders`` with all details: scores of every image, curves, notes. Raises no warnings.

    Args:
        pred_dir: Folder of predictions.
        gt_dir: Folder of ground truths.
        method: Name of the method in the result; by default the predictions' folder.
        set_name: Name of the set in the result; by default the ground truths' folder.
        protocol: What is measured; by default every score of ``KEYS``.
        workers: As for ``evaluate_folders``, and so are ``cache``, ``allow_missing`` and ``progress``.

    Returns:
        The scores of the set and of every image.

    Raises:
        DatasetError: As for ``evaluate_folders``, and so are the other errors.
    """
    pred_dir, gt_dir, protocol = path_of(pred_dir, "pred_dir"), path_of(gt_dir, "gt_dir"), protocol or Protocol()
    check_number("workers", workers, whole=True)
    if workers < 1:
        raise ConfigError(f"workers={workers}: expected at least 1.")
    check_switch("allow_missing", allow_missing)
    pairing = pair_folders(pred_dir, gt_dir, allow_missing=allow_missing)
    metrics = protocol.metrics()
    images: dict[str, dict[str, float]] = {}
    notes: dict[str, list[str]] = {}
    failures: dict[str, str] = {}
    with _open(cache) as store:
        for done, outcome in enumerate(_measure(pairing.pairs, protocol, workers, store), start=1):
            for note in outcome.notes:
                notes.setdefault(note, []).append(outcome.stem)
            if outcome.failure is None:
                images[outcome.stem] = protocol.pick(_count(outcome, metrics))
            else:
                failures[outcome.stem] = outcome.failure
            if progress is not None:
                progress(done, len(pairing.pairs))
    result = SetResult(
        method=method or pred_dir.resolve().name,
        set_name=set_name or set_name_of(gt_dir),
        scores=protocol.pick({key: score for metric in metrics for key, score in metric.compute().items()}),
        images=images,
        curves=_curves(metrics),
        notes={kind: tuple(stems) for kind, stems in notes.items()},
        failures=failures,
        missing=pairing.missing,
        extra=pairing.extra,
        files={stem: (prediction, truth) for stem, prediction, truth in pairing.pairs},
    )
    if failures and (not allow_missing or not images):
        listed = " ".join(f"{stem}: {reason}" for stem, reason in list(failures.items())[:10])
        message = f"{len(failures)} of {len(pairing.pairs)} pairs of {result.set_name} could not be measured. {listed}"
        raise IncompleteEvaluation(message, result)
    return result


def mean_of_sets(results: Sequence[SetResult], set_name: str) -> SetResult:
    """Mean over sets of one method, each set counting the same, as the paper's DIS-TE(1-4)."""
    keys = results[0].scores
    curves = [name for name in results[0].curves if all(name in result.curves for result in results)]
    return SetResult(
        method=results[0].method,
        set_name=set_name,
        scores={key: float(np.mean([result.scores[key] for result in results])) for key in keys},
        curves={name: np.mean([result.curves[name] for result in results], axis=0) for name in curves},
    )


def _open(cache: str | Path | None) -> AbstractContextManager[Cache | None]:
    if cache is None:
        return nullcontext()
    from .cache import Cache  # here, because some builds of Python lack SQLite

    return Cache(cache)


def _count(outcome: Outcome, metrics: list[Metric]) -> dict[str, float]:
    """Adds a pair's measurements to the accumulators; returns the pair's scores."""
    scores: dict[str, float] = {}
    for metric in metrics:
        measurement = outcome.measurements[metric.identity]
        metric.add(measurement)
        scores |= metric.scores(measurement)
    return scores


def _curves(metrics: list[Metric]) -> dict[str, np.ndarray]:
    curves: dict[str, np.ndarray] = {}
    for metric in metrics:
        mean = metric.mean()
        curves |= {entry: mean[entry] for entry in ("precision", "recall") if entry in mean}
        if "curve" in mean:
            curves[metric.name] = mean["curve"]
    return curves


def _measure(tasks: Sequence[_Task], protocol: Protocol, workers: int, cache: Cache | None) -> Iterator[Outcome]:
    """Outcomes in the order of the tasks, from the cache as far as it has them."""
    wanted = {metric.identity for metric in protocol.metrics()}
    # Daemonic processes, as those of multiprocessing.Pool, may not start others.
    workers = 1 if multiprocessing.current_process().daemon else min(workers, len(tasks))
    pool = _Workers(workers) if workers > 1 else None
    waiting: deque[tuple[bytes | None, Outcome, _Pending | Outcome]] = deque()
    try:
        for task in tasks:
            key, known = _recall(task, cache)
            todo = wanted - known.measurements.keys()
            arguments = (task, protocol, frozenset(todo))
            if known.failure is not None or not todo:
                waiting.append((None, known, known))
            elif pool is None:
                waiting.append((key, known, _measure_missing(*arguments)))
            else:
                waiting.append((key, known, pool.submit(arguments)))
            if pool is None or len(waiting) >= _AHEAD * workers:
                yield _finish(*waiting.popleft(), cache)
        while waiting:
            yield _finish(*waiting.popleft(), cache)
    finally:
        if pool is not None:
            pool.shutdown()


def _recall(task: _Task, cache: Cache | None) -> tuple[bytes | None, Outcome]:
    """Key of a pair in the cache, and what the cache knows of it."""
    stem, prediction, truth = task
    if cache is None:
        return None, Outcome(stem=stem)
    try:
        key = cache.key(prediction, truth)
    except DatasetError as error:
        return None, Outcome(stem=stem, failure=str(error))
    measurements, notes = cache.load(key)
    return key, Outcome(stem=stem, measurements=measurements, notes=notes)


def _finish(key: bytes | None, known: Outcome, found: _Pending | Outcome, cache: Cache | None) -> Outcome:
    """Waits for a measurement, stores it, and joins it with what was known."""
    outcome = found.result() if isinstance(found, _Pending) else found
    if cache is not None and key is not None and outcome.failure is None:
        cache.store(key, outcome.measurements, outcome.notes)
    return Outcome(
        stem=outcome.stem,
        measurements=known.measurements | outcome.measurements,
        notes=outcome.notes,
        failure=outcome.failure,
    )


def _measure_missing(task: _Task, protocol: Protocol, identities: frozenset[str]) -> Outcome:
    """What a worker does: measures those metrics of a pair that are not known yet."""
    return measure_files(*task, [metric for metric in protocol.metrics() if metric.identity in identities])


class _Workers:
    """Worker processes, started anew where one of them dies.

    When one dies, everything that was handed out is lost. Each such pair is measured once more, in a process of its
    own, so that only the pair that ends its process is left out.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._executor = _pool(workers)

    def submit(self, arguments: _Arguments) -> _Pending:
        """Hands a pair out."""
        try:
            future = self._executor.submit(_measure_missing, *arguments)
        except BrokenProcessPool:
            self._executor.shutdown(cancel_futures=True)
            self._executor = _pool(self._workers)
            future = self._executor.submit(_measure_missing, *arguments)
        return _Pending(arguments, future)

    def shutdown(self) -> None:
        """Ends the processes."""
        self._executor.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Pending:
    """A pair that a worker measures."""

    arguments: _Arguments
    future: Future[Outcome]

    def result(self) -> Outcome:
        """Waits for the measurement."""
        try:
            return self.future.result()
        except BrokenProcessPool:
            return _measure_alone(self.arguments)


def _measure_alone(arguments: _Arguments) -> Outcome:
    """Measures a pair in a separate process; a failure where that process dies.

    Raises:
        DatasetError: Any such process dies.
    """
    with _pool(1) as executor:
        try:
            return executor.submit(_measure_missing, *arguments).result()
        except BrokenProcessPool:
            pass
    with _pool(1) as executor:
        try:
            executor.submit(_one_thread).result()
        except BrokenProcessPool as error:
            raise DatasetError(
                "Worker processes die as they start: for lack of memory (use --workers 1), or because the calling "
                'script does not keep its work under `if __name__ == "__main__":`, as worker processes require.'
            ) from error
    stem, prediction, truth = arguments[0]
    failure = f"the process that measured {prediction} and {truth} died, perhaps for lack of memory."
    return Outcome(stem=stem, failure=failure)


def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes that are not forks of this one: a fork hangs in OpenCV once this process has used its threads."""
    context: BaseContext
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])  # imported once, shared by all workers
    else:
        context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)


def _one_thread() -> None:
    """Keeps OpenCV from starting threads in every worker."""
    cv2 = opencv_if_installed()
    if cv2 is not None:
        cv2.setNumThreads(1)
