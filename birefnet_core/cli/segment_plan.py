"""What ``birefnet segment`` reads and writes, found before any work begins."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigError
from ..files import stream_conflict
from ..image_formats import OPTIONAL_READERS, image_suffixes
from ..images import find_images, is_own_output
from ..text import printable
from .outputs import Inputs, Outputs, exists, model_files


@dataclasses.dataclass(frozen=True)
class Job:
    """One image and what is written of it.

    Attributes:
        source: The image.
        mask: Its mask's file.
        cutout: Its cut-out's file; None for no cut-out.
        notes: What reading the image brought to light.
        replaced: Empty files and broken links that were there before, and are replaced.
        kept: Files that were there before, and stay.
    """

    source: Path
    mask: Path
    cutout: Path | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    replaced: set[Path] = dataclasses.field(default_factory=set)
    kept: set[Path] = dataclasses.field(default_factory=set)

    @property
    def outputs(self) -> dict[str, Path]:
        return {"mask": self.mask} if self.cutout is None else {"mask": self.mask, "cut-out": self.cutout}


@dataclasses.dataclass
class Plan:
    """Everything to be done.

    Attributes:
        jobs: In the order of the inputs.
        folder: Folder of the outputs.
        single: The mask's file, where one was named.
        failures: Images that cannot be segmented, each with the reason.
        passed: How many files of each unknown ending there are in folders.
        empty: Sentences on folders without an image, which other inputs would hide.
    """

    jobs: list[Job] = dataclasses.field(default_factory=list)
    folder: Path = Path()
    single: Path | None = None
    failures: list[str] = dataclasses.field(default_factory=list)
    passed: Counter[str] = dataclasses.field(default_factory=Counter)
    empty: list[str] = dataclasses.field(default_factory=list)

    def notes(self) -> list[str]:
        """A sentence on the files that were passed over."""
        if not self.passed:
            return []
        count = sum(self.passed.values())
        listed = ", ".join(f"{suffix} ({n})" for suffix, n in sorted(self.passed.items()))
        packages = {OPTIONAL_READERS[suffix] for suffix in self.passed if suffix in OPTIONAL_READERS}
        hint = "".join(f"; pip install {package} to read the like" for package in sorted(packages))
        return [f"{count} file{'s' if count > 1 else ''} with other endings passed over: {listed}{hint}"]


def make_plan(
    inputs: list[str],
    output: Path,
    *,
    is_folder: bool = False,
    recursive: bool = False,
    cutout: bool = False,
    model: str | None = None,
) -> Plan:
    """Finds the images, and the files of each one's outputs; a folder's layout is kept.

    No output is a file that this run reads, under whatever name or link, or another's output; such images are failures.

    Args:
        inputs: Files, folders and globs.
        output: Folder, or a .png file for a single image.
        is_folder: Whether it is a folder, whatever its ending.
        recursive: Whether to take images in subfolders, too.
        cutout: Whether cut-outs are written.
        model: What the network is loaded from; names of published ones have no files here.

    Raises:
        ConfigError: Nothing to do, or an output that cannot be.
    """
    plan = Plan(single=None if is_folder else _single_file(output))
    plan.folder = output if plan.single is None else output.parent
    found = list(_find(inputs, recursive, None if plan.single else output, plan))
    if not found and not plan.failures:
        passed = "".join(f" ({note})" for note in plan.notes())
        known = ", ".join(sorted(image_suffixes()))
        raise ConfigError(f"no images in {', '.join(map(printable, inputs))}{passed}; known endings are {known}.")
    sources, weights, outputs = Inputs(source for source, _ in found), Inputs(model_files(model)), Outputs()
    planned: set[tuple[tuple[str, str], Path]] = set()
    if plan.single and len({sources.resolve(source) for source, _ in found}) > 1:
        raise ConfigError(f"{printable(output)} is one file, but there are {len(found)} images: give a folder.")
    for source, relative in found:
        mask = plan.single or output / relative.with_suffix(".png")
        if (sources.resolve(source), mask) in planned:  # named twice
            continue
        job = Job(source, mask, mask.with_name(f"{mask.stem}_cutout.png") if cutout else None)
        if reason := _conflict(job, sources, weights, outputs):
            plan.failures.append(f"{source}: {reason}")
            continue
        planned.add((sources.resolve(source), mask))
        for path in job.outputs.values():
            outputs.add(path, str(source))
        plan.jobs.append(job)
    return plan


def _single_file(output: Path) -> Path | None:
    """The mask's file, or None where the output is a folder."""
    name = printable(output)
    if os.path.isdir(output):
        return None
    suffix = output.suffix.lower()
    if suffix == ".png":
        return output
    if suffix in image_suffixes() or suffix in OPTIONAL_READERS:
        raise ConfigError(f"-o {name}: masks are PNG files. Give a name that ends in .png, or a folder.")
    if exists(output) and not os.path.isdir(output):  # by now another run may have made it
        raise ConfigError(f"{name} is a file; -o needs a folder, or for one image a name that ends in .png.")
    return None


