"""Dataset validation before training: every file is decoded once, which also finds truncated ones."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...devices import prepare_threads
from ...errors import DatasetError, ImageError
from ...image_ops import resize
from ...image_reading import opened_image
from ...mask_files import MaskFile, read_mask
from ...mask_values import FLAT
from ...pillow_files import orientation, upright
from ...text import enumerate_names, first_line
from ..distributed import SINGLE_PROCESS, Ranks
from .augment import GREY
from .folders import FoundPairs, Pair
from .reading import check_shapes, read_cutout, read_photo

MOST_NAMES, MOST_PROBLEMS = 5, 20  # in a message
SOFT_LOW, SOFT_HIGH = 0.05, 0.95  # values between are neither object nor background
BINARY_FRACTION = 1e-4  # fraction of soft pixels below which a mask is binary
MOSTLY_SOFT = 0.5  # fraction of soft pixels above which a mask may be a photo or a depth map
_DRAFT_SIDE = 256  # pixels; JPEGs are decoded no larger than needed for this
_THUMBNAIL = (32, 32)  # in which an image is compared with its mask
_SIDES_EXCHANGED = 5  # EXIF orientations from this on
_SAME = 0.03  # greatest difference of two thumbnails of the same pixels
_LEAST_SHOWN = 16  # pixels of a thumbnail in which an object can be recognised

Progress = Callable[[int, int], None]  # files validated, files in all
Item = TypeVar("Item")
Result = TypeVar("Result")


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
        found: The values in the mask's file, in words.
        notes: How they were read: constants of ``mask_values``.
        rescaled: Whether it is of another scale than the image.
        turned: Whether image and mask have different EXIF orientations, and both of them the shape for it.
        image_notes: What was guessed or lost in reading the image.
        content: Identifies the bytes of the image's file, by which a copy of it is found.
    """

    pair: Pair
    size: tuple[int, int] | None = None
    problem: str | None = None
    area: float = 0.0
    border: float = 0.0
    soft: float = 0.0
    found: str = ""
    notes: tuple[str, ...] = ()
    rescaled: bool = False
    turned: bool = False
    image_notes: tuple[str, ...] = ()
    content: bytes = b""

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

    @property
    def contents(self) -> dict[Pair, bytes]:
        """What identifies the image of each pair without problem, wherever it lies."""
        return {report.pair: report.content for report in self.pairs if report.problem is None}

    def text(self) -> str:
        """The report, one line for each finding."""
        lines = [f"{len(self.usable)} of {len(self.pairs)} pairs can be used"]
        sizes = sorted((report.size for report in self.pairs if report.size), key=lambda size: size[0] * size[1])
        if sizes:
            smallest, median, largest = (f"{w} x {h}" for w, h in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
            good = [report for report in self.pairs if report.problem is None]
            areas = [report.area for report in good] or [0.0]
            kinds = Counter(report.found for report in good).most_common()
            lines.append(f"image sizes: smallest {smallest}, median {median}, largest {largest}")
            lines.append(f"values in the masks: {enumerate_names([f'{n} x {kind}' for kind, n in kinds], MOST_NAMES)}")
            lines.append(
                f"the object covers {sum(areas) / len(areas):.0%} of an image on average ({min(areas):.0%} to "
                f"{max(areas):.0%})"
            )
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
        if same := self.same(self.usable):
            raise DatasetError(
                f"every mask is {same}: nothing could be learned. White (255) is the object, black (0) the background."
            )
        return self.usable

    def same(self, pairs: Iterable[Pair]) -> str:
        """ "empty" or "full" where all masks of pairs are, else ""."""
        areas = {report.pair: report.area for report in self.pairs}
        found = {areas[pair] for pair in pairs}
        return "empty" if found == {0.0} else "full" if found == {1.0} else ""


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
        matting: Whether the network is for matting, so that masks should be soft, and flat grey is half transparent.
        threads: Files decoded at a time.
        ranks: The processes.
        progress: Called after each pair of this process.

    Raises:
        Exception: Whatever ended the validation in another process.
    """
    reports = _map_shared(lambda pair: validate_pair(pair, matting=matting), found.pairs, threads, ranks, progress)
    problems = tuple(report.problem for report in reports if report.problem is not None)
    return DatasetReport(pairs=tuple(reports), problems=problems, warnings=tuple(_warnings(found, reports, matting)))


def validate_backgrounds(
    paths: Sequence[Path], *, skip_bad: bool = False, threads: int = 4, ranks: Ranks = SINGLE_PROCESS
) -> tuple[Path, ...]:
    """The backgrounds that can be read.

    Args:
        paths: The files, the same in every process.
        skip_bad: Leave out those that cannot be read, instead of stopping.
        threads: Files decoded at a time.
        ranks: The processes.

    Raises:
        DatasetError: One cannot be read, and is not to be skipped; or nothing left.
    """
    found = _map_shared(_background_problem, paths, threads, ranks, None)
    problems = [problem for problem in found if problem is not None]
    good = tuple(path for path, problem in zip(paths, found, strict=True) if problem is None)
    if problems and (not skip_bad or not good):
        listed = "\n  ".join(problems[:MOST_PROBLEMS])
        raise DatasetError(
            f"{len(problems)} of {len(paths)} backgrounds cannot be used:\n  {listed}\n"
            f"Fix them, or leave them out with --skip-bad ({len(good)} would remain)."
        )
    return good


def _map_shared(
    validate: Callable[[Item], Result], items: Sequence[Item], threads: int, ranks: Ranks, progress: Progress | None
) -> list[Result]:
    """``validate`` of every item, in order. Each process takes a part of them; all get all results."""
    mine = items[ranks.rank :: ranks.world_size]
    results: list[Result] = []
    prepare_threads()
    with ThreadPoolExecutor(threads) as pool:
        for result in pool.map(validate, mine):
            results.append(result)
            ranks.raise_failure()
            if progress:
                progress(len(results), len(mine))
    parts = ranks.all_gather_object(results)
    return [parts[i % ranks.world_size][i // ranks.world_size] for i in range(len(items))]


def validate_pair(pair: Pair, *, matting: bool = False) -> PairReport:
    """Validates one pair; an error becomes the report's problem."""
    try:
        if pair.mask is None:
            mask = read_cutout(pair.image)[1]
            size, turned = (mask.pixels.shape[1], mask.pixels.shape[0]), False
            image_notes: tuple[str, ...] = ()
            values = torch.from_numpy(mask.values)  # h w
        else:
            if pair.mask.samefile(pair.image):
                raise DatasetError(f"{pair.image}: the image is its own mask. Give each image a mask of its own.")
            size, image, image_notes = image_thumbnail(pair.image)
            mask = read_mask(pair.mask)
            values = torch.from_numpy(mask.values)  # h w
            check_shapes(values.shape, size[::-1], pair)
            _check_is_no_copy(values, image, pair)
            turns = {_orientation(pair.image), _orientation(pair.mask)}
            turned = len(turns) > 1 and (size[0] == size[1] or max(turns) < _SIDES_EXCHANGED)
        _check_is_understood(mask, pair, matting)
        content = _content_of(pair.image)
    except OSError as error:  # a file that has gone meanwhile
        return PairReport(pair=pair, problem=f"{pair.image}, {pair.mask}: {first_line(error)}")
    except DatasetError as error:
        return PairReport(pair=pair, problem=str(error))
    return PairReport(
        pair=pair, size=size, found=mask.found, notes=mask.notes,
        rescaled=tuple(values.shape) != size[::-1], area=values.mean().item(),
        border=torch.cat([values[0], values[-1], values[:, 0], values[:, -1]]).mean().item(),
        soft=((values > SOFT_LOW) & (values < SOFT_HIGH)).float().mean().item(), turned=turned,
        image_notes=image_notes, content=content,
    )  # fmt: skip


def image_thumbnail(path: Path) -> tuple[tuple[int, int], Tensor, tuple[str, ...]]:
    """Width and height of an image as people see it, its grey thumbnail and notes on it, after decoding it.

    Raises:
        DatasetError: Not readable.
    """
    try:
        with opened_image(path) as image:
            if image.format in ("JPEG", "MPO"):  # whatever its name is
                width, height = image.size
                image.draft(None, (_DRAFT_SIDE, _DRAFT_SIDE))
                image.load()
                turned = orientation(image)
                grey = torch.from_numpy(upright(np.array(image.convert("L")), turned)).float() / 255
                return ((height, width) if turned >= _SIDES_EXCHANGED else (width, height)), _thumbnail(grey), ()
    except ImageError as error:
        raise DatasetError(str(error)) from error
    file = read_photo(path)  # as training reads it
    height, width = file.colours.shape[:2]
    return (width, height), _thumbnail(file.colours @ torch.tensor(GREY)), file.notes


def _orientation(path: Path) -> int:
    with Image.open(path) as image, contextlib.suppress(MemoryError):
        return orientation(image)
    return 1


def _thumbnail(grey: Tensor) -> Tensor:
    return resize(grey[None, None], _THUMBNAIL, antialias=True)[0, 0]


def _background_problem(path: Path) -> str | None:
    try:
        image_thumbnail(path)
    except DatasetError as error:
        return str(error)
    return None


def _check_is_no_copy(values: Tensor, image: Tensor, pair: Pair) -> None:
    """Checks that a mask is not the image itself in grey, nor its object cut out of it."""
    mask = _thumbnail(values)
    shown = mask > _SAME
    # Near the edge of a cut-out the pixels of its thumbnail are darker than the image's.
    whole = F.avg_pool2d(shown.float()[None, None], 5, stride=1, padding=2, count_include_pad=False)[0, 0] == 1
    cut_out = whole.sum() >= _LEAST_SHOWN and mask[whole].std() > _SAME
    same = (mask - image).abs() < _SAME
    if (mask.std() > _SAME and same.all()) or (cut_out and same[whole].all()):
        raise DatasetError(
            f"{pair.mask}: the mask shows the same as its image {pair.image}: is it a copy? Give each image a mask of "
            "its own."
        )


def _check_is_understood(mask: MaskFile, pair: Pair, matting: bool) -> None:
    """Checks that there is but one way to take a file for a mask."""
    for doubt in mask.doubts:
        if doubt == FLAT and matting:
            continue  # half transparent, as mattes of glass are
        half = ", or train with --matting, if it is half transparent" if doubt == FLAT else ""
        raise DatasetError(
            f"{pair.mask or pair.image}: a mask {doubt} (found {mask.found}). Write the object as 255 (white) and the "
            f"background as 0 (black){half}."
        )


def _content_of(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.digest()


def _repeated(reports: Sequence[PairReport]) -> list[str]:
    names: dict[bytes, list[str]] = {}
    for report in reports:
        names.setdefault(report.content, []).append(report.pair.name)
    return [same[0] for same in names.values() if len(same) > 1]


def _image_notes(reports: Sequence[PairReport]) -> list[str]:
    """A line for each kind of note, in whatever its numbers differ."""
    kinds: dict[str, tuple[str, list[str]]] = {}
    for report in reports:
        for note in report.image_notes:
            kinds.setdefault(re.sub(r"[\d.]+", "0", note), (note, []))[1].append(report.pair.name)
    return [
        f"{len(names)} images are not read as they are; of {names[0]}, {note} ({enumerate_names(names, MOST_NAMES)})"
        for note, names in kinds.values()
    ]


def _warnings(found: FoundPairs, reports: Sequence[PairReport], matting: bool) -> list[str]:
    good = [report for report in reports if report.problem is None]
    kinds = [
        ("images have no mask and are left out", [p.name for p in found.unpaired_images]),
        ("masks have no image and are left out", [p.name for p in found.unpaired_masks]),
        ("masks are empty", [r.pair.name for r in good if r.area == 0]),
        ("masks are full", [r.pair.name for r in good if r.area == 1]),
        ("masks look inverted (bright border, dark centre); white is the object",
         [r.pair.name for r in good if r.inverted]),
        ("masks are grey in more than half of their pixels (photos, or depth maps?)",
         [r.pair.name for r in good if r.soft > MOSTLY_SOFT]),
        ("masks are of another scale than their image and are resized", [r.pair.name for r in good if r.rescaled]),
        ("masks have not the EXIF orientation of their images, which is applied: do they fit?",
         [r.pair.name for r in good if r.turned]),
        ("images are given several times", _repeated(good)),
        ("images are of formats that are not taken, and left out; convert them, to PNG for example",
         [path.name for path in found.others]),
        ("links to folders are not followed", [str(path) for path in found.links]),
    ]  # fmt: skip
    for note in dict.fromkeys(note for report in good for note in report.notes):
        kinds.append((f"masks are {note}", [r.pair.name for r in good if note in r.notes]))
    lines = [f"{len(names)} {kind} ({enumerate_names(names, MOST_NAMES)})" for kind, names in kinds if names]
    lines += _image_notes(good)
    if matting and good and all(report.soft < BINARY_FRACTION for report in good):
        lines.append(
            "all masks are binary, but this is a matting network: it will unlearn soft edges. Train on alpha mattes, "
            "or start from a network for segmentation."
        )
    if len(good) == 1:
        lines.append("there is only one pair: the network will overfit it, and nothing can be held out for validation")
    return lines
