"""The tables and the plot of an ablation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic_path
from ..metrics.optional import matplotlib_figure
from ..metrics.protocol import lower_is_better
from .ablation import SCORES, Row, Run
from .recipe import Recipe

TITLE = "# Ablation"
_OURS, _PAPER = "#0072B2", "#E69F00"  # of Okabe and Ito's palette
_PANELS = ("maxF", "wF", "Sm", "MAE")


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean over seeds, and half the distance between the least and the greatest value; None for a single seed."""

    mean: float
    half: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(float(np.mean(values)), (max(values) - min(values)) / 2 if len(values) > 1 else None)

    def text(self, key: str, sign: str = "") -> str:
        """For a table."""
        return _digits(self.mean, key, sign) + ("" if self.half is None else f" ± {_digits(self.half, key)}")


def difference(row: Row, key: str, runs: Sequence[Run]) -> Spread:
    """How a row's score differs from that of the row it is compared with, seed by seed."""
    ours = _by_seed(row.name, key, runs)
    others = _by_seed(row.against, key, runs)
    return Spread.of([ours[seed] - others[seed] for seed in sorted(ours.keys() & others.keys())])


def paper_difference(row: Row, key: str, rows: Sequence[Row]) -> float | None:
    """The same in the paper; None where it does not say."""
    reference = row.paper_against or next((other.paper for other in rows if other.name == row.against), ())
    if not row.paper or not reference:
        return None
    place = SCORES.index(key)
    return row.paper[place] - reference[place]


def report(rows: Sequence[Row], runs: Sequence[Run], recipe: Recipe, pairs: tuple[int, int], plot: str) -> str:
    """The ablation in Markdown.

    Args:
        rows: In the paper's order.
        runs: Finished ones.
        recipe: Common to the rows.
        pairs: Numbers of pairs for training and for validation.
        plot: Name of the file that ``plot`` writes.
    """
    rows = [row for row in rows if any(run.row == row.name for run in runs)]
    keys = [key for key in SCORES if all(key in run.scores for run in runs)]
    seeds = len({run.seed for run in runs})
    width, height = recipe.size
    trainings = "1 seed: how far scores vary by chance is not known."
    if seeds > 1:
        trainings = (
            f"{seeds} seeds. Values are means over the seeds, ± half the distance between the least and the greatest."
        )
    start = "with a pretrained encoder" if recipe.encoder else "from random weights"
    lines = [
        TITLE, "",
        f"{recipe.backbone} {start}, {width} x {height}, batch {recipe.batch_size}, {recipe.epochs} epochs "
        f"({max(run.steps for run in runs)} steps), with RLFT the last {recipe.rlft} by the IoU loss alone; {pairs[0]} "
        f"pairs, scored on {pairs[1]} others; {trainings}", "",
        "## Scores", "",
        *_table(
            ["", "row", "M parameters", *map(_arrow, keys)],
            [[row.table, row.title, f"{_parameters(row, runs) / 1e6:.1f}", *(_score(row, k, runs) for k in keys)]
             for row in rows],
        ), "",
        "## Differences", "",
        "Of each row from the one it is compared with; in brackets the paper's (Swin-L, 1024 x 1024, DIS-VD). The last "
        "column counts the scores that moved as in the paper, with several seeds also those that did so by more than "
        "the spread.", "",
        *_table(
            ["", "row", "compared with", *map(_arrow, keys), "as in the paper"],
            [_differences(row, keys, rows, runs) for row in rows if _compared(row, runs)],
        ), "",
        f"![differences from the row compared with, ours and the paper's]({plot})", "",
    ]  # fmt: skip
    return "\n".join(lines)


