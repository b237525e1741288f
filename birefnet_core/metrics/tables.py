"""Results as Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..text import printable
from .evaluate import SetResult
from .protocol import KEYS, MATTING_KEYS, lower_is_better
from .published import paper_columns, paper_name, paper_rows, task_of

_FORMATS = {"HCE": ".0f", "MSE": ".4f", "alphaMSE": ".4f"}  # all others have three digits, as in the paper


def markdown_table(results: Sequence[SetResult], *, paper: str = "birefnet") -> str:
    """One Markdown table for each task, columns in the order of the paper's table for it (Tab. 4, 5 or 6).

    Sets the paper does not know get the columns of Tab. 4. Scores the paper's table lacks stand to the right of it.

    Args:
        paper: Whose published figures are shown beside measured ones: "birefnet", "all" or "none".
    """
    tasks = dict.fromkeys(task_of(result.set_name) or "DIS" for result in results)
    tables = []
    for task in tasks:
        rows = _rows([result for result in results if (task_of(result.set_name) or "DIS") == task], paper)
        measured = {key for _, _, scores in rows for key in scores}
        columns = [key for key in dict.fromkeys((*paper_columns(task), *KEYS, *MATTING_KEYS)) if key in measured]
        head = ["Set", "Method", *(f"{key} {'↓' if lower_is_better(key) else '↑'}" for key in columns)]
        body = [[name, method, *(_number(key, scores.get(key)) for key in columns)] for name, method, scores in rows]
        tables.append(_markdown([head, *body]))
    return "\n\n".join(tables)


def write_json(results: Sequence[SetResult], path: Path) -> None:
    """Everything but the curves; undefined scores are null.

    With one method and one set its scores also stand at the top level, by their keys.
    """
    document: dict[str, Any] = dict(results[0].scores) if len(results) == 1 else {}
    document["results"] = [
        {
            "method": result.method,
            "set": result.set_name,
            "count": len(result.images),
            "scores": result.scores,
            "images": result.images,
            "notes": result.notes,
            "failures": result.failures,
            "missing": result.missing,
            "extra": result.extra,
        }
        for result in results
    ]
    text = json.dumps(_defined(document), indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # of names that are not UTF-8


def write_csv(results: Sequence[SetResult], path: Path) -> None:
    """One line per method and set, all digits."""
    lines = ([result.method, result.set_name, len(result.images), *result.scores.values()] for result in results)
    _write_csv(path, ["method", "set", "count", *results[0].scores], lines)


def write_image_csv(results: Sequence[SetResult], path: Path) -> None:
    """One line per method, set and image, all digits."""
    lines = (
        [result.method, result.set_name, stem, *scores.values()]
        for result in results
        for stem, scores in result.images.items()
    )
    _write_csv(path, ["method", "set", "image", *results[0].scores], lines)


def worst_images(result: SetResult, count: int, key: str) -> list[tuple[str, float]]:
    """The images with the worst scores, worst first; undefined scores are left out."""
    scores = [(stem, scores[key]) for stem, scores in result.images.items() if not math.isnan(scores[key])]
    return sorted(scores, key=lambda pair: pair[1], reverse=lower_is_better(key))[:count]


def _rows(results: Sequence[SetResult], paper: str) -> list[tuple[str, str, dict[str, float]]]:
    """(set, method, scores): the methods of each set, then the paper's."""
    rows = []
    for name in dict.fromkeys(result.set_name for result in results):
        rows += [(name, result.method, result.scores) for result in results if result.set_name == name]
        if paper != "none" and paper_name(name):
            published = paper_rows(name, ours_only=paper != "all")
            rows += [(name, f"{method}, paper", scores) for method, scores in published.items()]
    return rows


def _number(key: str, score: float | None) -> str:
    return "-" if score is None or math.isnan(score) else format(score, _FORMATS.get(key, ".3f"))


def _markdown(rows: list[list[str]]) -> str:
    """Cells padded, so that the text reads as a table too; the first two columns are words, the others numbers."""
    rows = [[printable(cell).replace("|", "\\|") for cell in cells] for cells in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for cells in rows:
        padded = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(padded)} |")
    rule = ["-" * width if index < 2 else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    lines.insert(1, f"| {' | '.join(rule)} |")
    return "\n".join(lines)


def _write_csv(path: Path, head: list[str], lines: Iterable[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(lines)


def _defined(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _defined(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
