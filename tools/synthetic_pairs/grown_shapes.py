"""Grown things: leaves, trees, hair, insects. Each function draws one on a canvas of -1 ... 1."""

from __future__ import annotations

import math

import numpy as np

from .canvas import Canvas, at, curve, wander

TAU = 2 * math.pi


def blob(canvas: Canvas, rng: np.random.Generator) -> None:
    """A smooth closed outline."""
    canvas.polygon(_outline(rng, rng.uniform(0.1, 0.3)))


def _outline(rng: np.random.Generator, roughness: float, radius: float = 0.7) -> list[tuple[float, float]]:
    angles = np.linspace(0, TAU, 120, endpoint=False)
    waves = sum(rng.normal(0, roughness / (k + 1)) * np.cos(k * angles + rng.uniform(0, TAU)) for k in range(1, 8))
    return [at(a, max(0.1, radius * (1 + w))) for a, w in zip(angles, waves, strict=True)]


def furry(canvas: Canvas, rng: np.random.Generator) -> None:
    """A body whose edge is fur: strands thinner than a pixel."""
    outline = _outline(rng, 0.15, 0.62)
    canvas.polygon(outline)
    length, width = rng.uniform(0.08, 0.35), rng.uniform(0.004, 0.012)
    lean = rng.normal(0, 0.5)
    for i in rng.integers(0, len(outline), int(rng.integers(250, 700))):
        x, y = outline[i]
        angle = math.atan2(y, x) + lean + rng.normal(0, 0.25)
        canvas.line(wander(rng, (x * 0.95, y * 0.95), angle, length * rng.uniform(0.4, 1), 0.12, 8), width)


def hair(canvas: Canvas, rng: np.random.Generator) -> None:
    """A head and shoulders with loose strands."""
    half = rng.uniform(0.3, 0.42)
    canvas.ellipse((0, -0.3), (half, rng.uniform(0.4, 0.5)))
    right = [(0.14, 0), (0.2, 0.35), (0.85, 0.6), (0.95, 1.2)]  # neck and shoulder
    canvas.polygon([*right, *((-x, y) for x, y in reversed(right))])
    length, bend, width = rng.uniform(0.3, 1.1), rng.uniform(0.05, 0.3), rng.uniform(0.004, 0.01)
    for _ in range(int(rng.integers(200, 600))):
        root = rng.uniform(math.pi * 0.95, TAU * 1.03)
        start = (half * math.cos(root), -0.35 + 0.42 * math.sin(root))
        hang = math.pi / 2 + rng.normal(0, 0.25)
        angle = root * 0.55 + hang * 0.45 if rng.random() < 0.4 else hang + 0.3 * math.cos(root)
        canvas.line(wander(rng, start, angle, length * rng.uniform(0.4, 1), bend, 14), width)


def leaf(canvas: Canvas, rng: np.random.Generator) -> None:
    """A blade, plain or toothed, on a stalk."""
    half, teeth = rng.uniform(0.25, 0.5), int(rng.choice([0, 0, 9, 15]))
    ts = np.linspace(0, 1, 80)
    ragged = 1 - (0.18 * ((ts * teeth) % 1) if teeth else 0)
    width = half * np.sin(np.pi * ts**0.8) * ragged
    ys = 0.7 - 1.6 * ts
    canvas.polygon([*zip(width, ys, strict=True), *zip(-width[::-1], ys[::-1], strict=True)])
    canvas.line(curve([(0, 0.65), (0.05, 0.8), (rng.uniform(-0.3, 0.3), 0.98)]), rng.uniform(0.02, 0.05))


def fern(canvas: Canvas, rng: np.random.Generator) -> None:
    """A stem with leaflets on both sides."""
    stem = curve([(0, 0.95), (rng.uniform(-0.3, 0.3), 0.2), (rng.uniform(-0.4, 0.4), -0.9)], int(rng.integers(14, 34)))
    canvas.line(stem, rng.uniform(0.015, 0.035))
    slant, reach, thick = rng.uniform(0.5, 1.2), rng.uniform(0.25, 0.6), rng.uniform(0.02, 0.07)
    for i, (x, y) in enumerate(stem[1:-1]):
        length = reach * math.sin(math.pi * (i + 1) / len(stem)) + 0.05
        for side in (-1, 1):
            tip = at(-math.pi / 2 + side * slant, length, (x, y))
            middle, turn = ((x + tip[0]) / 2, (y + tip[1]) / 2), math.atan2(tip[1] - y, tip[0] - x)
            canvas.ellipse(middle, (length / 2, thick), turn=turn)


