"""Renders clips with exact alpha and exact motion: what flicker is measured on (benchmarks/video.py).

    python tools/synthetic_pairs/clips.py --out DIR [--clips NAME ...] [--frames N] [--width N] [--sources DIR]

A subject moves before a background, seen by a camera that may move too; there may be hair that sways, a bar that passes
in front, noise, compression and a scene cut. Writes DIR/NAME/im/*.png, DIR/NAME/gt/*.png and DIR/NAME/motion.npz.

Shapes: T frames, H W frame, N side of a layer. All layers are flat, so a pixel's motion follows from the maps of
the frames to the layer it shows.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.synthetic_pairs import textures
from tools.synthetic_pairs.canvas import Canvas
from tools.synthetic_pairs.grown_shapes import furry, hair
from tools.synthetic_pairs.render import write
from tools.synthetic_pairs.scene import Generator, Layer, background, fringe, make_subject, place_cutout
from tools.synthetic_pairs.sources import Sources, find_sources, read

SUPERSAMPLING = 2  # frames are composed at twice their size and averaged
BACK, SUBJECT, BAR = 0, 1, 2  # what a pixel shows
BAR_WIDTH = 0.1  # of the frame's
LEAST_ALPHA = 0.02  # of a pixel that counts as the subject's: edges move with it


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What happens in a clip; lengths in pixels of a frame 384 pixels wide, per frame.

    Attributes:
        seed: Of subject, background and noise.
        subject: "scene" as in training pairs, "portrait", "hair" or "furry".
        start: Where the subject's centre begins, as fractions of the frame's width and height.
        speed: Its motion, x and y.
        turn: Its rotation, degrees.
        grow: Factor of its size.
        wave: How far it swings from side to side, in all; the period is 24 frames.
        scale: Its height as a fraction of the frame's.
        sway: How far its parts bend to and fro, most at the top.
        pan: Motion of the camera, x and y.
        shake: Standard deviation of the camera's position and, in a tenth of degrees, angle.
        bar: Whether a bar passes in front of the subject.
        noise: Standard deviation of the sensor's noise.
        quality: Of JPEG compression; None for none.
        flash: Factor of the light in one frame in eight.
        difficult: Whether the background may be sharp and like the subject.
        cut: Settings of the scene that begins in the middle, or None.
    """

    seed: int
    subject: str = "scene"
    start: tuple[float, float] = (0.5, 0.5)
    speed: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    grow: float = 1.0
    wave: float = 0.0
    scale: float = 0.8
    sway: float = 0.0
    pan: tuple[float, float] = (0.0, 0.0)
    shake: float = 0.0
    bar: bool = False
    noise: float = 0.0
    quality: int | None = None
    flash: float = 1.0
    difficult: bool = False
    cut: ClipSettings | None = None


@dataclasses.dataclass
class Clip:
    """Frames with what is true about them.

    Attributes:
        images: T, H, W, 3 float32 in [0, 1].
        alphas: T, H, W float32.
        motion: T - 1, 2, H, W: from each pixel of a frame, x and y to where it was in the frame before.
        visible: T - 1, H, W: whether it was visible there.
        cuts: Frames that begin a scene, without the first.
    """

    images: np.ndarray
    alphas: np.ndarray
    motion: np.ndarray
    visible: np.ndarray
    cuts: list[int]


