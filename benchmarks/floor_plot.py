"""Draws the table of benchmarks/network.md: the network's time over that of its multiplications alone.

python benchmarks/floor_plot.py [--table benchmarks/network.md] [--out docs/images/floor.png]
"""

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLOURS = {"plain": "#b9c0c9", "fused": "#2f6f9f"}


def read_rows(path: Path) -> dict[tuple[str, str], dict[str, dict[str, str]]]:
    """The rows of a Markdown file's network tables, by variant and size, and by form; of equal ones the first."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    # The names of the columns: both clocks have one "of plain" and one "of floor".
    names = ["variant", "size", "form", "wall", "", "", "processor", "", "of floor"]
    rows: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    lines_of_table = (line for line in cells if len(line) == len(cells[0]) and line[1].isdigit())
    for row in (dict(zip(names, line, strict=False)) for line in lines_of_table):
        rows.setdefault((row["variant"], row["size"]), {}).setdefault(row["form"], row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks" / "network.md")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "floor.png")
    args = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = read_rows(args.table)
    figure, axes = pyplot.subplots(figsize=(7, 1.4 + 0.7 * len(rows)), layout="constrained")
    for i, forms in enumerate(rows.values()):
        for offset, form in ((0.2, "fused"), (-0.2, "plain")):
            if form not in forms:
                continue
            factor, seconds = float(forms[form]["of floor"]), forms[form]["processor"]
            axes.barh(i + offset, factor, height=0.36, color=COLOURS[form], label=form if i == 0 else None)
            axes.text(factor + 0.04, i + offset, f"{factor:.2f}  ({seconds} s)", va="center", fontsize=9)
    axes.axvline(1, color="black", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [f"{variant}, {size} x {size}" for variant, size in rows])
    axes.set_xlim(0, axes.get_xlim()[1] * 1.45)
    axes.set_xlabel("processor seconds over those of the multiplications alone (dashed: 1)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper right", ncols=2)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
