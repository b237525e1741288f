"""Procedural surfaces and shading: N, N, 3 float32 in [0, 1]."""

from __future__ import annotations

import cv2
import numpy as np

Generator = np.random.Generator


def noise(rng: Generator, size: int, roughness: float = 0.5) -> np.ndarray:
    """N, N in [0, 1]: random values at doubling scales, each ``roughness`` times as strong as the coarser one."""
    total, strength, cells = np.zeros((size, size), np.float32), 1.0, int(rng.integers(2, 5))
    while cells < size:
        grid = rng.random((cells, cells), np.float32)
        total += strength * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        strength, cells = strength * roughness, cells * 2
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-6)


def colour(rng: Generator) -> np.ndarray:
    """One colour, 3: greys and saturated ones alike."""
    grey = rng.random()
    return np.clip(grey + rng.normal(0, rng.choice([0.02, 0.15, 0.35]), 3), 0.02, 0.98).astype(np.float32)


def blend(share: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """N, N shares of the first colour -> N, N, 3."""
    return share[..., None] * one + (1 - share[..., None]) * other


def clouds(rng: Generator, size: int) -> np.ndarray:
    """Noise between two colours."""
    return blend(noise(rng, size, rng.uniform(0.35, 0.8)), colour(rng), colour(rng))


def gradient(rng: Generator, size: int) -> np.ndarray:
    """A slow change of colour, as of a studio's backdrop or a sky."""
    x, y = _plane(size)
    angle = rng.uniform(0, 2 * np.pi)
    share = np.cos(angle) * x + np.sin(angle) * y if rng.random() < 0.6 else np.hypot(x - rng.normal(0, 0.4), y)
    share = (share - share.min()) / np.ptp(share)
    return blend(share.astype(np.float32), colour(rng), colour(rng))


def stripes(rng: Generator, size: int) -> np.ndarray:
    """Stripes or checks, straight or warped."""
    x, y = _plane(size)
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.05, 0.5)
    warp = rng.choice([0.0, 0.0, 0.3]) * noise(rng, size)
    across, along = np.cos(angle) * x + np.sin(angle) * y + warp, -np.sin(angle) * x + np.cos(angle) * y + warp
    wave = np.sin(2 * np.pi * across / period)
    if rng.random() < 0.4:
        wave = wave * np.sin(2 * np.pi * along / period)
    share = np.clip(wave * rng.uniform(1, 8) + 0.5, 0, 1).astype(np.float32)
    return blend(share, colour(rng), colour(rng))


def grain(rng: Generator, size: int) -> np.ndarray:
    """Wood, brushed metal, cloth: noise stretched along one direction."""
    long = noise(rng, size, 0.75)
    strip = long[:, : max(4, size // int(rng.integers(8, 30)))]
    stretched = cv2.resize(strip, (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        stretched = stretched.T
    return blend(np.clip(stretched, 0, 1), colour(rng), colour(rng))


def bricks(rng: Generator, size: int) -> np.ndarray:
    """Rows of blocks with joints, each block of a shade of its own."""
    rows = int(rng.integers(4, 14))
    height = size / rows
    width = height * rng.uniform(1, 3)
    ys, xs = np.mgrid[0:size, 0:size]
    row = (ys / height).astype(int)
    shift = (row % 2) * width / 2 * (rng.random() < 0.8)
    column = ((xs + shift) / width).astype(int)
    shade = rng.random((rows + 2, column.max() + 2)).astype(np.float32)[row, column]
    joint = (ys % height < height * 0.1) | ((xs + shift) % width < height * 0.1)
    surface = blend(shade, colour(rng), colour(rng)) * (0.8 + 0.2 * noise(rng, size, 0.8))[..., None]
    return np.where(joint[..., None], colour(rng), surface).astype(np.float32)


def spots(rng: Generator, size: int) -> np.ndarray:
    """Foliage, gravel, fur: thresholded noise in several colours."""
    total = clouds(rng, size)
    for _ in range(int(rng.integers(1, 4))):
        share = np.clip((noise(rng, size, rng.uniform(0.6, 0.95)) - rng.uniform(0.4, 0.65)) * 12, 0, 1)
        total = blend(share, colour(rng), total)
    return total


def plain(rng: Generator, size: int) -> np.ndarray:
    """One colour."""
    return np.broadcast_to(colour(rng), (size, size, 3)).astype(np.float32)


def studio(rng: Generator, size: int) -> np.ndarray:
    """A photographer's backdrop: white, grey or of one light colour, brighter in the middle, maybe with a floor."""
    x, y = _plane(size)
    base = np.clip(rng.uniform(0.55, 1.0) + rng.normal(0, rng.choice([0.0, 0.03, 0.1]), 3), 0.1, 1)
    if rng.random() < 0.15:
        base = base * rng.uniform(0.05, 0.5)
    light = 1 - rng.uniform(0, 0.25) * np.hypot(x - rng.normal(0, 0.3), y - rng.normal(0, 0.3))
    if rng.random() < 0.3:
        floor = (1 + np.tanh((y - rng.uniform(0.2, 0.8)) * rng.uniform(5, 30))) / 2
        light = light * (1 - rng.uniform(0.03, 0.2) * floor)
    return np.clip(light[..., None] * base, 0, 1).astype(np.float32)


SURFACES = (clouds, gradient, stripes, grain, bricks, spots)


def surface(rng: Generator, size: int) -> np.ndarray:
    """One of the surfaces."""
    return np.clip(SURFACES[rng.integers(len(SURFACES))](rng, size), 0, 1)


def relief(rng: Generator, alpha: np.ndarray) -> np.ndarray:
    """N, N factors of a subject's colours: light from one side on a body that bulges towards its middle."""
    size = alpha.shape[0]
    depth = cv2.distanceTransform((alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    limit = rng.uniform(0.01, 0.12) * size
    rise = np.minimum(depth / limit, 1)
    height = cv2.GaussianBlur(np.sqrt(2 * rise - rise**2) * limit, (0, 0), max(0.6, limit * 0.15))  # a rounded rim
    slope_x, slope_y = (cv2.Sobel(height, cv2.CV_32F, dx, 1 - dx, scale=0.125) for dx in (1, 0))
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.6)
    light = (np.cos(angle) * slope_x + np.sin(angle) * slope_y) / np.sqrt(1 + slope_x**2 + slope_y**2)
    return np.clip(1 + strength * light, 0.3, 1.7).astype(np.float32)


def _plane(size: int) -> tuple[np.ndarray, np.ndarray]:
    line = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    return x, y