CLIPS = {
    "still": ClipSettings(seed=1, subject="portrait", scale=1.0, noise=0.03),
    "talking": ClipSettings(seed=2, subject="portrait", scale=0.95, wave=5, sway=2, noise=0.015, quality=60),
    "walk": ClipSettings(seed=3, start=(0.25, 0.5), speed=(5, 0.3), turn=0.4, noise=0.015, quality=70),
    "fast": ClipSettings(seed=4, start=(0.15, 0.5), scale=0.6, speed=(14, -0.5), turn=3, noise=0.01, quality=70),
    "pan": ClipSettings(seed=22, pan=(4, 0.5), speed=(4, 0.5), wave=12, noise=0.015, quality=70, difficult=True),
    "hair": ClipSettings(seed=6, subject="hair", scale=0.95, sway=5, wave=4, noise=0.02),
    "fur": ClipSettings(seed=7, subject="furry", speed=(1, 0.6), turn=0.5, sway=2, noise=0.02, quality=50),
    "shake": ClipSettings(seed=8, subject="portrait", scale=0.95, shake=1.5, noise=0.03, quality=40),
    "zoom": ClipSettings(seed=9, scale=0.5, grow=1.02, noise=0.02, quality=60),
    "bar": ClipSettings(seed=29, speed=(0.5, 0), wave=4, bar=True, noise=0.015, quality=70),
    "flash": ClipSettings(seed=26, wave=3, flash=1.4, noise=0.015, quality=70, difficult=True),
    "cut": ClipSettings(
        seed=12, speed=(2, 0), noise=0.02, quality=70, cut=ClipSettings(seed=13, subject="portrait", wave=6, noise=0.02)
    ),
}


def render_clip(settings: ClipSettings, sources: Sources, frames: int = 32, width: int = 384) -> Clip:
    """Renders a clip of 4 : 3.

    Args:
        settings: What happens in it.
        sources: Files it is made of; without any, all is drawn.
        frames: T, at least 2.
        width: W.
    """
    first = frames if settings.cut is None else frames // 2
    clip = _render_scene(settings, sources, first, width)
    if settings.cut is None:
        return clip
    rest = render_clip(settings.cut, sources, frames - first, width)
    unknown = np.zeros_like(clip.motion[:1]), np.zeros_like(clip.visible[:1])
    return Clip(
        np.concatenate([clip.images, rest.images]),
        np.concatenate([clip.alphas, rest.alphas]),
        np.concatenate([clip.motion, unknown[0], rest.motion]),
        np.concatenate([clip.visible, unknown[1], rest.visible]),
        [*clip.cuts, first, *(first + cut for cut in rest.cuts)],
    )


def _render_scene(settings: ClipSettings, sources: Sources, frames: int, width: int) -> Clip:
    rng = np.random.default_rng(settings.seed)
    stage = _Stage(rng, settings, sources, frames, width)
    noise_rng = np.random.default_rng([settings.seed, 1])
    exposure = math.exp(rng.normal(0, 0.15))
    images, alphas, shown = [], [], []
    for t in range(frames):
        colours, alpha, labels = stage.frame(t)
        light = settings.flash if t % 8 == 5 else 1.0
        colours = np.clip(np.clip(colours, 0, 1) ** exposure * light, 0, 1)
        images.append(_camera(noise_rng, colours, settings))
        alphas.append(alpha)
        shown.append(labels)
    motion, visible = zip(*(stage.motion(t, shown[t], shown[t - 1]) for t in range(1, frames)), strict=True)
    return Clip(np.stack(images), np.stack(alphas), np.stack(motion), np.stack(visible), [])


