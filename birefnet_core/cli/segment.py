"""birefnet segment IN... -o OUT

Under torchrun each process segments its part of the images.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

import torch

from ..checkpoints import load_model
from ..devices import DTYPES, choose_device, choose_dtype
from ..errors import ConfigError
from ..files import is_finished, remove_abandoned_parts
from ..image_reading import read_image_file
from ..images import write_image, write_mask
from ..inference import Segmenter
from ..masks import estimate_foreground
from ..text import printable
from ..torchrun import ProcessStore
from .console import Progress, say
from .outputs import exists, means_folder, prepare_folder
from .segment_image import NOT_SEGMENTED, failure_of, segment_image
from .segment_plan import Job, Plan, make_plan

DEFAULT_MODEL = "BiRefNet"
DTYPE_HELP = "precision; auto: fp16 on CUDA GPUs with tensor cores, bf16 on CPUs with AMX, else fp32 (%(default)s)"
_MOST_NOTES = 20  # that are printed; failures are all printed
DESCRIPTION = "Writes a mask NAME.png for each image, and with --cutout a NAME_cutout.png beside it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("inputs", nargs="+", metavar="IN", help="image files, folders, or globs")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder, or for one image a .png file")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name, hub repo id, file or folder (%(default)s)")
    parser.add_argument("--patch-order", default="auto", choices=("auto", "channels_first", "columns_first"))
    parser.add_argument("--size", type=parse_size, metavar="S", help="N, WxH or native; default: the training size")
    parser.add_argument("--cutout", action="store_true", help="also write the subject as RGBA")
    parser.add_argument("--bits", type=int, default=8, choices=(8, 16), help="bits of a mask's pixel (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, xpu (%(default)s)")
    parser.add_argument("--dtype", default="auto", choices=("auto", *DTYPES), help=DTYPE_HELP)
    parser.add_argument("--compile", action="store_true", help="torch.compile: a minute a size, may pay on a GPU")
    parser.add_argument("--recursive", action="store_true", help="also the images in subfolders; not those in OUT")
    parser.add_argument("--resume", action="store_true", help="skip images whose masks are already there")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are already there")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def parse_size(text: str) -> int | tuple[int, int] | str:
    """N, WxH or native."""
    if text == "native":
        return text
    width, cross, height = text.lower().partition("x")
    try:
        return (int(width), int(height)) if cross else int(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected N, WxH or native") from None


@dataclasses.dataclass
class Summary:
    """How many images, or clips, were segmented, and why the others were not."""

    written: int = 0
    there: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    noun: str = "images"

    def report(self, where: str = "") -> int:
        """Prints the summary and returns the exit code.

        Args:
            where: Of the masks.
        """
        for failure in self.failures:
            say(f"not done: {printable(failure)}", error=True)
        for note in self.notes[:_MOST_NOTES]:
            say(f"note: {printable(note)}", error=True)
        if len(self.notes) > _MOST_NOTES:
            say(f"note: {len(self.notes) - _MOST_NOTES} more such notes", error=True)
        done = self.written + self.there
        there = f" ({self.there} of them before)" if self.there else ""
        where = f": {where}" if done and where else ""
        say(f"{done} of {done + len(self.failures)} {self.noun} segmented{there}{where}")
        return 1 if self.failures else 0


def check_names(args: argparse.Namespace) -> None:
    """Refuses empty names, which would stand for the working folder, and ``-``.

    Raises:
        ConfigError: There is one.
    """
    if not args.output:
        raise ConfigError("-o is empty: give a folder, or the name of a file.")
    if args.output == "-":
        raise ConfigError(
            "-o -: nothing is written to standard output; give a folder or a file (./- is a folder named -)."
        )
    if "" in args.inputs:
        raise ConfigError("the name of an input is empty: give files or folders.")


def run(args: argparse.Namespace) -> int:
    """Segments the images; those that cannot be are reported at the end, and the others are done."""
    check_names(args)
    with ProcessStore() as processes:
        plan = make_plan(
            args.inputs,
            Path(args.output),
            is_folder=means_folder(args.output),
            recursive=args.recursive,
            cutout=args.cutout,
            model=args.model,
        )
        processes.all_gather("planned")  # what one process writes is no input of another that lists files later
        summary = Summary()
        if processes.rank == 0:  # the first reports what concerns all of them
            summary.failures += plan.failures
            summary.notes += [*plan.notes(), *plan.empty]
        where = printable(os.path.abspath(plan.single or plan.folder))
        try:
            _segment_all(_jobs_of(plan, args, processes, summary), args, processes, summary)
        except KeyboardInterrupt:
            summary.report(where)
            say("interrupted; the same command with --resume does the rest", error=True)
            raise
        summaries = [Summary(**entry) for entry in processes.all_gather("summary", dataclasses.asdict(summary))]
        summary = Summary(
            sum(one.written for one in summaries),
            sum(one.there for one in summaries),
            [failure for one in summaries for failure in one.failures],
            [note for one in summaries for note in one.notes],
        )
        code = summary.report(where) if processes.rank == 0 else int(bool(summary.failures))
        processes.all_gather("reported")
        return code


def _jobs_of(plan: Plan, args: argparse.Namespace, processes: ProcessStore, summary: Summary) -> list[Job]:
    """The part of the jobs that this process does; each image is segmented by one process."""
    jobs = plan.jobs[processes.rank :: processes.world_size]
    jobs = [job for job in jobs if args.overwrite or _is_free(job, args, summary)]
    if jobs:
        prepare_folder(plan.folder, "-o")
    return [job for job in jobs if _has_names(job, plan.folder, summary)]


def _segment_all(jobs: list[Job], args: argparse.Namespace, processes: ProcessStore, summary: Summary) -> None:
    if not jobs:
        return
    device = choose_device(args.device)
    if processes.world_size > 1 and device.type == "cuda" and device.index is None:
        device = choose_device(f"cuda:{processes.local_rank}")
    model = load_model(
        args.model, device=device, dtype=choose_dtype(args.dtype, device), patch_order=args.patch_order, fused=True
    )
    segmenter = Segmenter(model, compile=args.compile)
    segmenter.network_size(args.size, 1, 1)  # a wrong size is a wrong call, not a property of the images
    with Progress(len(jobs), unit="image", quiet=args.quiet or processes.rank > 0) as progress:
        for job in jobs:
            try:
                segment_file(segmenter, job, args)
                summary.written += 1
            except (*NOT_SEGMENTED, ConfigError) as error:  # the last where an image's native size is too large
                summary.failures.append(failure_of(job.source, error))
            summary.notes += [f"{job.source}: {note}" for note in job.notes]
            progress.step()


def segment_file(segmenter: Segmenter, job: Job, args: argparse.Namespace) -> None:
    """Image file -> mask file, and cut-out.

    Args:
        segmenter: Computes the mask.
        job: The image and its outputs.
        args: Options of the command line.

    Raises:
        ImageError: The image cannot be read, or a result cannot be written: without --overwrite also where another
            program has written a file of its name since the plan was made.
        CheckpointError: The network computes NaN.
        MemoryLimitError: Too little memory for this image.
    """
    image = read_image_file(job.source)
    job.notes.extend(image.notes)
    mask = segment_image(segmenter, image, args.size)  # 1 H W
    if job.mask not in job.kept:
        write_mask(job.mask, mask[0], args.bits, overwrite=_may_replace(job.mask, job, args))
    if job.cutout and job.cutout not in job.kept:
        colours = estimate_foreground(image.colours.unsqueeze(0), mask)
        cutout = torch.cat([colours, mask.unsqueeze(-1)], dim=-1)[0]  # H W 4
        write_image(job.cutout, cutout, image.icc_profile, overwrite=_may_replace(job.cutout, job, args))


def _may_replace(path: Path, job: Job, args: argparse.Namespace) -> bool:
    """Whether what is at the place of an output may be lost; with --resume what was not finished, and still is not."""
    return args.overwrite or (path in job.replaced and not is_finished(path))


def _is_free(job: Job, args: argparse.Namespace, summary: Summary) -> bool:
    """Whether there is something to write; otherwise the summary says why not."""
    wanted = job.outputs.values()
    existing = [path for path in wanted if exists(path)]
    if args.resume:
        job.kept.update(path for path in existing if is_finished(path))
        job.replaced.update(set(existing) - job.kept)
        existing = [path for path in existing if path in job.kept]
        if len(existing) == len(wanted):
            summary.there += 1
            for path in wanted:
                remove_abandoned_parts(path)
        return len(existing) < len(wanted)
    if existing:
        summary.failures.append(f"{job.source}: {existing[0]} is already there (--overwrite replaces it)")
    return not existing


def _has_names(job: Job, folder: Path, summary: Summary) -> bool:
    """Whether the disk allows the names of the outputs; otherwise the summary says why not."""
    for kind, path in job.outputs.items():
        try:
            os.lstat(folder / path.name)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            summary.failures.append(f"{job.source}: its {kind} cannot be named {path.name} ({reason})")
            return False
    return True
