"""The pipeline: decode, batch, segment, smooth over time, refine, colour, compose, encode.

Decoding and encoding run in threads beside the network, behind queues of bounded size; a frame is on the segmenter's
device from its upload to its last use. Memory does not grow with the clip.

Shapes: B batch, H W frame, C colours and alpha.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from ..checks import check_kind
from ..errors import ConfigError, VideoError
from ..image_ops import flatten_alpha
from ..masks import RefineOptions, estimate_foreground, refine_mask
from ..transfer import to_sdr
from .clip import Clip, Frame, VideoInfo
from .compose import Composer
from .containers import Damage, Source
from .options import Output, VideoOptions
from .paths import check_paths, temporary_path
from .report import VideoProgress, VideoReport
from .samples import as_float, to_tensor
from .stages import Decoding, Encoding, queue_size
from .writers import make_plan, open_writer

if TYPE_CHECKING:  # it brings the network, whose packages take seconds to import
    from ..inference import Segmenter


class VideoCancelled(VideoError):
    """The run was cancelled, and nothing was written."""


class MaskFilter(Protocol):
    """Smooths masks over time; see ``steady.TemporalFilter``."""

    def push(self, frame: Tensor, mask: Tensor) -> list[Tensor]: ...

    def flush(self) -> list[Tensor]: ...


def segment_video(
    segmenter: Segmenter,
    source: Source,
    outputs: Output | Sequence[Output],
    *,
    options: VideoOptions | None = None,
    progress: Callable[[VideoProgress], object] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> VideoReport:
    """Segments a clip and writes cut-outs, masks and composites of it, all in one pass.

    Args:
        segmenter: Computes the masks; ``batch_size`` frames at a time.
        source: A video file or its bytes; a folder of images, or a pattern such as ``shot/%04d.png``.
        outputs: What to write.
        options: How.
        progress: Called after each frame. What it raises ends the run, leaves no file and passes through.
        cancelled: Asked several times for each frame; True ends the run.

    Returns:
        What was written.

    Raises:
        VideoError: A clip that cannot be read, is damaged (see ``VideoOptions.keep_partial``) or beyond the limits;
            an output that cannot be written.
        VideoCancelled: ``cancelled`` said so, and nothing was to be kept.
        ConfigError: Outputs that clash with inputs or with what is there; a codec this PyAV does not have; what is no
            segmenter, options or output.
    """
    if not hasattr(segmenter, "network_size"):
        raise ConfigError(f"segmenter is a {type(segmenter).__name__}, expected a Segmenter, which takes a network.")
    options = VideoOptions() if options is None else options
    check_kind("options", options, VideoOptions)
    outputs = list(outputs) if isinstance(outputs, Sequence) and not isinstance(outputs, str) else [outputs]
    for output in outputs:
        check_kind("an output", output, Output)
    check_paths(source, outputs, options.overwrite)
    segmenter.network_size(options.size, 1, 1)  # a wrong size is found before a file is opened
    report = VideoReport(outputs=[output.path for output in outputs])
    with ExitStack() as stack:
        clip = stack.enter_context(
            Clip(
                source,
                start_time=options.start_time,
                duration=options.duration,
                frame_rate=options.frame_rate,
                limits=options.limits,
            )
        )
        run = _Run(segmenter, clip.info, options, report, progress, cancelled)
        for output in outputs:
            run.add(output, source, stack)
        waiting = queue_size(clip.info.width * clip.info.height * (4 if clip.info.alpha else 3) * clip.info.bits // 8)
        decoding = Decoding(clip, waiting, report)
        stack.callback(decoding.close)
        try:
            run.all(decoding)
        except VideoCancelled:
            if not options.keep_partial or not report.frames:
                raise
            report.cancelled = True
        run.finish()
        for note in clip.notes:
            report.note(note)
    return report


class _Item(NamedTuple):
    """A frame on its way.

    Attributes:
        pts: Its time, in the clip's time base.
        duration: How long it is shown, in the same.
        pixels: H, W, C samples on the device.
    """

    pts: int
    duration: int
    pixels: Tensor


class _Run:
    """One call of ``segment_video``: the stages between decoding and encoding."""

    def __init__(
        self,
        segmenter: Segmenter,
        info: VideoInfo,
        options: VideoOptions,
        report: VideoReport,
        progress: Callable[[VideoProgress], object] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._segmenter, self._info, self._options, self._report = segmenter, info, options, report
        self._progress, self._cancelled = progress, cancelled
        self._device = next(segmenter.model.parameters()).device
        self._refine = dataclasses.replace(options.refine, temporal_radius=0)
        self._outputs: list[tuple[Composer, Encoding]] = []
        self._begun = time.perf_counter()
        if info.interlaced:
            report.note("the clip is interlaced; its frames were taken whole, without separating the fields")

    def add(self, output: Output, source: Source, stack: ExitStack) -> None:
        """Opens an output; the stack gets what is to be closed, and the renaming at the end."""
        plan = make_plan(output, self._info, self._report.note)
        composer = Composer(plan, self._options, self._device, self._report)
        stack.callback(composer.close)
        part = stack.enter_context(temporary_path(output, self._options.overwrite))
        writer = open_writer(plan, part, source, self._report.note)
        size = queue_size(self._info.width * self._info.height * 4 * plan.bits // 8)
        encoding = Encoding(writer, size, self._report, output.path)
        stack.callback(encoding.close)
        self._outputs.append((composer, encoding))

    def all(self, decoding: Decoding) -> None:
        """Takes every frame from decoding to the queues of the encoders."""
        items = self._upload(self._until_damage(decoding.read(self._poll)))
        for item, mask in self._smoothed(self._segmented(items)):
            self._write(item, mask)

    def finish(self) -> None:
        """Waits for the encoders, and completes the files."""
        for _, encoding in self._outputs:
            encoding.finish()
        self._report.seconds = time.perf_counter() - self._begun

    def _poll(self) -> None:
        if self._cancelled is not None and self._cancelled():
            raise VideoCancelled(f"{self._info.name}: cancelled; nothing was written.")

    def _until_damage(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Frames up to damage, which is reported where they are to be kept and raised otherwise."""
        count, seconds = 0, 0.0
        try:
            for frame in frames:
                count, seconds = count + 1, float(frame.pts * self._info.time_base)
                yield frame
        except Damage as error:
            where = f"{self._info.name}: damaged after frame {count} ({seconds:.2f} s): {error}."
            if not self._options.keep_partial:
                advice = f"Repair or replace the clip, or keep the {count} frames before (keep_partial)."
                raise VideoError(f"{where} {advice}") from error
            self._report.damage = f"{where} The {count} frames before were kept."

    def _upload(self, frames: Iterable[Frame]) -> Iterator[_Item]:
        for frame in frames:
            yield _Item(frame.pts, frame.duration, to_tensor(frame.pixels).to(self._device))

    def _segmented(self, items: Iterator[_Item]) -> Iterator[tuple[_Item, Tensor]]:
        """Each frame with its mask H, W."""
        if self._options.every > 1:
            yield from self._interpolated(items)
            return
        while batch := list(islice(items, self._segmenter.batch_size)):
            yield from zip(batch, self._masks(batch), strict=True)

    def _interpolated(self, items: Iterator[_Item]) -> Iterator[tuple[_Item, Tensor]]:
        """As ``_segmented``, with the network on some frames only."""
        from .keyframes import Keyframes

        keyframes, waiting, ended = Keyframes(every=self._options.every), deque[_Item](), False
        while not ended:
            group: list[tuple[_Item, bool]] = []
            while not ended and sum(wanted for _, wanted in group) < self._segmenter.batch_size:
                item = next(items, None)
                if item is None:
                    ended = True
                    break
                with self._report.stage("motion"):
                    group.append((item, keyframes.wants(self._image(item).permute(2, 0, 1))))
            masks = iter(self._masks([item for item, wanted in group if wanted]))
            for item, wanted in group:
                waiting.append(item)
                with self._report.stage("motion"):
                    done = keyframes.push(next(masks)[None] if wanted else None)
                yield from ((waiting.popleft(), mask[0]) for mask in done)
        yield from ((waiting.popleft(), mask[0]) for mask in keyframes.flush())
        self._report.note(f"the network ran on {keyframes.runs} of {keyframes.frames} frames")

    def _masks(self, batch: Sequence[_Item]) -> Iterable[Tensor]:
        self._poll()
        if not batch:
            return ()
        options = self._options
        with self._report.stage("segment"):
            images = torch.stack([self._image(item) for item in batch])  # B H W 3
            return self._segmenter(
                images, options.size, tiled=options.tiled, flip=options.flip, progress=lambda *_: self._poll()
            )

    def _smoothed(self, pairs: Iterable[tuple[_Item, Tensor]]) -> Iterator[tuple[_Item, Tensor]]:
        """Masks averaged with those of the frames around; they come a few frames later."""
        steady = self._filter()
        if steady is None:
            yield from pairs
            return
        waiting: deque[_Item] = deque()
        for item, mask in pairs:
            waiting.append(item)
            with self._report.stage("smooth"):
                done = steady.push(self._image(item).permute(2, 0, 1), mask[None])
            yield from ((waiting.popleft(), one[0]) for one in done)
        with self._report.stage("smooth"):
            done = steady.flush()
        yield from ((waiting.popleft(), one[0]) for one in done)

    def _filter(self) -> MaskFilter | None:
        radius = self._options.refine.temporal_radius
        if not radius:
            return None
        from .steady import TemporalFilter

        return TemporalFilter(radius=radius, strength=self._options.temporal_strength)

    @torch.no_grad()
    def _write(self, item: _Item, mask: Tensor) -> None:
        self._poll()
        image = self._image(item)
        with self._report.stage("refine"):
            if self._refine != RefineOptions():
                mask = refine_mask(mask[None], self._refine, image[None])[0]
            if item.pixels.shape[2] == 4:  # what is transparent already stays so
                mask = mask * as_float(item.pixels[..., 3])
        colours = as_float(item.pixels[..., :3])
        with self._report.stage("colour"):
            if self._options.colors and any(composer.needs_colours for composer, _ in self._outputs):
                seen = _over_grey(colours, item.pixels)  # as the still images of ``cut_out``
                colours = estimate_foreground(seen[None], mask[None], self._options.colors)[0]
        seconds = item.pts * self._info.time_base
        for composer, encoding in self._outputs:
            with self._report.stage("compose"):
                pixels = composer(colours, mask, seconds)
            encoding.put(pixels, item.pts, item.duration, self._poll)
        self._report.frames += 1
        self._tell(image, mask)

    def _image(self, item: _Item) -> Tensor:
        """H, W, 3 float as the network knows it, and as it is seen: what is transparent is middle grey."""
        image = to_sdr(as_float(item.pixels[..., :3]), self._info.transfer, self._info.colour.primaries)
        return _over_grey(image, item.pixels)

    def _tell(self, image: Tensor, mask: Tensor) -> None:
        if self._progress is None:
            return
        done, total = self._report.frames, self._info.frames
        rate = done / max(time.perf_counter() - self._begun, 1e-6)
        total = None if total is None else max(total, done)
        left = None if total is None else (total - done) / rate
        self._progress(VideoProgress(done, total, rate, left, image, mask))


def _over_grey(colours: Tensor, pixels: Tensor) -> Tensor:
    """Colours H, W, 3 of pixels H, W, C as they are seen: what is transparent is middle grey."""
    if pixels.shape[-1] < 4:
        return colours
    return flatten_alpha(torch.cat([colours, as_float(pixels[..., 3:])], dim=-1))
