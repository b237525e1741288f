"""birefnet video CLIP... -o OUT

Under torchrun each process segments its part of the clips.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints import load_model
from ..devices import DTYPES, choose_device, choose_dtype
from ..errors import ConfigError, VideoError
from ..files import is_finished, remove_abandoned_parts, stream_conflict
from ..images import IMAGE_SUFFIXES, find_images
from ..inference import Segmenter
from ..masks import FITS, METHODS, RefineOptions, parse_color
from ..out_of_memory import free_memory
from ..stop_signal import StopSignal, interrupt_of
from ..text import printable
from ..torchrun import current_process
from ..video import CODECS, Output, VideoOptions, VideoProgress, VideoReport
from ..video.formats import CLIP_SUFFIXES, MUXERS
from .console import Progress, say
from .outputs import Inputs, Outputs, means_folder, model_files
from .segment import DEFAULT_MODEL, DTYPE_HELP, Summary, check_names, parse_size
from .segment_image import NOT_SEGMENTED, failure_of

if TYPE_CHECKING:
    import torch

DESCRIPTION = (
    "Writes each clip's subject with transparency (.mov: ProRes 4444, .webm: VP9, .webp, .gif, .apng, or images), over "
    "a --background (.mp4, .mov, .mkv, .webm), or its mask."
)
MOST_BATCHED, MEMORY_FRACTION = 8, 0.6  # frames for each pass on a GPU, within this part of its free memory
FOLDER_SUFFIXES = {"cutout": ".mov", "mask": ".mkv", "composite": ".mp4"}  # of files in an output folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add = parser.add_argument
    add("inputs", nargs="+", metavar="CLIP", help="clips, folders of clips, or images: a folder, shot/%%04d.png")
    add("-o", "--output", required=True, metavar="OUT", help="file, whose ending says what to write; or a folder")
    add("--model", default=DEFAULT_MODEL, help="name, hub repo id, file or folder (%(default)s)")
    add("--patch-order", default="auto", choices=("auto", "channels_first", "columns_first"))
    add("--background", metavar="B", help="put the subject over a colour, an image or a clip instead")
    add("--fit", choices=FITS, help=f"how an image or clip lies behind the subject ({FITS[0]})")
    add("--only-mask", action="store_true", help="write the mask instead of the cut-out")
    add("--mask", action="store_true", help="also write the mask, as NAME_mask.mkv beside")
    masks = [name for name, codec in CODECS.items() if "mask" in codec.kinds]
    add("--mask-codec", choices=masks, help="codec of the mask (ffv1; with --only-mask by the ending of OUT)")
    add("--codec", choices=CODECS, help="default: by the ending of OUT; png and exr write a folder of images")
    add("--crf", type=int, metavar="N", help="quality of lossy codecs, lower is better")
    add("--premultiplied", action="store_true", help="multiply a cut-out's colours with alpha; straight otherwise")
    add("--colors", default=METHODS[0], choices=(*METHODS, "none"), help="how the subject's colours are found")
    add("--size", type=parse_size, metavar="S", help="N, WxH or native; default: the training size")
    add("--temporal-radius", type=int, default=0, metavar="N", help="smooth masks over N frames before and after")
    add("--every", type=int, default=1, metavar="N", help="the network on every N-th frame at least, motion between")
    add("--start", type=float, default=0.0, metavar="S", help="seconds to begin at; negative: from the end")
    add("--duration", type=float, metavar="S", help="seconds to take")
    add("--fps", type=parse_rate, default=Fraction(25), metavar="R", help="of image sequences, such as 24000/1001")
    add("--no-audio", action="store_true", help="leave out audio and subtitles")
    add("--keep-partial", action="store_true", help="on damage or Ctrl+C keep the frames that are finished")
    add("--batch-size", type=int, metavar="N", help="frames for each pass; default: what fits a GPU, 1 elsewhere")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, xpu (%(default)s)")
    add("--dtype", default="auto", choices=("auto", *DTYPES), help=DTYPE_HELP)
    add("--compile", action="store_true", help="torch.compile: a minute at first, may pay on a GPU")
    add("--recursive", action="store_true", help="also the clips in subfolders")
    add("--resume", action="store_true", help="skip clips whose outputs are already there")
    add("--overwrite", action="store_true", help="replace files that are already there")
    add("--quiet", action="store_true", help="no progress bar")


def parse_rate(text: str) -> Fraction:
    """Frames per second: 25, 23.976 or 24000/1001."""
    try:
        if "e" in text.lower():  # of a great exponent Python would work out all digits
            raise ValueError
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number such as 25 or 24000/1001") from None


@dataclass(frozen=True)
class Job:
    """One clip and what is made of it."""

    source: str
    outputs: tuple[Output, ...]


def run(args: argparse.Namespace) -> int:
    """Segments the clips; those that cannot be read are skipped and reported at the end."""
    rank, processes, local_rank = current_process()
    check_names(args)
    summary = Summary(noun="clips")
    jobs = list(plan(args, summary))
    if processes > 1:  # each clip is segmented by one process; the first reports what concerns all of them
        jobs = jobs[rank::processes]
        summary = summary if rank == 0 else Summary(noun="clips")
    if not args.overwrite:
        jobs = [_rest_of(job) for job in jobs if _is_free(job, args.resume, summary)]
    try:
        _segment_all(jobs, args, processes, local_rank, summary)
    except KeyboardInterrupt:
        summary.report()
        say("interrupted; the same command with --resume does the clips that have no file yet", error=True)
        raise
    return summary.report()


def _segment_all(
    jobs: Sequence[Job], args: argparse.Namespace, processes: int, local_rank: int, summary: Summary
) -> None:
    from ..video import segment_video

    if not jobs:
        return
    device = choose_device(args.device)
    if processes > 1 and device.type == "cuda" and device.index is None:
        device = choose_device(f"cuda:{local_rank}")
    options = video_options(args)
    model = load_model(
        args.model, device=device, dtype=choose_dtype(args.dtype, device), patch_order=args.patch_order, fused=True
    )
    segmenter = Segmenter(model, compile=args.compile, batch_size=1 if args.batch_size is None else args.batch_size)
    if args.batch_size is None:
        segmenter.batch_size = fitting_batch_size(segmenter, args.size, device)
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder's own printing: errors only
    # Between two frames: FFmpeg's threads survive no exception anywhere.
    notice = "stopping after this frame; a second signal stops at once"
    with StopSignal(graceful=True, notice=notice) as stop:
        for job in jobs:
            if not args.overwrite:
                if not _is_free(job, args.resume, summary):  # since the plan another run has written it
                    continue
                job = _rest_of(job)
                if args.resume:
                    _remove_unfinished(job)
            try:
                with Progress(unit="frame", label=Path(job.source).name, quiet=args.quiet) as bar:
                    report = segment_video(
                        segmenter,
                        job.source,
                        job.outputs,
                        options=options,
                        progress=partial(_advance, bar),
                        cancelled=lambda: stop.requested,
                    )
            except (VideoError, ConfigError) as error:
                summary.failures.append(str(error))
            except NOT_SEGMENTED as error:
                summary.failures.append(failure_of(Path(job.source), error))
            else:
                _count(job, report, summary)
            if stop.requested:
                raise interrupt_of(stop.number)


def plan(args: argparse.Namespace, summary: Summary) -> Iterator[Job]:
    """Finds the clips and decides what is written where; a folder's layout is kept.

    No output is an input of this run or another clip's output; such clips are failures.

    Args:
        args: Of the command line.
        summary: Gets what cannot be segmented.

    Raises:
        ConfigError: Nothing to do, outputs that do not fit each other, or one output file for several clips.
    """
    from ..video.paths import folders_of, is_written, source_files  # here, to name PyAV where it is missing

    if args.background and args.only_mask:
        raise ConfigError("--only-mask writes nothing over a --background: leave out one of them, or give --mask.")
    if args.premultiplied and (args.background or args.only_mask):
        raise ConfigError("--premultiplied is of cut-outs; here there is no alpha to multiply with: leave it out.")
    if args.fit and not args.background:
        raise ConfigError("--fit says how a --background lies behind the subject: give one, or leave it out.")
    if args.mask_codec and not (args.mask or args.only_mask):
        raise ConfigError("--mask-codec is of masks: give --mask or --only-mask, or leave it out.")
    if args.mask_codec and args.only_mask and args.codec not in (None, args.mask_codec):
        raise ConfigError(f"--codec {args.codec} and --mask-codec {args.mask_codec} are of one mask: leave out one.")
    out = Path(args.output)
    found = list(_find(args.inputs, args.recursive, out, summary))
    if not found and not summary.failures:
        endings = ", ".join(sorted(CLIP_SUFFIXES))
        raise ConfigError(f"no clips in {', '.join(args.inputs)}; known endings are {endings}.")
    codec = args.codec or (args.mask_codec if args.only_mask else None)
    images = codec is not None and not CODECS[codec].suffixes
    if (single := _names_file(args.output)) and len(found) > 1:
        raise ConfigError(f"{out} is one file, but there are {len(found)} clips: give a folder.")
    single = single or (images and len(found) == 1)
    kind = "composite" if args.background else "mask" if args.only_mask else "cutout"
    suffix = "" if images else _suffix(codec, kind)
    files = [file for source, _ in found for file in source_files(Path(source))]
    background = _background(args.background) if args.background else None
    files += [*(source_files(background) if isinstance(background, Path) else ()), *model_files(args.model)]
    inputs, outputs = Inputs({*files, *folders_of(files)}), Outputs()  # folders are replaced as a whole
    planned = set()
    for source, relative in found:
        job = Job(source, tuple(_outputs(args, kind, codec, out if single else out / relative.with_suffix(suffix))))
        if (key := (inputs.resolve(Path(source)), job.outputs[0].path)) in planned:
            continue  # named twice
        planned.add(key)
        done = args.resume and not args.overwrite and all(is_written(output) for output in job.outputs)
        if reason := _conflict(job, () if done else inputs, outputs):  # where it is done, no input is replaced
            summary.failures.append(f"{source}: {reason}")
            continue
        for output in job.outputs:
            outputs.add(output.path, source)
        yield job


def _names_file(output: str) -> bool:
    """Whether an output is one file; by its name, as it may not be there yet.

    Raises:
        ConfigError: A file that cannot be written.
    """
    path, name = Path(output), printable(output)
    suffix = path.suffix.lower()
    if os.path.isdir(output) or means_folder(output):
        return False
    if re.search(r"%\d*d", path.name):
        raise ConfigError(
            f"-o {name}: images are named frame_000001.png and so on; give --codec png, and their folder."
        )
    if suffix in (CLIP_SUFFIXES | IMAGE_SUFFIXES) - set(MUXERS):
        known = ", ".join(MUXERS)
        raise ConfigError(f"-o {name}: {suffix} is not written; use one of {known}, or {name}/ for a folder.")
    return suffix in MUXERS


def _conflict(job: Job, inputs: Inputs | tuple[()], outputs: Outputs) -> str | None:
    """Why a job's outputs cannot be written; None where they can."""
    for output in job.outputs:
        if output.path in inputs:
            return f"{output.path} is an input of this run, and would be replaced; give another folder"
        if (conflict := stream_conflict(output.path)) is not None:
            return conflict
        if (other := outputs.purpose_of(output.path)) is not None:
            return f"{other} has the same output {output.path}"
    return None


