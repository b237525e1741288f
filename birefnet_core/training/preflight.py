"""Looking at the data before anything is trained: what is there, and what will go wrong.

Every file is decoded once, small: that finds truncated ones, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import DatasetError
from .data import Found, Pair
from .reading import check_shapes, read_cutout, read_mask

SHOWN = 5  # names a message lists before it stops
SOFT_LOW, SOFT_HIGH = 0.05, 0.95  # values between are neither object nor background
BINARY_SHARE = 1e-4  # share of soft pixels below which a mask is binary
_DRAFT_SIDE = 256  # pixels; JPEGs are decoded no larger than needed for this

Progress = Callable[[int, int], None]  # files looked at, files in all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What one pair looks like.

    Attributes:
        pair: The pair.
        size: Width and height of the image; None where it cannot be read.
        problem: Why the pair cannot be used; None if it can.
        area: Mean of the mask.
        border: Mean of the mask's outermost pixels.
        soft: Share of its pixels that are neither object nor background.
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
        """Whether the mask looks as if background and object had changed places: bright rim, dark middle."""
        return self.border > 0.9 and self.area < 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preflight:
    """What looking at all data gave.

    Attributes:
        looks: One for each pair, in order.
        problems: What must be put right; a training would stop there.
        warnings: What is worth knowing.
    """

    looks: tuple[Look, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def usable(self) -> tuple[Pair, ...]:
        """The pairs without problem."""
        return tuple(look.pair for look in self.looks if look.problem is None)

    def text(self) -> str:
        """The report, a line for each thing."""
        lines = [f"{len(self.usable)} of {len(self.looks)} pairs can be used"]
        sizes = sorted((look.size for look in self.looks if look.size), key=lambda size: size[0] * size[1])
        if sizes:
            smallest, median, largest = (f"{w} x {h}" for w, h in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
            areas = [look.area for look in self.looks if look.problem is None] or [0.0]
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
        if self.problems and not skip_bad:
            raise DatasetError(
                f"{len(self.problems)} of {len(self.looks)} pairs cannot be used:\n  "
                + "\n  ".join(self.problems[: 4 * SHOWN])
                + f"\nPut them right, or leave them out with --skip-bad ({len(self.usable)} pairs would remain)."
            )
        if not self.usable:
            raise DatasetError("none of the pairs can be used:\n  " + "\n  ".join(self.problems[: 4 * SHOWN]))
        if all(look.area == 0 for look in self.looks if look.problem is None):
            raise DatasetError("every mask is empty: nothing could be learned. White (255) is the object.")
        return self.usable


def preflight(found: Found, *, matting: bool = False, threads: int = 4, progress: Progress | None = None) -> Preflight:
    """Looks at every pair.

    Args:
        found: The pairs.
        matting: Whether training starts from, or makes, a matting network, whose masks should be soft.
        threads: Files decoded at a time.
        progress: Called after each pair.
    """
    looks: list[Look] = []
    with ThreadPoolExecutor(threads) as pool:
        for one in pool.map(look, found.pairs):
            looks.append(one)
            if progress:
                progress(len(looks), len(found.pairs))
    problems = tuple(one.problem for one in looks if one.problem is not None)
    return Preflight(looks=tuple(looks), problems=problems, warnings=tuple(_warnings(found, looks, matting)))


def look(pair: Pair) -> Look:
    """Looks at one pair; what is wrong with it becomes its problem."""
    try:
        if pair.mask is None:
            values = read_cutout(pair.image)[1]
            size, labels, rescaled = (values.shape[1], values.shape[0]), False, False
        else:
            size, mask = image_size(pair), read_mask(pair.mask)
            values, labels = mask.values, mask.labels
            check_shapes(tuple(values.shape), size[::-1], pair)
            rescaled = tuple(values.shape) != size[::-1]
    except DatasetError as error:
        return Look(pair=pair, problem=str(error))
    return Look(
        pair=pair, size=size, labels=labels, rescaled=rescaled, area=values.mean().item(),
        border=_rim(values).mean().item(),
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
    except (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DatasetError(f"{pair.image}: the image cannot be read ({reason}).") from error
    return (height, width) if turned else (width, height)


def _rim(values: Tensor) -> Tensor:
    return torch.cat([values[0], values[-1], values[:, 0], values[:, -1]])


def _warnings(found: Found, looks: Sequence[Look], matting: bool) -> list[str]:
    good = [one for one in looks if one.problem is None]
    kinds = (
        ("images have no mask and are left out", [p.name for p in found.lonely_images]),
        ("masks have no image and are left out", [p.name for p in found.lonely_masks]),
        ("masks are empty", [one.pair.name for one in good if one.area == 0]),
        ("masks are full", [one.pair.name for one in good if one.area == 1]),
        ("masks look inverted (bright rim, dark middle); white is the object",
         [one.pair.name for one in good if one.inverted]),
        ("masks hold labels instead of 0 and 255; every label but 0 is taken as the object",
         [one.pair.name for one in good if one.labels]),
        ("masks are of another scale than their image and are resized",
         [one.pair.name for one in good if one.rescaled]),
    )  # fmt: skip
    lines = [f"{len(names)} {kind} ({enumerate_names(names)})" for kind, names in kinds if names]
    if matting and good and all(one.soft < BINARY_SHARE for one in good):
        lines.append(
            "all masks are binary, but this is a matting network: it will unlearn soft edges. Train on alpha mattes, "
            "or start from a network for segmentation."
        )
    if len(good) == 1:
        lines.append("there is only one pair: the network will know it by heart, and nothing can be held out")
    return lines


def enumerate_names(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
