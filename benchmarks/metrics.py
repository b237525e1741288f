"""Our metrics against PySODMetrics: time and results, alternating, one thread each.

    python benchmarks/metrics.py [--sizes 1024 2048] [--rounds 5] [--folder]

Three kinds of objects (blobs, thin lines, a grid) with a soft, slightly shifted prediction, and one clean prediction
that is 0 or 1 but for its rims. In every round both libraries measure the same pair, one after the other, taking turns
in who begins; the ratio is the median of the rounds' ratios. "difference" is the largest difference of any score. HCE
is given to PySODMetrics binarised as published, because its own binarisation differs. ``--folder`` also measures
``evaluate_set`` on files, and the process's peak memory over many pairs.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import py_sod_metrics as theirs
from PIL import Image
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from birefnet_core.metrics import (
    EMeasure,
    FMeasure,
    HumanCorrectionEfforts,
    MeanAbsoluteError,
    Pair,
    SMeasure,
    WeightedF,
    evaluate_set,
)

KINDS = ("blobs", "lines", "grid", "clean blobs")


def make_pair(kind: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and ground truth, uint8 (size, size)."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    field = cv2.resize(rng.standard_normal((16, 16)), (size, size), interpolation=cv2.INTER_CUBIC)
    mask = {
        "lines": (np.abs(np.sin(40 * columns + 2 * field)) < 0.12) & (field > -0.5),
        "grid": (rows % (1 / 16) < 0.01) | (columns % (1 / 16) < 0.01),
    }.get(kind, field > 0.4)
    moved = ndimage.gaussian_filter(np.roll(mask, size // 500, axis=1).astype(np.float64), 2)
    if kind.startswith("clean"):
        moved = np.clip((moved - 0.5) * 3 + 0.5, 0, 1)
    else:
        noise = cv2.resize(rng.standard_normal((128, 128)), (size, size), interpolation=cv2.INTER_CUBIC)
        moved = np.clip(moved + 0.15 * noise, 0, 1)
    return (moved * 255).astype(np.uint8), mask.astype(np.uint8) * 255


def ours_cheap(prediction, truth):
    pair = Pair(prediction, truth)
    metrics = (SMeasure(), FMeasure(), EMeasure(), MeanAbsoluteError())
    return [score for metric in metrics for score in metric.update(pair).values()]


def theirs_cheap(prediction, truth):
    s, f, e, mae = theirs.Smeasure(), theirs.Fmeasure(), theirs.Emeasure(), theirs.MAE()
    for metric in (s, f, e, mae):
        metric.step(prediction, truth)
    f, e = f.get_results()["fm"], e.get_results()["em"]
    scores = [s.get_results()["sm"]]
    for result in (f, e):
        scores += [result["curve"].max(), result["curve"].mean(), result["adp"]]
    return [*scores, mae.get_results()["mae"]]


def ours_weighted(prediction, truth):
    return list(WeightedF().update(Pair(prediction, truth)).values())


def ours_weighted_without_opencv(prediction, truth):
    saved, sys.modules["cv2"] = sys.modules["cv2"], None
    try:
        return ours_weighted(prediction, truth)
    finally:
        sys.modules["cv2"] = saved


def theirs_weighted(prediction, truth):
    metric = theirs.WeightedFmeasure()
    metric.step(prediction, truth)
    return [metric.get_results()["wfm"]]


def ours_hce(prediction, truth):
    return list(HumanCorrectionEfforts().update(Pair(prediction, truth)).values())


def theirs_hce(prediction, truth):
    metric = theirs.HumanCorrectionEffortMeasure()
    metric.step((prediction > 128).astype(np.float64), truth > 128, normalize=False)
    return [metric.get_results()["hce"]]


CONTESTS = {
    "S + F + E + MAE": (ours_cheap, theirs_cheap),
    "weighted F": (ours_weighted, theirs_weighted),
    "weighted F, OpenCV not installed": (ours_weighted_without_opencv, theirs_weighted),
    "HCE": (ours_hce, theirs_hce),
}


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def contest(ours, theirs_, pair, rounds):
    """Median seconds of both, the median of the ratios, and the largest difference of the scores."""
    difference = max(abs(a - b) for a, b in zip(ours(*pair), theirs_(*pair), strict=True))  # warms up, too
    seconds = []
    for number in range(rounds):
        order = (ours, theirs_) if number % 2 == 0 else (theirs_, ours)
        found = {function: timed(function, *pair)[0] for function in order}
        seconds.append((found[ours], found[theirs_]))
    mine, other = (statistics.median(column) for column in zip(*seconds, strict=True))
    return mine, other, statistics.median(b / a for a, b in seconds), difference


def compare(sizes, rounds):
    print("| metric | size | pair | ours, ms | PySODMetrics, ms | times faster | difference |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for name, (ours, theirs_) in CONTESTS.items():
        for size in sizes:
            for kind in KINDS:
                mine, other, ratio, difference = contest(ours, theirs_, make_pair(kind, size), rounds)
                row = f"| {name} | {size} | {kind} | {mine * 1e3:.1f} | {other * 1e3:.1f} | {ratio:.1f} "
                print(f"{row}| {difference:.0e} |" if difference else f"{row}| 0 |", flush=True)


def folder(size, pairs):
    """Seconds per pair from files, all metrics, and peak memory after two pairs and after all."""
    with tempfile.TemporaryDirectory() as root:
        for number in range(pairs):
            for name, array in zip(("pred", "gt"), make_pair(KINDS[number % len(KINDS)], size), strict=True):
                path = Path(root, name, f"{number:04}.png")
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(array).save(path)
        peaks = []

        def watch(done, total):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

        seconds, result = timed(lambda: evaluate_set(Path(root, "pred"), Path(root, "gt"), progress=watch))
        print(f"\n{pairs} pairs of {size} x {size} from PNG files, all metrics, one process:")
        first, last = peaks[len(KINDS) - 1], peaks[-1]
        print(f"{seconds / pairs:.2f} s a pair; peak memory {first:.0f} MB after {len(KINDS)}, {last:.0f} MB at last.")
        assert not result.failures


def with_one_thread():
    """Starts this script again with numpy's libraries limited to one thread."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if any(os.environ.get(name) != number for name, number in limits.items()):
        os.environ.update(limits)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    cv2.setNumThreads(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1024, 2048])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", action="store_true")
    args = parser.parse_args()
    with_one_thread()
    warnings.simplefilter("ignore")
    compare(args.sizes, args.rounds)
    if args.folder:
        folder(max(args.sizes), 40)


if __name__ == "__main__":
    main()