def video_options(args: argparse.Namespace) -> VideoOptions:
    """The options of a run.

    Raises:
        ConfigError: A value out of its range.
    """
    return VideoOptions(
        size=args.size,
        refine=RefineOptions(temporal_radius=args.temporal_radius),
        every=args.every,
        colors=None if args.colors == "none" else args.colors,
        start_time=args.start,
        duration=args.duration,
        frame_rate=args.fps,
        keep_partial=args.keep_partial,
        overwrite=args.overwrite,
    )


def fitting_batch_size(segmenter: Segmenter, size: object, device: torch.device) -> int:
    """Frames for each pass that fit a GPU's free memory; 1 on a CPU, where more are no faster."""
    free = free_memory(device)
    if free is None or size == "native":
        return 1
    height, width = segmenter.network_size(size, 1, 1)  # type: ignore[arg-type]
    batch = MOST_BATCHED
    while batch > 1 and segmenter.memory_required(height, width, batch_size=batch) > MEMORY_FRACTION * free:
        batch //= 2
    return batch


def _outputs(args: argparse.Namespace, kind: str, codec: str | None, path: Path) -> Iterator[Output]:
    background = _background(args.background) if args.background else None
    main = Output(
        path=path,
        kind=kind,
        codec=codec,
        crf=args.crf,
        premultiplied=args.premultiplied,
        background=background,
        fit=args.fit or FITS[0],
        audio=not args.no_audio,
    )
    yield main
    if args.mask and kind != "mask":
        mask_codec = args.mask_codec or "ffv1"
        suffix = _suffix(mask_codec, "mask")
        beside = path.with_name(f"{path.stem if path.suffix.lower() in MUXERS else path.name}_mask{suffix}")
        yield replace(main, path=beside, kind="mask", codec=mask_codec, crf=None, background=None, premultiplied=False)