def tree(canvas: Canvas, rng: np.random.Generator) -> None:
    """A trunk that forks; bare, or with leaves at the ends."""
    spread, leaves = rng.uniform(0.3, 0.6), rng.random() < 0.5
    shrink, depth = rng.uniform(0.68, 0.8), int(rng.integers(5, 8))

    def grow(start: tuple[float, float], angle: float, length: float, width: float, left: int) -> None:
        end = at(angle, length, start)
        canvas.line([start, end], width)
        if left == 0:
            if leaves:
                canvas.circle(end, rng.uniform(0.015, 0.05))
            return
        for side in (-1, 1) if left < depth or rng.random() < 0.5 else (-1, 0, 1):
            turn = side * spread * rng.uniform(0.6, 1.3) + rng.normal(0, 0.1)
            grow(end, angle + turn, length * shrink * rng.uniform(0.8, 1.1), width * 0.68, left - 1)

    grow((0, 0.98), -math.pi / 2 + rng.normal(0, 0.08), 0.5, rng.uniform(0.06, 0.13), depth)


def flower(canvas: Canvas, rng: np.random.Generator) -> None:
    """Petals on a stem with a leaf."""
    petals, length = int(rng.integers(5, 16)), rng.uniform(0.25, 0.4)
    for i in range(petals):
        angle = TAU * i / petals
        canvas.ellipse(at(angle, length * 0.7, (0, -0.4)), (length * 0.6, length * rng.uniform(0.15, 0.3)), turn=angle)
    canvas.circle((0, -0.4), length * 0.4)
    canvas.line(curve([(0, -0.4), (rng.uniform(-0.3, 0.3), 0.3), (0, 0.98)]), rng.uniform(0.02, 0.06))
    canvas.ellipse((0.2, 0.4), (0.25, 0.07), turn=-0.5)


def feather(canvas: Canvas, rng: np.random.Generator) -> None:
    """A quill with barbs, some apart."""
    width = rng.uniform(0.006, 0.016)
    canvas.line(curve([(0.1, 0.98), (-0.05, 0.2), (0.1, -0.95)]), 0.03)
    for y in np.arange(0.6, -0.95, -rng.uniform(0.008, 0.016)):
        length = 0.34 * math.sin(math.pi * (0.75 - y) / 1.75) ** 0.5 * rng.uniform(0.85, 1.05) if y < 0.7 else 0.1
        for side in (-1, 1):
            canvas.line([(0.02, y), at(-math.pi / 2 + side * rng.uniform(0.75, 0.95), length, (0.02, y))], width)


def insect(canvas: Canvas, rng: np.random.Generator) -> None:
    """A jointed body with legs and feelers, wings or none."""
    canvas.ellipse((0, 0.35), (rng.uniform(0.12, 0.22), 0.42))
    canvas.ellipse((0, -0.15), (0.13, 0.17))
    canvas.circle((0, -0.4), 0.11)
    width = rng.uniform(0.015, 0.035)
    for i in range(3):
        for side in (-1, 1):
            y = -0.2 + 0.12 * i
            knee = (side * rng.uniform(0.35, 0.55), y - 0.25 + 0.2 * i)
            canvas.line([(0, y), knee, (side * rng.uniform(0.6, 0.85), y + 0.1 + 0.28 * i)], width)
    for side in (-1, 1):
        canvas.line(curve([(0, -0.45), (side * 0.1, -0.75), (side * 0.4, -0.95)]), width * 0.6)
        if rng.random() < 0.5:
            canvas.ellipse((side * 0.45, 0.1), (0.42, 0.16), turn=side * rng.uniform(-0.7, 0.2))


