"""Scenes: a subject with exact soft alpha, lit, textured and set before a background.

Shapes: N side of the scene in pixels; colours N, N, 3 and alpha N, N, float32 in [0, 1].
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from . import textures
from .built_shapes import BUILT
from .canvas import Canvas
from .grown_shapes import GROWN
from .sources import Sources, photograph, read

Generator = np.random.Generator
Shape = Callable[[Canvas, Generator], None]

# Kept for validation, so that its shapes are new, not only its numbers.
HELD_OUT = ("gear", "ladder", "butterfly", "coral", "glasses")
SHAPES: dict[str, tuple[Shape, ...]] = {
    "train": tuple(shape for shape in (*BUILT, *GROWN) if shape.__name__ not in HELD_OUT),
    "val": (*BUILT, *GROWN),
}


@dataclasses.dataclass
class Layer:
    """Something cut out.

    Attributes:
        colours: N, N, 3; they go on where alpha is 0, so that filtering brings no fringe in.
        alpha: N, N.
    """

    colours: np.ndarray
    alpha: np.ndarray


def scene(
    rng: Generator, sources: Sources, split: str, size: int, hard: float = 1.0, photographic: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """One training pair: a composite, or a photograph with its own subject.

    Args:
        rng: Random numbers.
        sources: What scenes are made of.
        split: "train" or "val".
        size: N.
        photographic: Share of scenes beyond the others' own that are photographs: of their own subject, or of one that
            is large and before another photograph. Only where there are subjects.
        hard: Share of hard scenes, 0 to 1: sharp photographs behind, camouflage, distractors, occlusion. In the others
            the subject stands out.

    Returns:
        Colours N, N, 3 and alpha N, N.
    """
    if photographic and sources.subjects and rng.random() < photographic:
        return photographic_scene(rng, sources, size)
    difficult = rng.random() < hard
    if sources.subjects and rng.random() < 0.16:
        own = photograph(rng, _one_of(rng, sources.subjects), size, least=0.8)
        return finish(rng, own[..., :3]), own[..., 3]
    if rng.random() < 0.07:
        return drawing(rng, sources, split, size)
    back = background(rng, sources, size, difficult)
    back = distract(rng, back, sources, split) if rng.random() < 0.12 * difficult else back
    subject = make_subject(rng, sources, split, size, back, difficult)
    if rng.random() < 0.35:
        back = cast_shadow(rng, back, subject.alpha)
    colours = over(subject, back)
    alpha = subject.alpha
    if rng.random() < 0.06 * difficult:
        colours, alpha = occlude(rng, colours, alpha, sources)
    return finish(rng, colours), alpha


def photographic_scene(rng: Generator, sources: Sources, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph's subject before what is behind it there, or before another photograph: colours and alpha."""
    if rng.random() < 0.62 or not sources.photographs:
        own = photograph(rng, _one_of(rng, sources.subjects), size, least=0.7)
        return finish(rng, own[..., :3]), own[..., 3]
    back = photograph(rng, _one_of(rng, sources.photographs), size)[..., :3]
    if rng.random() < 0.3:
        back = cv2.GaussianBlur(back, (0, 0), size / 352 * rng.uniform(0.5, 3))
    layer = place_cutout(rng, read(_one_of(rng, sources.subjects), 448), size, framed=rng.random() < 0.6)
    if layer.alpha.mean() < 0.01:
        return photographic_scene(rng, sources, size)
    if rng.random() < 0.2:
        layer = fringe(rng, layer)
    if rng.random() < 0.3:
        back = cast_shadow(rng, back, layer.alpha)
    return finish(rng, over(layer, back)), layer.alpha