def _suffix(codec: str | None, kind: str) -> str:
    """Ending of files by a codec; empty for folders of images."""
    if codec is None:
        return FOLDER_SUFFIXES[kind]
    return next(iter(CODECS[codec].suffixes), "")


def _background(text: str) -> str | Path:
    """A colour, or the path of an image, a clip or a sequence."""
    path = Path(text)
    if os.path.exists(path) or "%" in path.name or "*" in path.name:
        return path
    try:
        parse_color(text)
    except ConfigError as error:
        raise ConfigError(f"--background {text!r}: no file of that name, and {error}") from None
    return text


def _find(inputs: Sequence[str], recursive: bool, out: Path, summary: Summary) -> Iterator[tuple[str, Path]]:
    """Clips, each with its place relative to the output folder; what earlier runs wrote there is left out."""
    for text in inputs:
        path = Path(text)
        if os.path.isdir(path):
            files = find_images(path, recursive=recursive, suffixes=CLIP_SUFFIXES)
            summary.failures += files.failures
            clips = [clip for clip in files.images if not _was_written(clip, path, out)]
            yield from ((str(clip), clip.relative_to(path)) for clip in clips)
            if not clips and files.passed:  # a sequence of images
                yield text, Path(path.resolve().name + ".images")
            elif not files.images and not files.failures:
                summary.notes.append(f"{text}: no clips in this folder{'' if recursive else ' itself'}")
        elif os.path.exists(path) or "%" in path.name or "*" in path.name:
            yield text, Path(path.name if os.path.exists(path) else path.name.replace("%", "").replace("*", ""))
        else:
            summary.failures.append(f"{text}: no such file or folder")


