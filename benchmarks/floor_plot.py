"""Draws the table of benchmarks/network.md: the network's time over that of its multiplications alone.

    python benchmarks/floor_plot.py [--table benchmarks/network.md] [--out docs/images/floor.png]
"""

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLOURS = {"plain": "#b9c0c9", "prepared": "#2f6f9f"}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a Markdown file's network table, by column; in processor seconds where those were taken."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    table = [dict(zip(cells[0], row, strict=True)) for row in cells[2:] if len(row) == len(cells[0])]
    return list({(row["variant"], row["size"]): row for row in table}.values())  # the last row of each: the processor's


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
    for i, row in enumerate(rows):
        unit = " of the processor" if row["clock"] == "processor" else ""
        for offset, form in ((0.2, "prepared"), (-0.2, "plain")):
            share = float(row[f"{form} s"]) / float(row["floor s"])
            axes.barh(i + offset, share, height=0.36, color=COLOURS[form], label=form if i == 0 else None)
            axes.text(share + 0.04, i + offset, f"{share:.2f}  ({row[f'{form} s']} s{unit})", va="center", fontsize=9)
    axes.axvline(1, color="black", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [f"{row['variant']}, {row['size']} x {row['size']}" for row in rows])
    axes.set_xlim(0, axes.get_xlim()[1] * 1.45)
    axes.set_xlabel("time over that of the multiplications alone (dashed: 1)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper right", ncols=2)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
