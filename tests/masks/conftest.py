"""Images with known answers."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor


class Composite(NamedTuple):
    """An image put together from known layers: images 1 H W 3, alpha 1 H W."""

    image: Tensor
    alpha: Tensor
    foreground: Tensor
    background: Tensor


def hair_alpha(size: int, generator: torch.Generator, hairs: int = 80) -> Tensor:
    """A round subject with hairs one to three pixels wide, soft at their edges and partly transparent."""
    at = torch.arange(size) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    centre, radius = size / 2, size * 0.22
    alpha = (radius + 0.5 - ((x - centre) ** 2 + (y - centre) ** 2).sqrt()).clamp(0, 1)
    angle, bend, length, width, opacity = torch.rand(5, hairs, generator=generator)
    for n in range(hairs):
        turn = 2 * math.pi * angle[n].item()
        start = torch.tensor([math.cos(turn), math.sin(turn)]) * radius * 0.95 + centre
        turn += bend[n].item() - 0.5
        along = torch.tensor([math.cos(turn), math.sin(turn)])
        reach = size * (0.06 + 0.16 * length[n])
        place = ((x - start[0]) * along[0] + (y - start[1]) * along[1]).clamp(0, reach)
        distance = ((x - start[0] - place * along[0]) ** 2 + (y - start[1] - place * along[1]) ** 2).sqrt()
        hair = (0.5 + width[n] + 0.5 - distance).clamp(0, 1) * (0.4 + 0.6 * opacity[n])
        alpha = 1 - (1 - alpha) * (1 - hair)
    return alpha[None]


def texture(size: int, generator: torch.Generator, cells: int, low: float, high: float) -> Tensor:
    """Smooth random colours between two values, 1 size size 3."""
    seed = torch.rand(1, 3, cells, cells, generator=generator)
    x = torch.nn.functional.interpolate(seed, size=(size, size), mode="bicubic", align_corners=False)
    return (x.clamp(0, 1) * (high - low) + low).permute(0, 2, 3, 1)


def composite(seed: int = 0, size: int = 192) -> Composite:
    """A hairy subject before a contrasting background."""
    generator = torch.Generator().manual_seed(seed)
    alpha = hair_alpha(size, generator)
    dark, light = (0.0, 0.45), (0.55, 1.0)
    first, second = (dark, light) if seed % 2 else (light, dark)
    foreground = texture(size, generator, 12, *first)
    background = texture(size, generator, 5, *second)
    share = alpha[..., None]
    return Composite(foreground * share + background * (1 - share), alpha, foreground, background)


@pytest.fixture
def make_composite():
    """Builds a ``composite``."""
    return composite


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(0)