def _conflict(job: Job, sources: Inputs, weights: Inputs, outputs: Outputs) -> str | None:
    """Why a job's outputs cannot be written; None where they can."""
    for kind, path in job.outputs.items():
        if path in sources:
            itself = path in Inputs([job.source])
            replaced = "the image itself" if itself else f"another image of this run, {path}"
            return f"the {kind} would replace {replaced}; give another folder"
        if path in weights:
            return f"the {kind} would replace {path}, from which the network is loaded; give another folder"
        if os.path.isdir(path):
            return f"{path} is a folder, expected the place of its {kind}; give another folder, or move it"
        if (conflict := stream_conflict(path)) is not None:
            return conflict
        if (other := outputs.purpose_of(path)) is not None:
            return f"{other} has the same {kind} file {path}; give the images other names, or segment them one by one"
    if set(job.outputs.values()) == {job.mask} and job.cutout is not None:
        return f"mask and cut-out would be the same file {job.mask}"
    return None


def _find(inputs: list[str], recursive: bool, output: Path | None, plan: Plan) -> Iterator[tuple[Path, Path]]:
    """Image files, each with its place relative to the output folder; images in that folder are left out."""
    leave_out = None if output is None else Path(os.path.realpath(output))
    for text in inputs:
        path = Path(text)
        if os.path.isdir(path):
            found = find_images(path, recursive=recursive, leave_out=leave_out)
            plan.passed.update(found.passed)
            plan.failures += found.failures
            if not found.images and not found.failures:
                plan.empty.append(f"{text}: no images in this folder{'' if recursive else ' itself'}")
            yield from ((image, image.relative_to(path)) for image in _photos(found.images, leave_out))
        elif exists(path):
            yield path, Path(path.name)
        elif (matches := _matches(text, leave_out)) is not None:
            yield from ((match, Path(match.name)) for match in _photos(matches, leave_out))
        else:
            plan.failures.append(f"{text}: no such file or folder")


def _photos(images: list[Path], output: Path | None) -> Iterator[Path]:
    """Images without the masks and cut-outs that earlier runs wrote beside them."""
    if output is None:
        yield from images
        return
    inside: dict[Path, bool] = {}  # by folder
    for image in images:
        if image.parent not in inside:
            folder = Path(os.path.realpath(image.parent))
            inside[image.parent] = folder == output or output in folder.parents
        if not (inside[image.parent] and is_own_output(image)):
            yield image


def _matches(pattern: str, leave_out: Path | None) -> list[Path] | None:
    """The files of a glob; None where it has none. Those in an output folder below the glob's are left out."""
    if not glob.has_magic(pattern):
        return None
    path = Path(pattern)
    fixed = next((folder for folder in path.parents if os.path.isdir(folder)), Path())  # its name may have brackets
    above = leave_out is not None and Path(os.path.realpath(fixed)) in leave_out.parents
    found = sorted(glob.glob(os.path.join(glob.escape(str(fixed)), path.relative_to(fixed)), recursive=True))
    matches = [Path(match) for match in found if os.path.isfile(match)]
    return [m for m in matches if not (above and leave_out in Path(os.path.realpath(m)).parents)] if matches else None