class _Stage:
    """The layers of a scene, and where each is in each frame."""

    def __init__(self, rng: Generator, settings: ClipSettings, sources: Sources, frames: int, width: int) -> None:
        self.settings, self.width, self.height = settings, width, round(width * 0.75)
        self.unit = width / 384
        side = SUPERSAMPLING * self.height
        self.back = background(rng, sources, round(SUPERSAMPLING * width * 1.6), settings.difficult)
        self.subject = _subject(rng, settings, sources, side, self.back)
        self.bar = textures.surface(rng, side)
        jitter = np.cumsum(rng.normal(0, 1, (frames, 3)), axis=0)
        jitter = jitter - cv2.blur(jitter, (1, 9))  # comes back to where it was, as a hand does
        self.jitter = jitter * settings.shake * np.array([self.unit, self.unit, math.radians(0.1)])

    def frame(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colours H, W, 3, alpha H, W, and what each pixel shows, H, W."""
        s = SUPERSAMPLING
        y, x = np.mgrid[0 : s * self.height, 0 : s * self.width].astype(np.float32)
        x, y = (x + 0.5) / s - 0.5, (y + 0.5) / s - 0.5  # in pixels of the frame
        back = _sample(self.back, *self._to_layer(BACK, t, x, y), cv2.BORDER_REFLECT)
        at = self._to_layer(SUBJECT, t, x, y)
        alpha = _sample(self.subject.alpha, *at, cv2.BORDER_CONSTANT)
        colours = _sample(self.subject.colours, *at, cv2.BORDER_REPLICATE)
        colours = alpha[..., None] * colours + (1 - alpha[..., None]) * back
        labels = np.where(alpha >= LEAST_ALPHA, SUBJECT, BACK)
        if self.settings.bar:
            across, along = self._to_layer(BAR, t, x, y)
            half = BAR_WIDTH / 2 * SUPERSAMPLING * self.width
            cover = np.clip((half - np.abs(across)) / s + 0.5, 0, 1)
            colours = (
                cover[..., None] * _sample(self.bar, across, along, cv2.BORDER_REFLECT)
                + (1 - cover[..., None]) * colours
            )
            alpha = alpha * (1 - cover)
            labels = np.where(cover > 0.5, BAR, labels)
        size = (self.width, self.height)
        colours, alpha = (cv2.resize(v, size, interpolation=cv2.INTER_AREA) for v in (colours, alpha))
        labels = labels.reshape(self.height, s, self.width, s).max(axis=(1, 3))
        return colours, alpha.astype(np.float32), labels

    def motion(self, t: int, now: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Motion 2, H, W from frame t to the one before, and where it is visible in both, H, W."""
        y, x = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32)
        there_x, there_y = np.zeros_like(x), np.zeros_like(y)
        for layer in (BACK, SUBJECT, BAR):
            u, v = self._to_frame(layer, t - 1, *self._to_layer(layer, t, x, y))
            there_x, there_y = np.where(now == layer, u, there_x), np.where(now == layer, v, there_y)
        column, row = np.round(there_x).astype(int), np.round(there_y).astype(int)
        inside = (there_x >= 0) & (there_x <= self.width - 1) & (there_y >= 0) & (there_y <= self.height - 1)
        column, row = np.clip(column, 0, self.width - 1), np.clip(row, 0, self.height - 1)
        visible = inside & (before[row, column] == now)
        return np.stack([there_x - x, there_y - y]).astype(np.float32), visible

    def _to_layer(self, layer: int, t: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u, v = _apply(self._matrix(layer, t), x, y)
        return (u + self._bend(t, v), v) if layer == SUBJECT else (u, v)

    def _to_frame(self, layer: int, t: int, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = u - self._bend(t, v) if layer == SUBJECT else u
        return _apply(np.linalg.inv(self._matrix(layer, t)), u, v)

    def _bend(self, t: int, v: np.ndarray) -> np.ndarray:
        """How far a row of the subject's layer is moved aside, in its pixels."""
        side = self.subject.alpha.shape[0]
        height = 1 - v / side  # 0 at the bottom
        swing = np.sin(2 * math.pi * (t / 16 + 1.3 * v / side))
        return (self.settings.sway * self.unit * SUPERSAMPLING * height * swing).astype(np.float32)

    def _matrix(self, layer: int, t: int) -> np.ndarray:
        """3, 3: from a pixel of the frame to one of the layer."""
        settings, middle = self.settings, np.array([self.width / 2, self.height / 2])
        pan = np.array(settings.pan) * self.unit * t
        camera = _about(middle, self.jitter[t, 2], 1.0, self.jitter[t, :2] + pan)  # frame -> world
        if layer == BACK:
            start = self.back.shape[0] / 2 / SUPERSAMPLING - middle - np.array(settings.pan) * self.unit * 16
            return np.diag([SUPERSAMPLING, SUPERSAMPLING, 1.0]) @ _about((0, 0), 0, 1, start) @ camera
        if layer == BAR:
            left = self.width * (0.05 + 0.9 * t / 31)
            return np.diag([SUPERSAMPLING, SUPERSAMPLING, 1.0]) @ _about((0, 0), 0.15, 1, (-left, 0)) @ camera
        centre = np.array(settings.start) * [self.width, self.height]
        swing = settings.wave * self.unit * math.sin(2 * math.pi * t / 24)
        centre = centre + np.array(settings.speed) * self.unit * t + [swing, 0]
        factor = settings.scale * settings.grow**t / SUPERSAMPLING  # pixels of the frame per pixel of the layer
        angle = math.radians(settings.turn * t)
        half = self.subject.alpha.shape[0] / 2
        place = _about((half, half), angle, factor, centre - half)  # layer -> world
        return np.linalg.inv(place) @ camera


def _subject(rng: Generator, settings: ClipSettings, sources: Sources, side: int, back: np.ndarray) -> Layer:
    """The subject's layer, N, N."""
    if settings.subject == "portrait" and sources.subjects:
        path = sources.subjects[rng.integers(len(sources.subjects))]
        return fringe(rng, place_cutout(rng, read(path, 448), side, framed=True))
    if settings.subject == "scene":
        small = cv2.resize(back, (side, side), interpolation=cv2.INTER_AREA)
        return make_subject(rng, sources, "val", side, small, settings.difficult)
    canvas = Canvas(side, np.array([[0.8, 0, 0], [0, 0.8, 0]]))
    (furry if settings.subject == "furry" else hair)(canvas, rng)
    alpha = canvas.coverage()
    return Layer(np.clip(textures.surface(rng, side) * textures.relief(rng, alpha)[..., None], 0, 1), alpha)


def _camera(rng: Generator, colours: np.ndarray, settings: ClipSettings) -> np.ndarray:
    """Noise and compression: H, W, 3 in [0, 1]."""
    noisy = np.clip(colours + rng.normal(0, settings.noise, colours.shape), 0, 1)
    pixels = np.round(noisy * 255).astype(np.uint8)
    if settings.quality is not None:
        _, coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, settings.quality])
        pixels = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    return pixels.astype(np.float32) / 255