def butterfly(canvas: Canvas, rng: np.random.Generator) -> None:
    """Four wings with spots cut out."""
    upper, lower = (rng.uniform(0.35, 0.48), rng.uniform(0.25, 0.4)), (rng.uniform(0.25, 0.38), rng.uniform(0.2, 0.3))
    for side in (-1, 1):
        canvas.ellipse((side * 0.45, -0.3), upper, turn=-side * 0.6)
        canvas.ellipse((side * 0.35, 0.35), lower, turn=side * 0.7)
        for _ in range(int(rng.integers(0, 4))):
            canvas.circle((side * rng.uniform(0.3, 0.65), rng.uniform(-0.45, 0.4)), rng.uniform(0.02, 0.06), value=0)
        canvas.line(curve([(0, -0.5), (side * 0.1, -0.8), (side * 0.3, -0.95)]), 0.015)
    canvas.ellipse((0, 0), (0.06, 0.55))


def spider(canvas: Canvas, rng: np.random.Generator) -> None:
    """Eight bent legs; sometimes its web instead."""
    if rng.random() < 0.5:
        spokes, rings, width = int(rng.integers(8, 15)), int(rng.integers(5, 11)), rng.uniform(0.01, 0.02)
        for i in range(spokes):
            canvas.line([(0, 0), at(TAU * i / spokes, 0.95)], width)
        for radius in np.linspace(0.12, 0.9, rings):
            canvas.line([at(TAU * i / spokes, radius) for i in range(spokes + 1)], width)
        return
    canvas.circle((0, 0.15), rng.uniform(0.15, 0.28))
    canvas.circle((0, -0.15), 0.14)
    for i in range(4):
        for side in (-1, 1):
            lift = -0.55 + 0.3 * i
            foot = (side * rng.uniform(0.75, 0.95), lift + 0.35)
            canvas.line([(0, -0.12), (side * 0.45, lift), foot], rng.uniform(0.02, 0.04))


def coral(canvas: Canvas, rng: np.random.Generator) -> None:
    """Branches that wander away from a foot."""
    for _ in range(int(rng.integers(8, 26))):
        foot, angle = (rng.normal(0, 0.08), 0.9), -math.pi / 2 + rng.normal(0, 0.6)
        path = wander(rng, foot, angle, rng.uniform(0.8, 1.9), 0.2, 20)
        for (x, y), (u, v), share in zip(path, path[1:], np.linspace(1, 0.25, len(path) - 1), strict=False):
            canvas.line([(x, y), (u, v)], 0.07 * share)


def grass(canvas: Canvas, rng: np.random.Generator) -> None:
    """A tuft of blades."""
    for _ in range(int(rng.integers(12, 60))):
        root, lean = rng.normal(0, 0.12), rng.normal(0, 0.45)
        tip = (root + lean, -rng.uniform(0.1, 0.95))
        bow = (root + lean * 0.2, rng.uniform(-0.3, 0.3))
        half = rng.uniform(0.01, 0.03)
        canvas.polygon([(root - half, 0.9), bow, tip, (bow[0] + half * 2, bow[1]), (root + half, 0.9)])


def animal(canvas: Canvas, rng: np.random.Generator) -> None:
    """A body on legs with a head, ears and a tail."""
    canvas.ellipse((0, 0), (rng.uniform(0.4, 0.55), rng.uniform(0.2, 0.3)))
    leg = rng.uniform(0.05, 0.13)
    for x in (-0.38, -0.25, 0.25, 0.38):
        canvas.line([(x, 0.05), (x + rng.uniform(-0.1, 0.1), 0.45), (x + rng.uniform(-0.12, 0.12), 0.85)], leg)
    head = (0.62, rng.uniform(-0.5, -0.1))
    canvas.line([(0.35, -0.05), head], rng.uniform(0.15, 0.3))
    canvas.ellipse(head, (rng.uniform(0.15, 0.25), rng.uniform(0.12, 0.2)), turn=rng.uniform(-0.3, 0.5))
    for side in (-0.08, 0.06):
        x = head[0] + side
        tip = (x + rng.uniform(-0.1, 0.1), head[1] - rng.uniform(0.25, 0.45))
        canvas.polygon([(x - 0.06, head[1] - 0.08), tip, (x + 0.06, head[1] - 0.08)])
    tail = wander(rng, (-0.45, -0.05), math.pi + rng.normal(0.3, 0.5), rng.uniform(0.3, 0.7), 0.2, 12)
    canvas.line(tail, rng.uniform(0.03, 0.08))


GROWN = (blob, furry, hair, leaf, fern, tree, flower, feather, insect, butterfly, spider, coral, grass, animal)
