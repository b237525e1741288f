"""Dataset validation before training: every file is decoded once, which also finds truncated ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image

from ...errors import DatasetError
from ...text import enumerate_names, first_line
from ..distributed import SINGLE_PROCESS, Ranks
from .folders import FoundPairs, Pair
from .reading import READ_ERRORS, check_shapes, read_cutout, read_label

MOST_NAMES, MOST_PROBLEMS = 5, 20  # in a message
SOFT_LOW, SOFT_HIGH = 0.05, 0.95  # values between are neither object nor background
BINARY_FRACTION = 1e-4  # fraction of soft pixels below which a mask is binary
_DRAFT_SIDE = 256  # pixels; JPEGs are decoded no larger than needed for this

Progress = Callable[[int, int], None]  # files validated, files in all


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairReport:
    """Validation of one pair.

    Attributes:
        pair: The pair.
        size: Width and height of the image; None where it cannot be read.
        problem: Why the pair cannot be used; None if it can.
        area: Mean of the mask.
        border: Mean of the mask's outermost pixels.
        soft: Fraction of its pixels that are neither object nor background.
        labels: Whether it holds labels instead of grey levels.
        rescaled: Whether it is of another scale than the image.
    """

    pair: Pair
    size: tuple[int, int] | None = None
    problem: str | None = None
    area: float = 0.0
    border: float = 0.0
    soft: float = 0.0
    labels: bool = False
    rescaled: bool = False

    @property
    def inverted(self) -> bool:
        """Whether background and object seem to be exchanged: bright border, dark centre."""
        return self.border > 0.9 and self.area < 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """Validation of a data set.

    Attributes:
        pairs: One report for each pair, in order.
        problems: What stops a training.
        warnings: What does not, but is worth knowing.
    """

    pairs: tuple[PairReport, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def usable(self) -> tuple[Pair, ...]:
        """The pairs without problem."""
        return tuple(report.pair for report in self.pairs if report.problem is None)

    def text(self) -> str:
        """The report, one line for each finding."""
        lines = [f"{len(self.usable)} of {len(self.pairs)} pairs can be used"]
        sizes = sorted((report.size for report in self.pairs if report.size), key=lambda size: size[0] * size[1])
        if sizes:
            smallest, median, largest = (f"{w} x {h}" for w, h in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
            areas = [report.area for report in self.pairs if report.problem is None] or [0.0]
            lines.append(f"image sizes: smallest {smallest}, median {median}, largest {largest}")
            lines.append(f"the object covers {sum(areas) / len(areas):.0%} of an image on average")
        lines += [f"warning: {warning}" for warning in self.warnings]
        lines += [f"problem: {problem}" for problem in self.problems]
        return "\n".join(lines)

    def check(self, *, skip_bad: bool = False) -> tuple[Pair, ...]:
        """The pairs to use.

        Raises:
            DatasetError: Pairs that cannot be used, unless they are to be skipped; or nothing left.
        """
        listed = "\n  ".join(self.problems[:MOST_PROBLEMS])
        if self.problems and not skip_bad:
            raise DatasetError(
                f"{len(self.problems)} of {len(self.pairs)} pairs cannot be used:\n  {listed}\n"
                f"Fix them, or leave them out with --skip-bad ({len(self.usable)} pairs would remain)."
            )
        if not self.usable:
            raise DatasetError(f"none of the pairs can be used:\n  {listed}")
        if all(report.area == 0 for report in self.pairs if report.problem is None):
            raise DatasetError("every mask is empty: nothing could be learned. White (255) is the object.")
        return self.usable


def validate_dataset(
    found: FoundPairs,
    *,
    matting: bool = False,
    threads: int = 4,
    ranks: Ranks = SINGLE_PROCESS,
    progress: Progress | None = None,
) -> DatasetReport:
    """Validates every pair. Each process decodes a part of the files; all get the whole report.

    Args:
        found: The pairs, the same in every process.
        matting: Whether the network is for matting, so that masks should be soft.
        threads: Files decoded at a time.
        ranks: The processes.
        progress: Called after each pair of this process.

    Raises:
        Exception: Whatever ended the validation in another process.
    """
    mine = found.pairs[ranks.rank :: ranks.world_size]
    reports: list[PairReport] = []
    with ThreadPoolExecutor(threads) as pool:
        for report in pool.map(validate_pair, mine):
            reports.append(report)
            ranks.raise_failure()
            if progress:
                progress(len(reports), len(mine))
    parts = ranks.all_gather_object(reports)
    ordered = [parts[i % ranks.world_size][i // ranks.world_size] for i in range(len(found.pairs))]
    problems = tuple(report.problem for report in ordered if report.problem is not None)
    return DatasetReport(pairs=tuple(ordered), problems=problems, warnings=tuple(_warnings(found, ordered, matting)))


def validate_pair(pair: Pair) -> PairReport:
    """Validates one pair; what is wrong with it becomes its problem."""
    try:
        if pair.mask is None:
            values = read_cutout(pair.image)[1]  # H W
            size, labels, rescaled = (values.shape[1], values.shape[0]), False, False
        else:
            size, mask = image_size(pair), read_label(pair.mask)
            values, labels = torch.from_numpy(mask.values), mask.has_labels  # h w
            check_shapes(values.shape, size[::-1], pair)
            rescaled = tuple(values.shape) != size[::-1]
    except DatasetError as error:
        return PairReport(pair=pair, problem=str(error))
    return PairReport(
        pair=pair, size=size, labels=labels, rescaled=rescaled, area=values.mean().item(),
        border=torch.cat([values[0], values[-1], values[:, 0], values[:, -1]]).mean().item(),
        soft=((values > SOFT_LOW) & (values < SOFT_HIGH)).float().mean().item(),
    )  # fmt: skip


def image_size(pair: Pair) -> tuple[int, int]:
    """Width and height of the image as people see it, after decoding it.

    Raises:
        DatasetError: Not readable.
    """
    try:
        with Image.open(pair.image) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF orientations with the sides exchanged
            image.draft(None, (_DRAFT_SIDE, _DRAFT_SIDE))
            image.load()
    except READ_ERRORS as error:
        raise DatasetError(f"{pair.image}: the image cannot be read ({first_line(error)}).") from error
    return (height, width) if turned else (width, height)


def _warnings(found: FoundPairs, reports: Sequence[PairReport], matting: bool) -> list[str]:
    good = [report for report in reports if report.problem is None]
    kinds = (
        ("images have no mask and are left out", [p.name for p in found.unpaired_images]),
        ("masks have no image and are left out", [p.name for p in found.unpaired_masks]),
        ("masks are empty", [r.pair.name for r in good if r.area == 0]),
        ("masks are full", [r.pair.name for r in good if r.area == 1]),
        ("masks look inverted (bright border, dark centre); white is the object",
         [r.pair.name for r in good if r.inverted]),
        ("masks hold labels instead of 0 and 255; every label but 0 is taken as the object",
         [r.pair.name for r in good if r.labels]),
        ("masks are of another scale than their image and are resized", [r.pair.name for r in good if r.rescaled]),
    )  # fmt: skip
    lines = [f"{len(names)} {kind} ({enumerate_names(names, MOST_NAMES)})" for kind, names in kinds if names]
    if matting and good and all(report.soft < BINARY_FRACTION for report in good):
        lines.append(
            "all masks are binary, but this is a matting network: it will unlearn soft edges. Train on alpha mattes, "
            "or start from a network for segmentation."
        )
    if len(good) == 1:
        lines.append("there is only one pair: the network will overfit it, and nothing can be held out for validation")
    return lines