def _about(centre, angle: float, factor: float, move) -> np.ndarray:
    """3, 3: turns and scales about a point, then moves."""
    cos, sin = factor * math.cos(angle), factor * math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    shift = np.asarray(centre) - linear @ np.asarray(centre) + np.asarray(move)
    return np.vstack([np.column_stack([linear, shift]), [0, 0, 1]])


def _apply(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (a, b, c), (d, e, f) = matrix[:2].astype(np.float32)
    return a * x + b * y + c, d * x + e * y + f


def _sample(layer: np.ndarray, x: np.ndarray, y: np.ndarray, border: int) -> np.ndarray:
    return cv2.remap(layer.astype(np.float32), x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR,
                     borderMode=border)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", nargs="+", choices=CLIPS, default=list(CLIPS))
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--width", type=int, default=384, help="pixels (%(default)s)")
    parser.add_argument("--sources", type=Path, help="folder with cutouts/, photographs/, subjects/")
    args = parser.parse_args()
    sources = find_sources(args.sources, "val")
    for name in args.clips:
        clip = render_clip(CLIPS[name], sources, args.frames, args.width)
        for kind, frames in (("im", clip.images[..., ::-1]), ("gt", clip.alphas)):
            folder = args.out / name / kind
            folder.mkdir(parents=True, exist_ok=True)
            for t, frame in enumerate(frames):
                write(folder / f"{t:04d}.png", np.round(frame * 255).astype(np.uint8))
        np.savez_compressed(args.out / name / "motion.npz", motion=clip.motion, visible=clip.visible, cuts=clip.cuts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
