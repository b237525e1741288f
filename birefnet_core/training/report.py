"""Sample sheets, curves and the report of a training, drawn with Pillow, which is a requirement already."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ..errors import ConfigError
from ..files import atomic_path
from ..images import png_software, to_bytes
from ..masks import compare_masks
from ..text import drawable
from .data.folders import EXAMPLES
from .recipe import DEFAULT_BACKBONE, SCORES, Recipe
from .validation import THUMBNAIL, Thumbnail

INK, PAPER, GRID = (40, 40, 40), (255, 255, 255), (225, 225, 225)
COLOURS = (
    (31, 119, 180), (214, 39, 40), (44, 160, 44), (255, 127, 14),
    (148, 103, 189), (140, 86, 75), (23, 190, 207), (127, 127, 127),
)  # fmt: skip

Curve = Sequence[tuple[float, float]]  # x and y of its points

_GAP, _TOP = 6, 18  # pixels between tiles, and for a line of text
_MARK = "birefnet_core training"  # the PNG text "Software" of what is drawn; that of masks is another
_PLOT, _MARGIN = (560, 300), (64, 30, 16, 34)  # width and height; left, top, right, bottom


def sample_sheet(thumbnails: Sequence[Thumbnail]) -> Image.Image:
    """One row for each sample: image, mask, prediction, errors in the colours of ``compare_masks``."""
    columns = ("image", "mask", "prediction", "errors (blue: missed, red: false)")
    heights = [_TOP + row.mask.shape[0] + _GAP for row in thumbnails]
    width = len(columns) * (THUMBNAIL + _GAP) + _GAP
    sheet = Image.new("RGB", (width, _TOP + sum(heights) + _GAP), PAPER)
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(), _TOP
    for column, title in enumerate(columns):
        draw.text((_GAP + column * (THUMBNAIL + _GAP), 3), title, fill=INK, font=font)
    for row, height in zip(thumbnails, heights, strict=True):
        draw.text((_GAP, top + 2), drawable(row.name), fill=INK, font=font)
        errors = compare_masks(row.prediction[None], row.mask[None])[0]  # h w 3
        for column, tile in enumerate((row.image, row.mask, row.prediction, errors)):
            sheet.paste(Image.fromarray(to_bytes(tile)), (_GAP + column * (THUMBNAIL + _GAP), top + _TOP))
        top += height
    return sheet


def plot(title: str, curves: Mapping[str, Curve], x_label: str) -> Image.Image:
    """Draws curves on common axes.

    Args:
        title: Of the plot.
        curves: Points by name.
        x_label: Of the horizontal axis.
    """
    width, height = _PLOT
    left, top, right, bottom = _MARGIN
    image = Image.new("RGB", _PLOT, PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default()
    points = [(x, y) for curve in curves.values() for x, y in curve if math.isfinite(y)] or [(0.0, 0.0)]
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points))
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    for x in x_ticks:
        column, row = place(x, y_ticks[0])
        draw.line([(column, row), place(x, y_ticks[-1])], fill=GRID)
        label = f"{x:g}"
        length = draw.textlength(label, font=font)
        draw.text((min(column - length / 2, width - length - 2), row + 4), label, fill=INK, font=font)
    for y in y_ticks:
        column, row = place(x_ticks[0], y)
        draw.line([(column, row), place(x_ticks[-1], y)], fill=GRID)
        draw.text((6, row - 6), f"{y:g}", fill=INK, font=font)
    for (_, curve), colour in zip(curves.items(), _cycle(len(curves)), strict=True):
        line = [place(x, y) for x, y in curve if math.isfinite(y)]
        if len(line) > 1:
            draw.line(line, fill=colour, width=2)
        for x, y in line if len(line) < 40 else ():
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
    draw.text((left, 8), title, fill=INK, font=font)
    draw.text((width - right - 40, height - 14), x_label, fill=INK, font=font)
    _legend(draw, list(curves), width - right, font)
    return image


def _legend(draw: ImageDraw.ImageDraw, names: list[str], right: float, font: Any) -> None:
    for name, colour in reversed(list(zip(names, _cycle(len(names)), strict=True))):
        right -= draw.textlength(name, font=font)
        draw.text((right, 8), name, fill=INK, font=font)
        right -= 14
        draw.rectangle((right, 11, right + 9, 17), fill=colour)
        right -= 10


def _cycle(count: int) -> list[tuple[int, int, int]]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``."""
    if high - low <= 1e-9 * abs(high):
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def curves(rows: Sequence[Mapping[str, Any]]) -> Image.Image:
    """The loss, its terms, the scores and the learning rate of a training, from the lines of metrics.jsonl."""
    steps = [row for row in rows if row["kind"] == "step"]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    scores = [row for row in rows if row["kind"] == "validation"]
    terms = sorted({term for row in epochs for term in row["terms"]})
    panels = [
        plot(
            "loss",
            {"step": _curve(steps, "loss", "step"), "epoch mean": _curve(epochs, "loss", "step")},
            "step",
        ),
        plot("weighted terms", {t: _curve([{**r, **r["terms"]} for r in epochs], t, "epoch") for t in terms}, "epoch"),
        plot("validation", {key: _curve(scores, key, "epoch") for key in SCORES}, "epoch"),
        plot("learning rate", {"lr": _curve(steps, "lr", "step")}, "step"),
    ]
    width, height = _PLOT
    image = Image.new("RGB", (2 * width, 2 * height), PAPER)
    for i, panel in enumerate(panels):
        image.paste(panel, (i % 2 * width, i // 2 * height))
    return image


def _curve(rows: Sequence[Mapping[str, Any]], key: str, x: str) -> Curve:
    return [(row[x], row[key]) for row in rows if row.get(key) is not None]


def save_png(image: Image.Image, path: Path) -> None:
    """Writes a PNG atomically, marked as drawn by a training."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = PngInfo()
    mark.add_text("Software", _MARK)
    with atomic_path(path) as part:
        image.save(part, format="PNG", pnginfo=mark)


def is_drawn(path: Path) -> bool:
    """Whether ``save_png`` wrote a file."""
    return png_software(path) == _MARK


def check_report(text: Path, plot: Path, title: str) -> None:
    """Checks that what a report of several trainings would replace is such a report, which is written before its plot.

    Args:
        text: Its place.
        plot: That of its plot.
        title: Its first line; its last one shows the plot.

    Raises:
        ConfigError: There is another file.
    """
    there = [path for path in (text, plot) if os.path.lexists(path)]
    lines = _lines(text)
    if there and not (lines[:1] == [title] and lines[-1].endswith(f"]({plot.name})")):
        raise ConfigError(
            f"{there[0]} would be replaced, and is of no such report ({text.name} that begins with {title!r} and ends "
            f"with the plot {plot.name}). Give --out another folder, or move what is there."
        )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return []


def report(
    recipe: Recipe, preflight: str, rows: Sequence[Mapping[str, Any]], *, sheet: str | None, seconds: float
) -> str:
    """The report in Markdown.

    Args:
        recipe: Of the training.
        preflight: Report of the validation of the data.
        rows: Lines of metrics.jsonl.
        sheet: Name of the last sample sheet, or None.
        seconds: Duration since the training was last started.
    """
    scores = [row for row in rows if row["kind"] == "validation"]
    steps = max((row["step"] for row in rows), default=0)
    start = recipe.init or f"a new {recipe.backbone or DEFAULT_BACKBONE} network"
    lines = [
        "# Training report", "",
        f"Recipe `{recipe.name}` from {start}: {recipe.epochs} epochs, {steps} steps, {recipe.size[0]} x "
        f"{recipe.size[1]} pixels, batch {recipe.batch_size} x {recipe.accumulate}, {seconds:.0f} s since it was "
        "last started.",
        "", "## Data", "", "```", preflight, "```", "", f"![what is the object, and what is not]({EXAMPLES})", "",
        "## Scores on the validation images", "",
    ]  # fmt: skip
    lines += _score_table(scores, recipe.best) if scores else ["There are none: give `--val-data`, or more pairs."]
    lines += ["", "![curves](curves.png)", ""]
    if sheet:
        lines += [f"![samples]({sheet})", ""]
    adapter = ", `best_adapter.safetensors` (the adapter alone)" if recipe.train == "lora" else ""
    lines += [
        "## Files", "",
        f"`best.safetensors` (the network for use){adapter}, `last.pt` (to go on with `--resume`), `metrics.jsonl`, "
        "`recipe.toml`.", "",
        "```", "python -m birefnet_core segment photo.jpg -o masks --model best.safetensors", "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def best_row(scores: Sequence[Mapping[str, Any]], key: str) -> Mapping[str, Any] | None:
    """The best of the lines of validations by a score; None where there are none."""
    finite = [row for row in scores if row[key] is not None] or list(scores)
    pick = min if key == "MAE" else max
    return pick(finite, key=lambda row: row[key] or 0.0) if finite else None


def _score_table(scores: Sequence[Mapping[str, Any]], best_key: str) -> list[str]:
    best = best_row(scores, best_key) or scores[0]
    named = {"first": scores[0], f"best (by {best_key})": best, "last": scores[-1]}
    lines = ["| | epoch | " + " | ".join(SCORES) + " |", "|---|---" + "|---" * len(SCORES) + "|"]
    for name, row in named.items():
        cells = " | ".join("-" if row[key] is None else f"{row[key]:.4f}" for key in SCORES)
        lines.append(f"| {name} | {row['epoch']} | {cells} |")
    if best is scores[0] and len(scores) > 1:
        advice = "lower the learning rate, or check the sample sheets."
        lines += ["", f"No later epoch was better than the first row: {advice}"]
    return lines