def _was_written(clip: Path, folder: Path, out: Path) -> bool:
    """Whether a clip lies in an output folder below its own folder, or is there by an earlier run."""
    from ..video.own_outputs import is_own_output

    place, written = Path(os.path.realpath(clip)), Path(os.path.realpath(out))
    if written == place or Path(os.path.realpath(folder)) not in written.parents:
        return (written == place or written in place.parents) and is_own_output(clip)
    return written in place.parents


def _is_free(job: Job, resume: bool, summary: Summary) -> bool:
    from ..video.paths import is_written

    existing = [output.path for output in job.outputs if is_written(output)]
    if resume:
        if len(existing) == len(job.outputs):
            summary.written += 1
            for path in existing:
                remove_abandoned_parts(path)
        return len(existing) < len(job.outputs)
    if existing:
        summary.failures.append(f"{job.source}: {existing[0]} is already there (--overwrite replaces it)")
    return not existing


def _rest_of(job: Job) -> Job:
    """A job without the outputs that are there, complete; those stay."""
    from ..video.paths import is_written

    return replace(job, outputs=tuple(output for output in job.outputs if not is_written(output)))


def _remove_unfinished(job: Job) -> None:
    """Removes what --resume makes anew: empty files, and links that lead to none.

    So it is given no leave to replace anything, and what appears from now on stays.
    """
    for output in job.outputs:
        with contextlib.suppress(OSError):
            if not os.path.exists(output.path) or (os.path.isfile(output.path) and not is_finished(output.path)):
                os.unlink(output.path)


def _count(job: Job, report: VideoReport, summary: Summary) -> None:
    for note in report.notes:
        say(printable(f"{job.source}: {note}"), error=True)
    if report.damage:
        summary.failures.append(report.damage)
    elif report.cancelled:
        say(f"{printable(job.source)}: stopped; the first {report.frames} frames were kept", error=True)
    else:
        summary.written += 1


def _advance(bar: Progress, progress: VideoProgress) -> None:
    bar.show(progress.done, progress.total)
