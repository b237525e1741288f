"""Samples, and the plan of which sample comes when.

What a sample looks like depends on the seed, the epoch and its place in the epoch, never on the process that made
it; so resuming, and other numbers of workers or processes, change nothing.

Shapes: B batch, H W network input.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import DatasetError, ImageError
from ..images import read_image
from ..inference.transforms import IMAGENET_MEAN, IMAGENET_STD
from ..network.birefnet import SIZE_MULTIPLE
from .augment import Augmentation, Chance, augment, cover, replace_background
from .data import NO_CLASS, Pair, class_name
from .reading import read_pair
from .recipe import Recipe


def seed_of(*parts: int | str) -> int:
    """A seed that depends on all its parts, well mixed; the same on every machine."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # torch takes 63 bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """One sample to be made.

    Attributes:
        index: Of the pair.
        seed: Of its augmentation.
        size: Width and height.
    """

    index: int
    seed: int
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples of one step.

    Attributes:
        images: B, 3, H, W normalised.
        masks: B, 1, H, W in [0, 1].
        classes: B int64, -1 where not known.
        names: Of the pairs.
    """

    images: Tensor
    masks: Tensor
    classes: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """On that device."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in ("images", "masks", "classes")}
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> Batch:
        """In memory that a GPU can fetch from; called by the DataLoader."""
        moved = {name: getattr(self, name).pin_memory() for name in ("images", "masks", "classes")}
        return dataclasses.replace(self, **moved)


class SegmentationDataset(Dataset):
    """Pairs -> augmented samples.

    Args:
        pairs: Images and masks.
        options: Augmentation.
        backgrounds: Images to put subjects on.
        labels: Numbers of the classes in file names; None for none.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        options: Augmentation,
        backgrounds: Sequence[Path] = (),
        labels: Mapping[str, int] | None = None,
    ) -> None:
        self.pairs, self.options, self.backgrounds = tuple(pairs), options, tuple(backgrounds)
        self.labels = labels or {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int, str]:
        """Four channels H, W (colours in [0, 1] and mask), class, name."""
        pair, chance = self.pairs[draw.index], Chance(draw.seed)
        pixels = augment(self.read(draw.index, chance), draw.size, self.options, chance)
        return pixels, self.labels.get(class_name(pair) or "", NO_CLASS), pair.name

    def read(self, index: int, chance: Chance) -> Tensor:
        """Colours and mask of a pair in its own size, 4, H, W, on the background it gets."""
        colours, mask = read_pair(self.pairs[index])
        pixels = torch.cat([colours.permute(2, 0, 1), mask[None]])
        return self._on_background(pixels, self.pairs[index], chance)

    def _on_background(self, pixels: Tensor, pair: Pair, chance: Chance) -> Tensor:
        """A cut-out always needs a background; other images get a new one now and then."""
        composite = chance.happens(self.options.composite_background) or pair.mask is None
        plain = chance.happens(self.options.plain_background)
        size = (pixels.shape[2], pixels.shape[1])
        if composite and self.backgrounds and not plain:
            path = self.backgrounds[chance.whole(len(self.backgrounds))]
            try:
                background = read_image(path).permute(2, 0, 1)  # 3 h w
            except ImageError as error:
                raise DatasetError(f"background {error}") from error
            return replace_background(pixels, cover(background, size, chance))
        if plain or pair.mask is None:
            colour = torch.rand(3, 1, 1, generator=chance.generator)
            return replace_background(pixels, colour.expand(3, *pixels.shape[1:]))
        return pixels


def collate(samples: Sequence[tuple[Tensor, int, str]]) -> Batch:
    """Samples -> batch, normalised as for inference."""
    pixels = torch.stack([pixels for pixels, _, _ in samples])  # B 4 H W
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return Batch(
        images=(pixels[:, :3] - mean) / std,
        masks=pixels[:, 3:].clone(),
        classes=torch.tensor([label for _, label, _ in samples]),
        names=tuple(name for _, _, name in samples),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Which samples each process takes in each step of each epoch.

    Each batch is full: the last one of an epoch is filled up from the epoch's beginning, so that batch statistics,
    gradients of several processes and memory are those of any other batch.

    Attributes:
        samples: In the data set.
        recipe: For batch size, sizes and seed.
        rank: Number of this process.
        world: Number of processes.
    """

    samples: int
    recipe: Recipe
    rank: int = 0
    world: int = 1

    @property
    def batches(self) -> int:
        """Batches of a process in an epoch."""
        return -(-self.samples // (self.recipe.batch_size * self.world))

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-self.batches // self.recipe.accumulate)

    def order(self, epoch: int) -> list[int]:
        """The samples of an epoch, filled up."""
        generator = torch.Generator().manual_seed(seed_of(self.recipe.seed, "order", epoch))
        order = torch.randperm(self.samples, generator=generator).tolist()
        total = self.batches * self.recipe.batch_size * self.world
        return (order * (-(-total // len(order))))[:total]

    def size(self, epoch: int, batch: int) -> tuple[int, int]:
        """Width and height in a batch, the same in every process."""
        if self.recipe.growth:
            sides = self.recipe.growth
            part = (epoch * self.batches + batch) * (len(sides) + 1) // (self.recipe.epochs * self.batches)
            return (sides[part], sides[part]) if part < len(sides) else self.recipe.size
        if not self.recipe.dynamic:
            return self.recipe.size
        low, high = self.recipe.dynamic
        chance = Chance(seed_of(self.recipe.seed, "size", epoch, batch))
        side = low + SIZE_MULTIPLE * chance.whole((high - low) // SIZE_MULTIPLE + 1)
        return side, side

    def draws(self, epoch: int, first: int = 0) -> Iterator[list[Draw]]:
        """The batches of this process in an epoch, from batch number ``first``."""
        order, size = self.order(epoch), self.recipe.batch_size
        for batch in range(first, self.batches):
            start = (batch * self.world + self.rank) * size
            yield [
                Draw(
                    index=order[place],
                    seed=seed_of(self.recipe.seed, "sample", epoch, place),
                    size=self.size(epoch, batch),
                )
                for place in range(start, start + size)
            ]


class _Batches(Sampler):
    """The plan of one epoch as the DataLoader wants it."""

    def __init__(self, plan: Plan, epoch: int, first: int) -> None:
        self.plan, self.epoch, self.first = plan, epoch, first

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.plan.draws(self.epoch, self.first)

    def __len__(self) -> int:
        return self.plan.batches - self.first


def batches(dataset: SegmentationDataset, plan: Plan, epoch: int, first: int, device: torch.device) -> Iterator[Batch]:
    """The batches of this process in an epoch, from batch number ``first``, read ahead by the workers."""
    loader = DataLoader(
        dataset,
        batch_sampler=_Batches(plan, epoch, first),
        collate_fn=collate,
        num_workers=plan.recipe.workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=_start_worker,
        # Its own generator: making an iterator draws a number, which must not come from the training's.
        generator=torch.Generator().manual_seed(0),
    )
    yield from loader


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)  # workers are many