def plot(rows: Sequence[Row], runs: Sequence[Run], path: Path) -> None:
    """Draws the differences, improvements upwards, ours beside the paper's.

    Args:
        rows: In the paper's order.
        runs: Finished ones.
        path: The PNG to write.

    Raises:
        ConfigError: matplotlib is missing.
    """
    shown = [row for row in rows if _compared(row, runs)]
    panels = [key for key in _PANELS if all(key in run.scores for run in runs)]
    figure = matplotlib_figure("A plot").Figure(figsize=(10, 2.3 * len(panels) + 1), layout="constrained")
    for axes, key in zip(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0], panels, strict=True):
        sign = -1 if lower_is_better(key) else 1
        ours = [difference(row, key, runs) for row in shown]
        paper = [paper_difference(row, key, rows) for row in shown]
        places = np.arange(len(shown))
        axes.bar(
            places - 0.2, [sign * one.mean for one in ours], 0.38, label="here", color=_OURS, capsize=3,
            yerr=[np.nan if one.half is None else one.half for one in ours],
        )  # fmt: skip
        axes.bar(places + 0.2, [np.nan if p is None else sign * p for p in paper], 0.38, label="paper", color=_PAPER)
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.set_ylabel(f"{key}, better upwards")
        axes.grid(axis="y", color="0.88", linewidth=0.8)
        axes.set_axisbelow(True)
        labels = [row.title.replace(" + ", "\n+ ").replace(" but ", "\nbut ") for row in shown]
        axes.set_xticks(places, labels, fontsize=8)
        for place in (i for i in range(1, len(shown)) if shown[i].against != shown[i - 1].against):
            axes.axvline(place - 0.5, color="0.5", linewidth=0.8, linestyle=":")
    _mark_references(figure.axes[0], shown, rows)
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=110)


def _mark_references(axes: Any, shown: Sequence[Row], rows: Sequence[Row]) -> None:
    """Writes above the first panel what its bars are compared with, and the legend."""
    for name in dict.fromkeys(row.against for row in shown):
        first = next(i for i, row in enumerate(shown) if row.against == name)
        text = "against\n" + _title(name, rows).removeprefix("+ ")
        axes.text(first - 0.45, 1.02, text, transform=axes.get_xaxis_transform(), fontsize=8, va="bottom")
    axes.legend(frameon=False, fontsize=8, loc="best")


def _by_seed(name: str, key: str, runs: Sequence[Run]) -> dict[int, float]:
    return {run.seed: run.scores[key] for run in runs if run.row == name}


def _compared(row: Row, runs: Sequence[Run]) -> bool:
    """Whether the row and the one it is compared with have a common seed."""
    seeds = ({run.seed for run in runs if run.row == name} for name in (row.name, row.against))
    return bool(set.intersection(*seeds))


def _parameters(row: Row, runs: Sequence[Run]) -> int:
    return next(run.parameters for run in runs if run.row == row.name)


def _title(name: str, rows: Sequence[Row]) -> str:
    return next(row.title for row in rows if row.name == name)


def _score(row: Row, key: str, runs: Sequence[Run]) -> str:
    return Spread.of(list(_by_seed(row.name, key, runs).values())).text(key)


def _differences(row: Row, keys: Sequence[str], rows: Sequence[Row], runs: Sequence[Run]) -> list[str]:
    cells, same, clear, known = [], 0, 0, 0
    for key in keys:
        ours, paper = difference(row, key, runs), paper_difference(row, key, rows)
        cell = ours.text(key, "+")
        if paper is not None:
            cell += f" ({_digits(paper, key, '+')})"
            agrees = ours.mean * paper > 0
            beyond_spread = ours.half is not None and abs(ours.mean) > ours.half
            known, same, clear = known + 1, same + agrees, clear + (agrees and beyond_spread)
        cells.append(cell)
    spreads = any(difference(row, key, runs).half is not None for key in keys)
    count = f"{same} of {known}" + (f", {clear} clearly" if spreads else "") if known else "not in the paper"
    return [row.table, row.title, _title(row.against, rows), *cells, count]


def _digits(value: float, key: str, sign: str = "") -> str:
    return f"{value:{sign}.1f}" if key == "HCE" else f"{value:{sign}.3f}"


def _arrow(key: str) -> str:
    return f"{key} {'↓' if lower_is_better(key) else '↑'}"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]
