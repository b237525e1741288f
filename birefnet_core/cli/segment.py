"""birefnet segment IN... -o OUT

Under torchrun each process segments its part of the images.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub.utils import tqdm

from ..checkpoints import load_model
from ..devices import DTYPES, choose_device, choose_dtype
from ..errors import ConfigError, ImageError
from ..images import IMAGE_SUFFIXES, list_images, read_image, write_image, write_mask
from ..inference import Segmenter
from ..masks import estimate_foreground
from ..torchrun import current_process

DEFAULT_MODEL = "BiRefNet"
DTYPE_HELP = "precision; auto: fp16 on CUDA GPUs with tensor cores, bf16 on CPUs with AMX, else fp32 (%(default)s)"
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
    parser.add_argument("--compile", action="store_true", help="torch.compile: for many images of one size")
    parser.add_argument("--recursive", action="store_true", help="also the images in subfolders")
    parser.add_argument("--resume", action="store_true", help="skip images whose masks are already there")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are already there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def parse_size(text: str) -> int | tuple[int, int] | str:
    """N, WxH or native."""
    if text == "native":
        return text
    width, cross, height = text.lower().partition("x")
    try:
        return (int(width), int(height)) if cross else int(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected N, WxH or native") from None


@dataclasses.dataclass(frozen=True)
class Job:
    """One image and where its mask goes."""

    source: Path
    mask: Path

    @property
    def cutout(self) -> Path:
        return self.mask.with_name(f"{self.mask.stem}_cutout.png")


@dataclasses.dataclass
class Summary:
    """How many images, or clips, were segmented, and why the others were not."""

    written: int = 0
    noun: str = "images"
    failures: list[str] = dataclasses.field(default_factory=list)

    def report(self) -> int:
        """Prints the summary and returns the exit code."""
        for failure in self.failures:
            print(f"not done: {failure}", file=sys.stderr)
        print(f"{self.written} of {self.written + len(self.failures)} {self.noun} segmented")
        return 1 if self.failures else 0


def run(args: argparse.Namespace) -> int:
    """Segments the images; those that cannot be read are skipped and reported at the end."""
    rank, processes, local_rank = current_process()
    summary = Summary()
    jobs = list(plan(args.inputs, Path(args.output), args.recursive, summary))
    if processes > 1:  # each image is segmented by one process; the first reports what concerns all of them
        jobs = jobs[rank::processes]
        summary = summary if rank == 0 else Summary()
    jobs = [job for job in jobs if args.overwrite or _is_free(job, args, summary)]
    if not jobs:
        return summary.report()
    device = choose_device(args.device)
    if processes > 1 and device.type == "cuda" and device.index is None:
        device = choose_device(f"cuda:{local_rank}")
    model = load_model(args.model, device=device, dtype=choose_dtype(args.dtype, device), patch_order=args.patch_order)
    segmenter = Segmenter(model, compile=args.compile)
    segmenter.network_size(args.size, 1, 1)  # a wrong size is a wrong call, not a property of the images
    for job in tqdm(jobs, unit="image", disable=args.quiet or not sys.stderr.isatty()):
        try:
            segment_file(segmenter, job, args)
            summary.written += 1
        except ImageError as error:
            summary.failures.append(str(error))
    return summary.report()


def segment_file(segmenter: Segmenter, job: Job, args: argparse.Namespace) -> None:
    """Image file -> mask file, and cut-out.

    Args:
        segmenter: Computes the mask.
        job: The image and its mask's place.
        args: Options of the command line.

    Raises:
        ImageError: The image cannot be read, or a result cannot be written.
    """
    image = read_image(job.source).unsqueeze(0)  # 1 H W 3
    mask = segmenter(image, args.size)  # 1 H W
    write_mask(job.mask, mask[0], args.bits)
    if args.cutout:
        colours = estimate_foreground(image, mask)
        write_image(job.cutout, torch.cat([colours, mask.unsqueeze(-1)], dim=-1)[0])


def plan(inputs: list[str], output: Path, recursive: bool, summary: Summary) -> Iterator[Job]:
    """Finds the images and the path of each one's mask; a folder's layout is kept.

    Args:
        inputs: Files, folders and globs.
        output: Folder, or a .png file for a single image.
        recursive: Whether to take images in subfolders, too.
        summary: Gets what cannot be segmented.

    Raises:
        ConfigError: Nothing to do, or one output file for several images.
    """
    found = list(_find(inputs, recursive, summary))
    if not found and not summary.failures:
        raise ConfigError(f"no images in {', '.join(inputs)}; known endings are {', '.join(sorted(IMAGE_SUFFIXES))}.")
    single = output.suffix.lower() == ".png" and not output.is_dir()
    if single and len(found) > 1:
        raise ConfigError(f"{output} is one file, but there are {len(found)} images: give a folder.")
    taken: dict[Path, Path] = {}
    for source, relative in found:
        mask = output if single else output / relative.with_suffix(".png")
        if mask in taken:
            summary.failures.append(f"{source}: {taken[mask]} has the same mask file {mask}")
            continue
        taken[mask] = source
        if mask.resolve() == source.resolve():
            summary.failures.append(f"{source}: the mask would replace the image itself; give another folder")
            continue
        yield Job(source, mask)


def _find(inputs: list[str], recursive: bool, summary: Summary) -> Iterator[tuple[Path, Path]]:
    """Image files, each with its place relative to the output folder."""
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            yield from ((image, image.relative_to(path)) for image in list_images(path, recursive=recursive))
        elif path.exists():
            yield path, Path(path.name)
        elif glob.has_magic(text) and (matches := sorted(glob.glob(text, recursive=True))):
            yield from ((Path(m), Path(Path(m).name)) for m in matches if Path(m).is_file())
        else:
            summary.failures.append(f"{text}: no such file or folder")


def _is_free(job: Job, args: argparse.Namespace, summary: Summary) -> bool:
    wanted = [job.mask, job.cutout] if args.cutout else [job.mask]
    existing = [path for path in wanted if path.exists()]
    if args.resume:
        if len(existing) == len(wanted):
            summary.written += 1
        return len(existing) < len(wanted)
    if existing:
        summary.failures.append(f"{job.source}: {existing[0]} is already there (--overwrite replaces it)")
    return not existing