def drawing(rng: Generator, sources: Sources, split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat colours, maybe with a dark outline, before a plain backdrop: colours N, N, 3 and alpha N, N."""
    back = textures.plain(rng, size) if rng.random() < 0.6 else textures.gradient(rng, size)
    layer = _part(rng, sources, split, size, back, difficult=False)
    levels = int(rng.integers(2, 7))
    layer.colours = np.round(cv2.medianBlur(np.round(layer.colours * 255).astype(np.uint8), 5) / 255 * levels) / levels
    if rng.random() < 0.5:
        depth = cv2.distanceTransform((layer.alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
        inner = np.clip(depth - size / 256 * rng.uniform(0.5, 2.5), 0, 1)[..., None]
        layer.colours = inner * layer.colours + (1 - inner) * rng.uniform(0, 0.25, 3)
    if layer.alpha.mean() < 0.01:
        return drawing(rng, sources, split, size)
    return np.clip(over(layer, back), 0, 1).astype(np.float32), layer.alpha


def background(rng: Generator, sources: Sources, size: int, difficult: bool) -> np.ndarray:
    """A photograph, sharp or out of focus, a surface, a studio's backdrop or a plain one."""
    kind = rng.random()
    if sources.photographs and kind < 0.6:
        back = photograph(rng, _one_of(rng, sources.photographs), size)[..., :3]
    elif kind < 0.76:
        back = textures.surface(rng, size)
    elif kind < 0.9:
        return textures.studio(rng, size)
    else:
        back = textures.gradient(rng, size) if rng.random() < 0.7 else textures.plain(rng, size)
    if rng.random() < (0.45 if difficult else 0.9):
        back = cv2.GaussianBlur(back, (0, 0), size / 256 * rng.uniform(0.7 if difficult else 3, 6))
    return back


def make_subject(rng: Generator, sources: Sources, split: str, size: int, back: np.ndarray, difficult: bool) -> Layer:
    """One subject, sometimes several, which may touch."""
    parts = [_part(rng, sources, split, size, back, difficult)]
    while rng.random() < 0.18 and len(parts) < 3:
        parts.append(_part(rng, sources, split, size, back, difficult))
    total = parts[0]
    for part in parts[1:]:
        alpha = part.alpha + total.alpha * (1 - part.alpha)
        total = Layer(over(part, total.colours), alpha)
    return total if 0.004 < total.alpha.mean() < 0.8 else make_subject(rng, sources, split, size, back, difficult)


def _part(rng: Generator, sources: Sources, split: str, size: int, back: np.ndarray, difficult: bool = True) -> Layer:
    own = bool(sources.subjects) and rng.random() < 0.45
    cutouts = sources.subjects if own else sources.cutouts
    if cutouts and rng.random() < 0.65:
        layer = place_cutout(rng, read(_one_of(rng, cutouts), 448), size, framed=rng.random() < (0.5 if own else 0.2))
        if rng.random() < 0.15:  # the outline of a known thing, the surface of another
            layer.colours = _painted(rng, sources, layer.alpha)
        if rng.random() < 0.25:
            layer = fringe(rng, layer)
    else:
        alpha = _shape(rng, split, size)
        if rng.random() < 0.1:
            alpha = cv2.GaussianBlur(alpha, (0, 0), size / 256 * rng.uniform(0.5, 2))
        layer = Layer(_painted(rng, sources, alpha), alpha)
    if rng.random() < 0.3 * difficult:
        layer.colours = match(layer.colours, layer.alpha, back, rng.uniform(0.3, 0.95))
    return layer


def _shape(rng: Generator, split: str, size: int) -> np.ndarray:
    shapes = SHAPES[split]
    canvas = Canvas(size, _matrix(rng, rng.uniform(0.3, 1.05), 1.0))
    shapes[rng.integers(len(shapes))](canvas, rng)
    return canvas.coverage()


def _one_of(rng: Generator, files: Sequence[Path]) -> Path:
    return files[rng.integers(len(files))]


def _painted(rng: Generator, sources: Sources, alpha: np.ndarray) -> np.ndarray:
    size, kind = alpha.shape[0], rng.random()
    if kind < 0.3:
        paint = textures.plain(rng, size)
    elif kind < 0.5 and sources.photographs:
        paint = photograph(rng, _one_of(rng, sources.photographs), size)[..., :3]
    else:
        paint = textures.surface(rng, size)
    return np.clip(paint * textures.relief(rng, alpha)[..., None], 0, 1)


def _matrix(rng: Generator, scale: float, aspect: float) -> np.ndarray:
    """Turns, stretches and moves the plane of a shape; -1 ... 1 both before and after."""
    angle = rng.normal(0, 0.35) if rng.random() < 0.7 else rng.uniform(0, 2 * math.pi)
    stretch = math.exp(rng.normal(0, 0.15))
    mirror = rng.choice([-1, 1])
    shear = rng.normal(0, 0.12)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    matrix = scale * turn @ np.array([[mirror * stretch * aspect, shear], [0, 1 / (stretch * aspect)]])
    room = max(0.1, 1.05 - scale)
    move = np.clip(rng.normal(0, 0.5, 2), -1, 1) * room
    return np.concatenate([matrix, move[:, None]], axis=1)


def _framed(rng: Generator, aspect: float) -> np.ndarray:
    """As ``_matrix``, for something large and upright that the frame's lower edge cuts, as a portrait."""
    scale = rng.uniform(0.75, 1.35)
    cos, sin = np.cos(angle := rng.normal(0, 0.06)), np.sin(angle)
    matrix = scale * np.array([[cos, -sin], [sin, cos]]) @ np.diag([rng.choice([-1, 1]) * aspect, 1 / aspect])
    move = rng.normal(0, 0.3), 1 - scale / aspect + rng.uniform(0, 0.4)
    return np.concatenate([matrix, np.array(move)[:, None]], axis=1)


def fringe(rng: Generator, layer: Layer) -> Layer:
    """Adds hair: thin strands, partly transparent, that grow out of a part of the outline in its colours."""
    size, alpha = layer.alpha.shape[0], layer.alpha
    contours, _ = cv2.findContours((alpha > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=len, default=np.zeros((0, 1, 2)))[:, 0]  # P 2
    if len(outline) < size // 4:
        return layer
    centre, first, share = outline.mean(0), rng.integers(len(outline)), rng.uniform(0.2, 1)
    count, length, bend = int(rng.integers(40, 220)), size * rng.uniform(0.02, 0.12), rng.normal(0, 0.6)
    roots = outline[(first + (rng.random(count) * share * len(outline)).astype(int)) % len(outline)]
    t = np.linspace(0, 1, 8)[:, None]
    large = np.zeros((2 * size, 2 * size), np.uint8)
    for root in roots:
        away = (root - centre) / max(np.hypot(*(root - centre)), 1.0) + rng.normal(0, 0.4, 2)
        side = np.array([-away[1], away[0]]) * (bend + rng.normal(0, 0.2))
        path = root - 2 * away + length * rng.uniform(0.3, 1) * (t * away + t**2 * side)
        cv2.polylines(large, [np.round(2 * path).astype(np.int32)], False, int(rng.integers(90, 256)), 1, cv2.LINE_AA)
    strands = cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    rim = alpha * (1 - cv2.erode(alpha, np.ones((9, 9)))) + 1e-6
    hair = (layer.colours * rim[..., None]).sum((0, 1)) / rim.sum() * rng.uniform(0.6, 1.2)
    total = alpha + strands * (1 - alpha)
    share_own = (alpha / np.maximum(total, 1e-3))[..., None]
    return Layer(np.clip(share_own * layer.colours + (1 - share_own) * hair, 0, 1).astype(np.float32), total)


def place_cutout(rng: Generator, pixels: np.ndarray, size: int, *, framed: bool = False) -> Layer:
    """An image with alpha, turned, scaled and moved; where framed, upright, large and cut by the lower edge."""
    height, width = pixels.shape[:2]
    aspect = math.sqrt(width / height)
    matrix = _framed(rng, aspect) if framed else _matrix(rng, rng.uniform(0.3, 1.0), aspect)
    to_plane = np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
    to_pixels = np.array([[size / 2, 0, size / 2], [0, size / 2, size / 2]])
    full = to_pixels @ np.vstack([matrix, [0, 0, 1]]) @ to_plane
    # Shrinking without aliasing: the image is averaged down first, as far as the map allows.
    ratio = math.sqrt(abs(np.linalg.det(full[:, :2])))
    if ratio < 0.8:
        small = cv2.resize(_premultiplied(pixels), (max(2, round(width * ratio)), max(2, round(height * ratio))),
                           interpolation=cv2.INTER_AREA)  # fmt: skip
        full = full @ np.diag([width / small.shape[1], height / small.shape[0], 1.0])
    else:
        small = _premultiplied(pixels)
    moved = cv2.warpAffine(small, full, (size, size), flags=cv2.INTER_LINEAR)
    alpha = np.clip(moved[..., 3], 0, 1)
    return Layer(np.clip(moved[..., :3] / np.maximum(alpha, 1e-3)[..., None], 0, 1), alpha)


def _premultiplied(pixels: np.ndarray) -> np.ndarray:
    values = pixels.astype(np.float32) / 255
    values[..., :3] *= values[..., 3:]
    return values


def match(colours: np.ndarray, alpha: np.ndarray, back: np.ndarray, strength: float) -> np.ndarray:
    """Camouflage: the subject's mean and spread of colour go towards the background's."""
    weight = alpha[..., None] / max(float(alpha.sum()), 1e-6)
    mean = (colours * weight).sum((0, 1))
    spread = np.sqrt(((colours - mean) ** 2 * weight).sum((0, 1))) + 0.02
    target, target_spread = back.mean((0, 1)), back.std((0, 1)) + 0.02
    moved = (colours - mean) * (1 + strength * (target_spread / spread - 1)) + mean + strength * (target - mean)
    return np.clip(moved, 0, 1).astype(np.float32)


def over(layer: Layer, back: np.ndarray) -> np.ndarray:
    """The layer before the background: a c + (1 - a) b."""
    return layer.alpha[..., None] * layer.colours + (1 - layer.alpha[..., None]) * back


def cast_shadow(rng: Generator, back: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Darkens the background by the subject's blurred outline, moved; not part of the subject."""
    size = alpha.shape[0]
    shift = rng.normal(0, 0.05 * size, 2)
    squash = rng.uniform(0.4, 1.1)
    matrix = np.array([[1, rng.normal(0, 0.25), shift[0]], [0, squash, abs(shift[1]) + (1 - squash) * size * 0.8]])
    shadow = cv2.warpAffine(alpha, matrix, (size, size))
    shadow = cv2.GaussianBlur(shadow, (0, 0), size * rng.uniform(0.005, 0.05))
    return back * (1 - rng.uniform(0.2, 0.7) * shadow[..., None])


def distract(rng: Generator, back: np.ndarray, sources: Sources, split: str) -> np.ndarray:
    """Things far behind, small and out of focus: they belong to the background."""
    size = back.shape[0]
    for _ in range(int(rng.integers(1, 4))):
        layer = _part(rng, sources, split, size, back)
        layer.alpha = layer.alpha * rng.uniform(0.5, 1)
        back = over(layer, back)
    return cv2.GaussianBlur(back, (0, 0), size / 256 * rng.uniform(2.5, 7))


def occlude(rng: Generator, colours: np.ndarray, alpha: np.ndarray, sources: Sources) -> tuple[np.ndarray, np.ndarray]:
    """A bar or a strip at the frame's edge, out of focus, before the subject: not part of it."""
    size = alpha.shape[0]
    cover = np.zeros((size, size), np.float32)
    ends = rng.uniform(-0.2, 1.2, (2, 2)) * size
    cv2.line(cover, tuple(map(int, ends[0])), tuple(map(int, ends[1])), 1.0, int(size * rng.uniform(0.02, 0.09)))
    cover = cv2.GaussianBlur(cover, (0, 0), size / 256 * rng.uniform(2, 5))
    front = Layer(_painted(rng, sources, cover), cover)
    return over(front, colours), alpha * (1 - cover)


def finish(rng: Generator, colours: np.ndarray) -> np.ndarray:
    """What a camera does to all of it: exposure, tint, softness, noise. The alpha stays."""
    size = colours.shape[0]
    if rng.random() < 0.5:
        exposed = np.clip(colours, 0, 1) ** math.exp(rng.normal(0, 0.25))
        colours = exposed * np.clip(1 + rng.normal(0, 0.06, 3), 0.8, 1.2)
    if rng.random() < 0.25:
        colours = cv2.GaussianBlur(colours.astype(np.float32), (0, 0), size / 256 * rng.uniform(0.3, 0.9))
    if rng.random() < 0.4:
        colours = colours + rng.normal(0, rng.uniform(0.005, 0.04), colours.shape)
    return np.clip(colours, 0, 1).astype(np.float32)


def simple_scene(rng: Generator, split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A light shape on a dim cloudy ground: what a new network learns to find within minutes on a CPU.

    Returns:
        Colours N, N, 3 and alpha N, N.
    """
    alpha = _shape(rng, split, size)
    paint = rng.uniform(0.6, 1, 3).astype(np.float32) * textures.relief(rng, alpha)[..., None]
    ground = 0.5 * textures.clouds(rng, size)
    return finish(rng, over(Layer(np.clip(paint, 0, 1), alpha), ground)), alpha
