"""Several trainings in one report: what their recipes differ in, their scores, their curves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import file_identity, stream_conflict
from ..text import drawable, printable
from .recipe import PRACTICAL, SCORES, from_values, load_recipe
from .report import best_row, check_report, plot, save_png
from .run_folder import RunFolder, write_errors_as_training_error

REPORT, CURVES, TITLE = "comparison.md", "comparison.png", "# Trainings compared"
_MOST_DIFFERENCES = 12  # columns that a table can have


def compare_runs(folders: Sequence[str | Path], out: str | Path | None = None) -> str:
    """Compares trainings, finished or not.

    Args:
        folders: Of the runs.
        out: Where ``comparison.md`` and ``comparison.png`` are written; None for nowhere.

    Returns:
        The report in Markdown.

    Raises:
        ConfigError: Less than two folders, one that holds no training, or a report that cannot be written or would
            replace what is read.
    """
    runs = [RunFolder(folder) for folder in folders]
    if len(runs) < 2:
        raise ConfigError("a comparison takes at least two folders of trainings.")
    for run in runs:
        if not os.path.isfile(run.recipe) or not os.path.isfile(run.metrics):
            raise ConfigError(f"{run.path}: no training in it (recipe.toml and metrics.jsonl).")
    if out is not None:
        _check_outputs(RunFolder(out), runs)
    names = _short_names([run.path for run in runs])
    recipes = [_recipe(run) for run in runs]
    rows = [run.rows() for run in runs]
    text = _report(names, recipes, rows)
    if out is not None:
        target = RunFolder(out)
        target.make()
        with write_errors_as_training_error(target):
            target.write_text(REPORT, f"{text}\n![scores]({CURVES})\n")
            save_png(_curves(names, rows, str(recipes[0]["best"])), target.path / CURVES)
    return text


def _check_outputs(target: RunFolder, runs: Sequence[RunFolder]) -> None:
    read = {file_identity(path): path for run in runs for path in (run.recipe, run.metrics)}
    for path in (target.path / REPORT, target.path / CURVES):
        if os.path.isdir(path):
            raise ConfigError(f"{path}: is a folder, expected a file's place. Give --out another folder.")
        if (conflict := stream_conflict(path)) is not None:
            raise ConfigError(f"{conflict}.")
        if (identity := file_identity(path)) is not None and identity in read:
            raise ConfigError(f"{path} is {read[identity]}, which is compared. Give --out another folder.")
    check_report(target.path / REPORT, target.path / CURVES, TITLE)


def _recipe(run: RunFolder) -> dict[str, Any]:
    values = load_recipe(run.recipe)
    try:
        return from_values(values).to_flat()
    except ConfigError as error:
        raise ConfigError(f"{run.recipe}: {error}") from error


def _report(names: Sequence[str], recipes: Sequence[Mapping[str, Any]], rows: Sequence[list[dict[str, Any]]]) -> str:
    fields = [
        field for field in dict.fromkeys(field for recipe in recipes for field in recipe)
        if field not in (*PRACTICAL, "name") and len({repr(recipe.get(field)) for recipe in recipes}) > 1
    ][:_MOST_DIFFERENCES]  # fmt: skip
    fields += ["name"] if len({recipe["name"] for recipe in recipes}) > 1 else []
    head = ["run", *fields, "steps", "loss", "best epoch", *SCORES]
    lines = [TITLE, "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, recipe, run in zip(names, recipes, rows, strict=True):
        best = best_row([row for row in run if row["kind"] == "validation"], recipe["best"])
        losses = [row["loss"] for row in run if row["kind"] == "epoch" and row["loss"] is not None]
        cells = [_cell(name), *(_cell(recipe.get(field)) for field in fields)]
        cells += [str(max((row["step"] for row in run), default=0))]
        cells += [f"{losses[-1]:.4g}" if losses else "-", str(best["epoch"]) if best else "-"]
        cells += [f"{best[key]:.4f}" if best and best[key] is not None else "-" for key in SCORES]
        lines.append(f"| {' | '.join(cells)} |")
    chosen = ", ".join(sorted({recipe["best"] for recipe in recipes}))
    return "\n".join([*lines, "", f"Scores of the best epoch by {chosen}; each run on its own validation images.", ""])


def _curves(names: Sequence[str], rows: Sequence[list[dict[str, Any]]], best: str) -> Any:
    names = [drawable(name) for name in names]
    short = [name[-24:] for name in names]
    if len(set(short)) < len(short):
        short = [f"{number}. {name[-20:]}" for number, name in enumerate(names, start=1)]
    curves = {
        name: [(row["epoch"], row[best]) for row in run if row["kind"] == "validation" and row[best] is not None]
        for name, run in zip(short, rows, strict=True)
    }
    return plot(f"{best}", curves, "epoch")


def _cell(value: Any) -> str:
    return printable(value).replace("|", "\\|") if value not in (None, "", ()) else "-"


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Names of the folders; with their parents where they are not different."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
