"""From colours and a mask to the numbers an encoder takes.

Shapes: H W frame, C colours and alpha. Everything is on the segmenter's device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ImageError, VideoError
from ..image_formats import IMAGE_SUFFIXES, OPTIONAL_READERS
from ..image_ops import resize_images
from ..image_reading import read_image_file
from ..images import as_srgb
from ..masks import parse_color
from ..masks.compose import fit_images
from ..transfer import from_sdr, to_linear, to_sdr
from .clip import Clip, Frame, VideoInfo
from .options import Output, VideoOptions
from .report import VideoReport
from .samples import as_float, quantize, to_tensor
from .stages import Decoding
from .writers import Plan

ANIMATED = (".gif", ".webp", ".apng", ".png")  # image suffixes that may be clips


class Composer:
    """Makes the frames of one output.

    Args:
        plan: How it is written.
        options: Of the run.
        device: The segmenter's.
        report: Gets notes.
    """

    def __init__(self, plan: Plan, options: VideoOptions, device: torch.device, report: VideoReport) -> None:
        self.plan = plan
        self._background = None
        if plan.output.background is not None:
            self._background = open_background(plan.output, plan.info, options, device, report)

    @property
    def needs_colours(self) -> bool:
        """Whether it shows the subject's colours."""
        return self.plan.output.kind != "mask"

    def close(self) -> None:
        if self._background is not None:
            self._background.close()

    def __call__(self, colours: Tensor, mask: Tensor, seconds: Fraction) -> Tensor:
        """Makes one frame.

        Args:
            colours: H, W, 3 of the subject, as the clip codes them; of no account for a mask.
            mask: H, W.
            seconds: When it is shown.

        Returns:
            H, W, C of the plan's bits.
        """
        plan, kind = self.plan, self.plan.output.kind
        if kind == "mask":
            return quantize(mask[..., None], plan.bits)
        transfer, primaries = plan.info.transfer, plan.info.colour.primaries
        if not plan.hdr:
            colours, transfer = to_sdr(colours, transfer, primaries), "sdr"
        if self._background is not None:
            behind = from_sdr(self._background.at(seconds), transfer, primaries)
            result = torch.lerp(behind, colours, mask[..., None])
            return quantize(to_linear(result, transfer) if plan.bits == 32 else result, plan.bits)
        if plan.bits == 32:  # EXR holds light
            colours = to_linear(colours, transfer)
        if plan.output.premultiplied:
            colours = colours * mask[..., None]
        return quantize(torch.cat([colours, mask[..., None]], dim=-1), plan.bits)


class StillBackground:
    """A colour or an image."""

    def __init__(self, image: Tensor) -> None:
        self._image = image

    def at(self, seconds: Fraction) -> Tensor:
        """H, W, 3 sRGB."""
        return self._image

    def close(self) -> None:
        pass


class ClipBackground:
    """Another clip, decoded ahead in a thread; it begins again when it ends before the subject's."""

    def __init__(
        self, output: Output, info: VideoInfo, options: VideoOptions, device: torch.device, report: VideoReport
    ) -> None:
        self._output, self._subject, self._device, self._note = output, info, device, report.note
        self._open = lambda: Clip(Path(str(output.background)), frame_rate=options.frame_rate, limits=options.limits)
        with self._open() as clip:
            self._info = clip.info
        self._decoding = Decoding(self._loop(), 4, report, "decode background")
        self._frames = self._decoding.read()
        self._next: Frame | None = None
        self._shown: Tensor | None = None

    def at(self, seconds: Fraction) -> Tensor:
        """The frame that is shown at a time: H, W, 3 sRGB."""
        latest: Frame | None = None
        while True:
            if self._next is None:
                self._next = next(self._frames, None)
            if self._next is None or (
                self._next.pts * self._info.time_base > seconds and (latest or self._shown is not None)
            ):
                break
            latest, self._next = self._next, None
        if latest is not None:
            self._shown = self._fit(latest)
        if self._shown is None:
            raise VideoError(f"{self._info.name}: the background has no frames.")
        return self._shown

    def close(self) -> None:
        self._decoding.close()

    def _loop(self) -> Iterator[Frame]:
        first = 0
        while True:
            last, duration = 0, 1
            with self._open() as clip:
                for frame in clip:
                    last, duration = frame.pts, frame.duration or duration
                    yield frame._replace(pts=first + frame.pts)
            first += last + max(duration, 1)

    def _fit(self, frame: Frame) -> Tensor:
        samples = as_float(to_tensor(frame.pixels).to(self._device))
        pixels = to_sdr(samples[..., :3], self._info.transfer, self._info.colour.primaries)
        if samples.shape[-1] == 4:
            pixels = _over_black(pixels, samples[..., 3], self._info.name, self._note)
        return _behind(pixels, self._info.pixel_aspect, self._subject, self._output.fit)


Background = StillBackground | ClipBackground


def open_background(
    output: Output, info: VideoInfo, options: VideoOptions, device: torch.device, report: VideoReport
) -> Background:
    """What lies behind the subject of a composite.

    Args:
        output: Whose background.
        info: The subject's clip.
        options: Of the run.
        device: Where frames are made.
        report: Gets the time of a clip's decoding.

    Raises:
        VideoError: An image or clip that cannot be read.
    """
    background = output.background
    if not isinstance(background, Path):
        colour = torch.tensor(parse_color(background or "#000000"), dtype=torch.float32, device=device)
        return StillBackground(colour.expand(info.height, info.width, 3))
    suffix = background.suffix.lower()
    is_image = (suffix in IMAGE_SUFFIXES or suffix in OPTIONAL_READERS) and os.path.isfile(background)
    if is_image and not (suffix in ANIMATED and _moves(background, options)):
        try:
            file = as_srgb(read_image_file(background))
        except ImageError as error:
            raise VideoError(str(error)) from error
        image = file.colours
        if file.alpha is not None:
            image = _over_black(image, file.alpha, str(background), report.note)
        return StillBackground(_behind(image.to(device), Fraction(1), info, output.fit))
    return ClipBackground(output, info, options, device, report)


def _behind(image: Tensor, aspect: Fraction, subject: VideoInfo, fit: str) -> Tensor:
    """A background H, W, 3 brought to the subject's frames, whose pixels may have other sides than its own."""
    if aspect != subject.pixel_aspect and fit != "stretch":
        height, width = image.shape[:2]
        image = resize_images(image[None], (height, max(1, round(width * aspect / subject.pixel_aspect))))[0]
    return fit_images(image[None], (subject.height, subject.width), fit)[0]


def _over_black(colours: Tensor, alpha: Tensor, name: str, note: Callable[[str], None]) -> Tensor:
    """A background H, W, 3 over black, as the bars of ``fit_images`` are: what alpha H, W hides is not to be seen."""
    if alpha.min() >= 1:
        return colours
    note(f"the background {name} is transparent in places; it is black there")
    return colours * alpha[..., None]


def _moves(path: Path, options: VideoOptions) -> bool:
    """Whether an image file is an animation; not where FFmpeg cannot read it, as by the name of my%20dog.png."""
    try:
        with Clip(path, limits=options.limits) as clip:
            frames: Callable[[], object] = iter(clip).__next__
            frames()
            frames()
    except (StopIteration, VideoError):
        return False
    return True
