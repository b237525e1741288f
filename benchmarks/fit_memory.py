"""The CPU's rows of ``birefnet_core/inference/memory.py`` from what was measured.

    python benchmarks/fit_memory.py [--held benchmarks/sizes.md]

For each encoder and precision a line, MiB whatever the size and bytes for each pixel, with the least relative error at
the worst of the sizes. Printed with that error in percent.
"""

import argparse
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def rows(path: Path, column: str) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(variant, precision) -> (pixels, MiB) of every size, from all tables of a page that have the column."""
    found, names = defaultdict(list), []
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if "variant" in cells:
            names = cells
        elif line.startswith("|") and column in names and not line.startswith("|--"):
            row = dict(zip(names, cells, strict=True))
            if row.get("batch", "1") == "1":
                found[row["variant"], row["precision"]].append((int(row["size"]) ** 2, float(row[column])))
    return found


def fit(points: list[tuple[int, float]]) -> tuple[int, int, float]:
    """MiB and bytes per pixel of the line, and its largest relative error."""
    best = 0, 0, float("inf")
    for fixed in range(int(min(mib for _, mib in points)) + 1):
        slopes = [(mib - fixed) * 2**20 / pixels for pixels, mib in points]
        for slope in range(int(min(slopes)), int(max(slopes)) + 2):
            off = max(abs((fixed + pixels * slope / 2**20) / mib - 1) for pixels, mib in points)
            best = min(best, (fixed, slope, off), key=lambda line: line[2])
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held", type=Path, default=ROOT / "benchmarks" / "sizes.md")
    args = parser.parse_args()
    for (variant, precision), points in sorted(rows(args.held, "held MB").items()):
        fixed, slope, off = fit(points)
        print(f'("{variant}", "{precision}"): ({fixed}, {slope}),  # {off:.0%} of {len(points)}')


if __name__ == "__main__":
    main()
