"""Precision-recall and F-measure-threshold curves in one figure. Needs matplotlib (extra ``eval``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from ..text import printable
from .evaluate import SetResult
from .optional import matplotlib_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's palette
_LINES = ("-", "--", ":", "-.")
_WIDTH, _HEIGHT = 10.0, 4.2  # inches: the figure's width, and the height of one set's row


def plot_curves(results: Sequence[SetResult], path: Path) -> None:
    """Draws one row for each set: precision over recall on the left, F over the threshold on the right.

    Raises:
        ConfigError: matplotlib is missing, or F-measures were not taken.
    """
    if any("F" not in result.curves for result in results):
        raise ConfigError("The curves need the F-measure; add maxF to the metrics.")
    sets = list(dict.fromkeys(result.set_name for result in results))
    methods = list(dict.fromkeys(result.method for result in results))
    figure = matplotlib_figure("A plot").Figure(figsize=(_WIDTH, _HEIGHT * len(sets)), layout="constrained")
    rows = figure.subplots(len(sets), 2, squeeze=False)
    for (left, right), set_name in zip(rows, sets, strict=True):
        for result in results:
            if result.set_name == set_name:
                _draw(left, right, result, methods.index(result.method))
        set_name = _plain(set_name)
        _label(left, f"{set_name}: precision and recall", "recall", "precision")
        _label(right, f"{set_name}: F-measure", "threshold", "F-measure")
        left.set_xlim(0, 1)
        right.set_xlim(0, 255)
        left.legend(loc="lower left", frameon=False)
        right.legend(loc="lower center", frameon=False)
    figure.savefig(path, format="png", dpi=120)


def _draw(left: Axes, right: Axes, result: SetResult, number: int) -> None:
    style: dict[str, Any] = {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _LINES[number // len(_COLOURS) % len(_LINES)],
        "linewidth": 1.6,
    }
    curve = result.curves["F"]
    best = 255 - int(np.argmax(curve))
    method = _plain(result.method)
    left.plot(result.curves["recall"], result.curves["precision"], label=method, **style)
    right.plot(np.arange(255, -1, -1), curve, label=f"{method} (max {curve.max():.3f} at {best})", **style)


def _plain(name: str) -> str:
    """A name escaped so that matplotlib neither parses it as a formula nor leaves it out of the legend."""
    return " " * name.startswith("_") + printable(name).replace("$", r"\$")


def _label(axes: Axes, title: str, horizontal: str, vertical: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.set_ylim(0, 1.02)
    axes.grid(color="0.88", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
