"""Made things: slender, jointed, full of holes. Each function draws one on a canvas of -1 ... 1."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np

from .canvas import Canvas, at, curve, ellipse, wander

TAU = 2 * math.pi


def wheel(canvas: Canvas, rng: np.random.Generator) -> None:
    """A rim, a hub and spokes."""
    rim, spokes = rng.uniform(0.03, 0.14), int(rng.integers(5, 33))
    canvas.circle((0, 0), 0.9, rim)
    canvas.circle((0, 0), rng.uniform(0.06, 0.2))
    crossed = rng.uniform(0, 0.5) if rng.random() < 0.4 else 0.0
    width = rng.uniform(0.008, 0.04)
    for i in range(spokes):
        angle = TAU * i / spokes
        canvas.line([at(angle + crossed * (-1) ** i, 0.1), at(angle, 0.9)], width)


def bicycle(canvas: Canvas, rng: np.random.Generator) -> None:
    """Two wheels and a frame of tubes."""
    radius, tube = rng.uniform(0.32, 0.42), rng.uniform(0.02, 0.05)
    back, front = (-0.55, 0.35), (0.55, 0.35)
    for centre in (back, front):
        canvas.circle(centre, radius, rng.uniform(0.02, 0.06))
        for i in range(int(rng.integers(8, 22))):
            canvas.line([centre, at(TAU * i / 16 + 0.1, radius, centre)], 0.008)
    pedal, seat, bar = (-0.08, 0.38), (-0.25, -0.3), (0.38, -0.35)
    for path in ([back, pedal, seat, back], [seat, (0.36, -0.22)], [pedal, (0.36, -0.22)], [front, bar]):
        canvas.line(path, tube)
    canvas.line([(-0.4, -0.34), (-0.1, -0.34)], tube * 2)
    canvas.line(curve([(0.25, -0.38), bar, (0.6, -0.45), (0.55, -0.2)]), tube)
    canvas.circle(pedal, 0.1, tube)


def net(canvas: Canvas, rng: np.random.Generator) -> None:
    """A round or square frame with a mesh."""
    width, gap = rng.uniform(0.012, 0.035), rng.uniform(0.1, 0.24)
    round_frame = rng.random() < 0.6
    for x in np.arange(-0.85, 0.86, gap):
        reach = math.sqrt(max(0.0, 0.85**2 - x * x)) if round_frame else 0.85
        canvas.line([(x, -reach), (x, reach)], width)
        canvas.line([(-reach, x), (reach, x)], width)
    frame = rng.uniform(0.04, 0.1)
    if round_frame:
        canvas.circle((0, 0), 0.85, frame)
        canvas.line([(0, 0.85), (0, 1.6)], frame * 1.5)
    else:
        canvas.line([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85), (-0.85, -0.85)], frame)


def fence(canvas: Canvas, rng: np.random.Generator) -> None:
    """Pickets on rails."""
    count = int(rng.integers(4, 12))
    gap, top = 1.8 / count, rng.uniform(-0.9, -0.4)
    width = gap * rng.uniform(0.2, 0.65)
    for x in -0.9 + gap * (np.arange(count) + 0.5):
        tip = top - width * 0.8
        left, right = x - width / 2, x + width / 2
        canvas.polygon([(left, 0.85), (left, top), (x, tip), (right, top), (right, 0.85)])
    for y in (top + 0.25, 0.6):
        canvas.line([(-0.95, y), (0.95, y)], rng.uniform(0.05, 0.12))


def ladder(canvas: Canvas, rng: np.random.Generator) -> None:
    """Two rails and rungs."""
    half, rungs, width = rng.uniform(0.18, 0.4), int(rng.integers(5, 13)), rng.uniform(0.03, 0.08)
    taper = rng.uniform(0.6, 1.0)
    canvas.line([(-half, 0.95), (-half * taper, -0.95)], width * 1.3)
    canvas.line([(half, 0.95), (half * taper, -0.95)], width * 1.3)
    for y in np.linspace(0.8, -0.8, rungs):
        reach = half * (taper + (1 - taper) * (y + 0.95) / 1.9)
        canvas.line([(-reach, y), (reach, y)], width)


def antenna(canvas: Canvas, rng: np.random.Generator) -> None:
    """A mast with cross bars that get shorter."""
    width = rng.uniform(0.015, 0.04)
    canvas.line([(0, 0.95), (0, -0.95)], width * 1.6)
    for i in range(int(rng.integers(4, 12))):
        y, reach = -0.9 + i * 0.13, 0.2 + 0.06 * i
        canvas.line([(-reach, y), (reach, y)], width)
    canvas.line([(-0.3, 0.95), (0, 0.5), (0.3, 0.95)], width * 1.3)


def lattice_tower(canvas: Canvas, rng: np.random.Generator) -> None:
    """A pylon of crossed struts, with arms."""
    width, storeys = rng.uniform(0.015, 0.035), int(rng.integers(5, 10))
    ys = np.linspace(0.95, -0.9, storeys + 1)
    half = np.linspace(rng.uniform(0.3, 0.5), rng.uniform(0.03, 0.1), storeys + 1)
    for (y, a), (z, b) in zip(zip(ys, half, strict=True), list(zip(ys, half, strict=True))[1:], strict=False):
        for path in ([(-a, y), (-b, z)], [(a, y), (b, z)], [(-a, y), (b, z)], [(a, y), (-b, z)], [(-b, z), (b, z)]):
            canvas.line(path, width)
    for y in rng.uniform(-0.85, -0.2, int(rng.integers(1, 4))):
        canvas.line([(-0.7, y), (0, y - 0.1), (0.7, y), (-0.7, y)], width)


def scissors(canvas: Canvas, rng: np.random.Generator) -> None:
    """Two blades that cross, two rings."""
    opening = rng.uniform(0.1, 0.6)
    for side in (-1, 1):
        tip = at(-math.pi / 2 + side * opening / 2, 0.95)
        heel = at(math.pi / 2 + side * opening / 2, 0.45)
        across = at(side * opening / 2, 0.06)
        canvas.polygon([tip, (across[0], across[1]), heel, (-across[0], -across[1])])
        ring = at(math.pi / 2 + side * (opening / 2 + 0.18), 0.7)
        canvas.ellipse(ring, (0.17, 0.24), rng.uniform(0.05, 0.09), turn=side * opening / 2)
    canvas.circle((0, 0), 0.05)


def glasses(canvas: Canvas, rng: np.random.Generator) -> None:
    """Two rings, a bridge, temples."""
    width, radius = rng.uniform(0.02, 0.07), (rng.uniform(0.27, 0.38), rng.uniform(0.2, 0.36))
    for x in (-0.45, 0.45):
        canvas.ellipse((x, 0), radius, width)
    canvas.line(curve([(-0.15, -0.05), (0, -0.2), (0.15, -0.05)]), width)
    for side in (-1, 1):
        canvas.line(curve([(side * 0.8, -0.05), (side * 1.0, -0.3), (side * rng.uniform(0.5, 1.0), -0.6)]), width)


def chair(canvas: Canvas, rng: np.random.Generator) -> None:
    """Four legs, a seat, a back with bars."""
    leg = rng.uniform(0.025, 0.08)
    seat = [(-0.55, 0.1), (0.35, 0.1), (0.6, 0.28), (-0.3, 0.28)]
    canvas.polygon(seat)
    for x, y in seat:
        canvas.line([(x, y), (x + rng.uniform(-0.06, 0.06), y + 0.65)], leg)
    canvas.line([(-0.55, 0.1), (-0.6, -0.9), (0.3, -0.9), (0.35, 0.1)], leg)
    for x in np.linspace(-0.5, 0.25, int(rng.integers(2, 7))):
        canvas.line([(x, 0.1), (x - 0.04, -0.9)], leg * 0.7)


def birdcage(canvas: Canvas, rng: np.random.Generator) -> None:
    """Bars under a dome."""
    width = rng.uniform(0.012, 0.03)
    for x in np.linspace(-0.6, 0.6, int(rng.integers(6, 14))):
        canvas.line(curve([(x, 0.8), (x, -0.5), (x * 0.8, -0.9), (0, -0.9)]), width)
    for y in (0.8, 0.3, -0.2):
        canvas.ellipse((0, y), (0.6, 0.1), width * 1.6)
    canvas.ellipse((0, 0.82), (0.63, 0.12))
    canvas.circle((0, -0.95), 0.07, width * 1.5)


def racket(canvas: Canvas, rng: np.random.Generator) -> None:
    """A strung head on a handle."""
    a, b = rng.uniform(0.35, 0.45), rng.uniform(0.45, 0.55)
    for x in np.linspace(-a, a, int(rng.integers(8, 16))):
        reach = b * math.sqrt(max(0.0, 1 - (x / a) ** 2))
        canvas.line([(x, -0.4 - reach), (x, -0.4 + reach)], 0.01)
    for y in np.linspace(-b, b, int(rng.integers(9, 18))):
        reach = a * math.sqrt(max(0.0, 1 - (y / b) ** 2))
        canvas.line([(-reach, -0.4 + y), (reach, -0.4 + y)], 0.01)
    canvas.ellipse((0, -0.4), (a, b), rng.uniform(0.04, 0.08))
    canvas.line([(-0.2, 0.05), (0, 0.35), (0.2, 0.05)], 0.04)
    canvas.line([(0, 0.3), (0, 0.98)], rng.uniform(0.08, 0.14))


def umbrella(canvas: Canvas, rng: np.random.Generator) -> None:
    """A canopy with ribs, or only the ribs, and a crook."""
    ribs = int(rng.integers(4, 8))
    edge = [(x, 0.0 + 0.08 * abs(math.sin(ribs * math.pi * (x + 0.9) / 1.8))) for x in np.linspace(-0.9, 0.9, 60)]
    dome = ellipse((0, 0), (0.9, rng.uniform(0.6, 0.85)), 0.0, math.pi, TAU)
    if rng.random() < 0.6:
        canvas.polygon([*dome, *reversed(edge)])
    canvas.line(dome, 0.03)
    for x in np.linspace(-0.9, 0.9, ribs + 1):
        canvas.line(curve([(x, 0.02), (x * 0.8, -0.6), (0, -0.75)]), 0.02)
    canvas.line([(0, -0.85), (0, 0.75)], rng.uniform(0.02, 0.05))
    canvas.line(ellipse((0.1, 0.75), (0.1, 0.14), 0.0, 0.0, math.pi), 0.045)


def key(canvas: Canvas, rng: np.random.Generator) -> None:
    """A bow with a hole, a shaft, a bit."""
    bow = rng.uniform(0.22, 0.34)
    canvas.circle((-0.6, 0), bow, rng.uniform(0.06, 0.14))
    canvas.line([(-0.6 + bow, 0), (0.92, 0)], rng.uniform(0.07, 0.12))
    for x in rng.uniform(0.35, 0.9, int(rng.integers(2, 6))):
        canvas.line([(x, 0), (x, rng.uniform(0.12, 0.32))], rng.uniform(0.05, 0.09))


def fork(canvas: Canvas, rng: np.random.Generator) -> None:
    """Tines on a handle; also rakes and combs."""
    tines, half = int(rng.integers(3, 14)), rng.uniform(0.15, 0.7)
    root = rng.uniform(-0.4, -0.1)
    for x in np.linspace(-half, half, tines):
        canvas.line([(x, -0.95), (x, root)], min(0.09, 0.9 * half / tines))
    canvas.line([(-half, root), (half, root)], rng.uniform(0.06, 0.14))
    canvas.line(curve([(-half, root), (0, root + 0.25), (half, root)]), 0.06)
    canvas.line([(0, root), (0, 0.95)], rng.uniform(0.05, 0.13))


def hanger(canvas: Canvas, rng: np.random.Generator) -> None:
    """A bent wire."""
    width, drop = rng.uniform(0.025, 0.07), rng.uniform(0.25, 0.5)
    canvas.line([(0, -0.2), (0.9, -0.2 + drop), (-0.9, -0.2 + drop), (0, -0.2), (0, -0.4)], width)
    canvas.line(ellipse((0.0, -0.58), (0.18, 0.18), 0.0, -math.pi, math.pi / 2), width)


def cable(canvas: Canvas, rng: np.random.Generator) -> None:
    """A tangle of one or more cords, some with plugs."""
    for _ in range(int(rng.integers(1, 5))):
        width = rng.uniform(0.02, 0.06)
        start = tuple(rng.uniform(-0.7, 0.7, 2))
        path = wander(rng, start, rng.uniform(0, TAU), rng.uniform(2, 5), rng.uniform(0.25, 0.5), 60)
        path = [(float(np.clip(x, -0.95, 0.95)), float(np.clip(y, -0.95, 0.95))) for x, y in path]
        canvas.line(path, width)
        if rng.random() < 0.5:
            canvas.line(path[-3:], width * 3)


def chain(canvas: Canvas, rng: np.random.Generator) -> None:
    """Links along a curve."""
    path = curve(rng.uniform(-0.9, 0.9, (4, 2)), int(rng.integers(10, 22)))
    for i, ((x, y), (u, v)) in enumerate(pairwise(path)):
        angle, half = math.atan2(v - y, u - x), math.hypot(u - x, v - y) * 0.65
        canvas.ellipse(((x + u) / 2, (y + v) / 2), (half, half * (0.6 if i % 2 else 0.25)), 0.03, turn=angle)


def gear(canvas: Canvas, rng: np.random.Generator) -> None:
    """Teeth around a disc with holes."""
    teeth, root = int(rng.integers(8, 28)), rng.uniform(0.62, 0.8)
    outline = []
    for i in range(teeth):
        for share, radius in ((0.0, root), (0.2, 0.92), (0.5, 0.92), (0.7, root)):
            outline.append(at(TAU * (i + share) / teeth, radius))
    canvas.polygon(outline)
    canvas.circle((0, 0), rng.uniform(0.1, 0.3), value=0)
    holes = int(rng.integers(0, 8))
    for i in range(holes):
        canvas.circle(at(TAU * i / holes, root * 0.62), root * min(0.2, 1.2 / holes), value=0)


def lace(canvas: Canvas, rng: np.random.Generator) -> None:
    """A doily: rings of loops and petals."""
    fold, width = int(rng.integers(8, 20)), rng.uniform(0.015, 0.03)
    for radius in np.linspace(0.2, 0.88, int(rng.integers(3, 6))):
        canvas.circle((0, 0), radius, width)
        for i in range(fold):
            angle = TAU * (i + rng.integers(0, 2) * 0.5) / fold
            canvas.ellipse(at(angle, radius), (radius * 2.6 / fold, 0.05), width, turn=angle + math.pi / 2)
    for i in range(fold):
        canvas.line([at(TAU * i / fold, 0.15), at(TAU * i / fold, 0.88)], width)
        canvas.circle(at(TAU * i / fold, 0.9), 0.06, width)


def text(canvas: Canvas, rng: np.random.Generator) -> None:
    """Letters as thick strokes."""
    letters = "".join(rng.choice(list("ABCDEFGHKMNPRSTUVWXYZabdefghkmnpqrty23456789&?"), int(rng.integers(1, 5))))
    font = int(rng.choice([0, 2, 3, 4, 6, 7]))
    scale = 4.0
    (width, height), base = cv2.getTextSize(letters, font, scale, 1)
    thick = int(rng.integers(6, 26))
    image = np.zeros((height + base + 60, width + 60), np.uint8)
    cv2.putText(image, letters, (30, height + 30), font, scale, 255, thick)
    outlines, nested = cv2.findContours(image, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    middle, unit = np.array(image.shape[::-1]) / 2, max(image.shape) / 1.9
    order = sorted(range(len(outlines)), key=lambda i: nested[0, i, 3] >= 0)  # holes last
    for i in order:
        canvas.polygon((outlines[i][:, 0] - middle) / unit, value=0.0 if nested[0, i, 3] >= 0 else 1.0)


def frame_of_bars(canvas: Canvas, rng: np.random.Generator) -> None:
    """A shelf, a window or a scaffold: bars at right angles."""
    width = rng.uniform(0.02, 0.07)
    xs = np.sort(rng.uniform(-0.8, 0.8, int(rng.integers(2, 6))))
    ys = np.sort(rng.uniform(-0.9, 0.9, int(rng.integers(2, 7))))
    for x in (xs[0], *xs, xs[-1]):
        canvas.line([(x, -0.95), (x, 0.95)], width)
    for y in ys:
        canvas.line([(xs[0], y), (xs[-1], y)], width * rng.uniform(0.6, 1.6))


BUILT = (
    wheel, bicycle, net, fence, ladder, antenna, lattice_tower, scissors, glasses, chair, birdcage, racket, umbrella,
    key, fork, hanger, cable, chain, gear, lace, text, frame_of_bars,
)  # fmt: skip
