"""Small clips of every kind, a segmenter that knows their masks, and what a player would find in a file."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

try:
    import av

    from birefnet_core.video.pyav import reformat
except ImportError:  # an extra; what needs it is left out
    collect_ignore = ["test_clips.py", "test_failures.py", "test_memory.py", "test_outputs.py", "test_reading.py"]

SAMPLE_RATE = 48000


def picture(number: int, width: int, height: int) -> np.ndarray:
    """A frame of gradients with a bright square that moves; H, W, 3 bytes."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, number * 8 % 256)], -1).astype(np.uint8)
    image[height // 4 : height // 2, 5 + number : 20 + number] = 250
    return image


def soft_ellipse(height: int, width: int, number: int = 0) -> torch.Tensor:
    """A mask with a soft edge; H, W."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return (3.5 * (0.8 - (x - 0.02 * number).hypot(y))).clamp(0, 1)


class KnownMasks:
    """Stands for a Segmenter, and gives ``soft_ellipse``, or masks T, H, W."""

    def __init__(self, batch_size: int = 1, masks: torch.Tensor | None = None) -> None:
        self.masks = masks
        self.model, self.batch_size, self.seen = nn.Conv2d(3, 1, 1), batch_size, 0
        self.images: list[torch.Tensor] = []

    def network_size(self, size, height, width):
        return 64, 64

    def __call__(self, images, size=None, *, tiled=False, flip=False, progress=None):
        if progress:
            progress(0, 1)
        numbers = range(self.seen, self.seen + len(images))
        masks = [soft_ellipse(*images.shape[1:3], n) if self.masks is None else self.masks[n] for n in numbers]
        self.seen += len(images)
        self.images = [*self.images, *images][-48:]
        return torch.stack(masks)


@dataclass(kw_only=True)
class Recipe:
    """How a clip is made; timestamps are in units of the time base."""

    name: str = "clip.mp4"
    codec: str = "libx264"
    pixels: str = "yuv420p"
    size: tuple[int, int] = (96, 64)
    frames: int = 12
    rate: int = 24
    time_base: Fraction | None = None
    pts: list[int] | None = None
    rotation: float | None = None
    audio: str | None = "aac"
    subtitles: bool = False
    options: dict[str, str] | None = None
    colour: tuple[int, int, int, int] | None = None


def make_clip(folder: Path, **how: Any) -> Path:
    """Writes a clip; see ``Recipe``."""
    recipe = Recipe(**how)
    path = folder / recipe.name
    base = recipe.time_base or Fraction(1, recipe.rate)
    with av.open(str(path), "w") as container:
        # x264 looking ahead writes frames as small as these a little differently now and then.
        options = {"rc-lookahead": "0"} if recipe.codec == "libx264" else {}
        stream = container.add_stream(recipe.codec, rate=recipe.rate, options=options | (recipe.options or {}))
        context = stream.codec_context
        context.width, context.height = recipe.size
        context.pix_fmt, context.time_base, stream.time_base = recipe.pixels, base, base
        if recipe.colour:
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = recipe.colour
        if recipe.rotation is not None:
            if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write turned clips")
            stream.set_display_rotation(recipe.rotation)
        sound = container.add_stream(recipe.audio, rate=SAMPLE_RATE) if recipe.audio else None
        for number in range(recipe.frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *recipe.size), format="rgb24")
            frame = reformat(frame, format=recipe.pixels if recipe.pixels != "pal8" else "rgb8")
            frame.pts, frame.time_base = (recipe.pts[number] if recipe.pts else number), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            samples = np.arange(SAMPLE_RATE * recipe.frames // recipe.rate)
            wave = (np.sin(samples * 0.05) * 0.3).astype(np.float32)[None].repeat(2, 0)
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = SAMPLE_RATE, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def probe(path: Path) -> SimpleNamespace:
    """What a player finds: times in seconds, the stored size, turning, tags, decoded audio samples."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        frames = [(frame.pts * frame.time_base, frame.rotation) for frame in container.decode(stream)]
        found = SimpleNamespace(
            start=(container.start_time or 0) / 1e6,
            codec=context.name,
            pixels=context.pix_fmt,
            size=(context.width, context.height),
            time_base=stream.time_base,
            duration=float(stream.duration * stream.time_base) if stream.duration else None,
            times=[float(time) for time, _ in frames],
            rotation={rotation for _, rotation in frames},
            colour=(context.color_primaries, context.color_trc, context.colorspace, context.color_range),
            aspect=stream.sample_aspect_ratio,
            audio=[s.codec_context.name for s in container.streams.audio],
            subtitles=[s.codec_context.name for s in container.streams.subtitles],
        )
    found.samples = 0
    with av.open(str(path)) as container:
        if container.streams.audio:
            found.samples = sum(frame.samples for frame in container.decode(audio=0))
    return found


def read_rgba(path: Path) -> list[np.ndarray]:
    """Decoded frames H, W, 4 as fractions, alpha included."""
    from birefnet_core.video import Clip

    with Clip(path) as clip:
        return [frame.pixels / np.float32(np.iinfo(frame.pixels.dtype).max) for frame in clip]


@pytest.fixture
def clip(tmp_path):
    return lambda **how: make_clip(tmp_path, **how)


@pytest.fixture
def segmenter():
    return KnownMasks()
