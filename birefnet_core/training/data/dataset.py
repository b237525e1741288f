"""Batches of augmented samples, in an order that depends on the seed alone.

A sample depends on the seed, the epoch and its place in the epoch, never on the process that makes it; so resuming,
and other numbers of workers or processes, change nothing.

Shapes: B batch, H W network input.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import sys
import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...errors import BiRefNetError, TrainingError
from ...inference.transforms import IMAGENET_MEAN, IMAGENET_STD
from ...losses.semantic import NO_CLASS
from ...network.birefnet import SIZE_MULTIPLE
from ...text import first_line
from ..recipe import Recipe
from .augment import Augmentation, SampleRng, augment, cover, replace_background
from .folders import Pair, class_name
from .reading import read_colours, read_pair

# In what torch and Python raise where a process can have no more open files.
_LIMITS = ("Too many open files", "items of ancdata")


def seed_of(*parts: int | str) -> int:
    """A seed that depends on all its parts, well mixed; the same on every machine."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # torch takes 63 bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample to be made.

    Attributes:
        index: Of the pair.
        seed: Of its augmentation.
        size: Height and width.
    """

    index: int
    seed: int
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples of one forward pass.

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

    def to(self, device: torch.device, memory_format: torch.memory_format = torch.contiguous_format) -> Batch:
        """On that device, the images in that memory format."""
        images, masks, classes = (x.to(device, non_blocking=True) for x in (self.images, self.masks, self.classes))
        images = images.contiguous(memory_format=memory_format)
        return Batch(images=images, masks=masks, classes=classes, names=self.names)

    def pin_memory(self) -> Batch:
        """In pinned memory; called by the DataLoader."""
        images, masks, classes = (x.pin_memory() for x in (self.images, self.masks, self.classes))
        return Batch(images=images, masks=masks, classes=classes, names=self.names)


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

    def __getitem__(self, sample: Sample) -> tuple[Tensor, int, str]:
        """Colours in [0, 1] and mask, 4, H, W; class; name."""
        pair, rng = self.pairs[sample.index], SampleRng(sample.seed)
        pixels = augment(self.read(sample.index, rng), sample.size, self.options, rng)
        return pixels, self.labels.get(class_name(pair) or "", NO_CLASS), pair.name

    def __getitems__(self, samples: Sequence[Sample]) -> list[tuple[Tensor, int, str]] | BiRefNetError:
        """The samples of a batch; errors are returned, as the DataLoader would add a traceback."""
        try:
            return [self[sample] for sample in samples]
        except BiRefNetError as error:
            return error

    def read(self, index: int, rng: SampleRng) -> Tensor:
        """Colours and mask of a pair in its own size, 4, H, W, after its background was chosen."""
        colours, mask = read_pair(self.pairs[index])
        pixels = torch.cat([colours.permute(2, 0, 1), mask[None]])
        return self._on_background(pixels, self.pairs[index], rng)

    def _on_background(self, pixels: Tensor, pair: Pair, rng: SampleRng) -> Tensor:
        """A cut-out always needs a background; other images get a new one now and then."""
        composite = rng.bernoulli(self.options.composite_background) or pair.mask is None
        plain = rng.bernoulli(self.options.plain_background)
        if composite and self.backgrounds and not plain:
            background = read_colours(self.backgrounds[rng.randint(len(self.backgrounds))]).permute(2, 0, 1)  # 3 h w
            return replace_background(pixels, cover(background, (pixels.shape[1], pixels.shape[2]), rng))
        if plain or pair.mask is None:
            colour = torch.rand(3, 1, 1, generator=rng.generator)
            return replace_background(pixels, colour.expand(3, *pixels.shape[1:]))
        return pixels


def collate(samples: Sequence[tuple[Tensor, int, str]] | BiRefNetError) -> Batch | BiRefNetError:
    """Samples -> batch, normalised as for inference."""
    if isinstance(samples, BiRefNetError):
        return samples
    pixels = torch.stack([pixels for pixels, _, _ in samples])  # B 4 H W
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return Batch(
        images=(pixels[:, :3] - mean) / std,
        masks=pixels[:, 3:].clone(),
        classes=torch.tensor([label for _, label, _ in samples]),
        names=tuple(name for _, _, name in samples),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSampler:
    """Which samples each process takes in each batch of each epoch.

    Each batch is full: the last one of an epoch is filled up from the epoch's beginning, so that batch statistics,
    gradients of several processes and memory are those of any other batch.

    Attributes:
        samples: In the data set.
        recipe: For batch size, sizes and seed.
        rank: Of this process.
        world_size: Number of processes.
    """

    samples: int
    recipe: Recipe
    rank: int = 0
    world_size: int = 1

    @property
    def batches(self) -> int:
        """Batches of a process in an epoch."""
        return -(-self.samples // (self.recipe.batch_size * self.world_size))

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-self.batches // self.recipe.accumulate)

    def of(self, world_size: int) -> BatchSampler:
        """The sampler of the first of another number of processes.

        Raises:
            ValueError: No number of processes.
        """
        if not isinstance(world_size, int) or world_size < 1:
            raise ValueError(f"{world_size!r} processes")
        return dataclasses.replace(self, rank=0, world_size=world_size)

    def next_batch(self, done: int, world_size: int) -> int:
        """The batch with which an epoch goes on of which another number of processes did some batches.

        Args:
            done: Batches that each of them did.
            world_size: Their number.

        Returns:
            The number of a batch with which an optimizer step begins: at most a step's images are trained on again.

        Raises:
            ValueError: No number of processes.
        """
        if done >= self.of(world_size).batches:
            return self.batches
        batch = done * world_size // self.world_size
        return batch - batch % self.recipe.accumulate

    def step(self, epoch: int, batch: int) -> int:
        """Optimizer steps up to a batch of an epoch, as if all had been done by this number of processes."""
        return epoch * self.steps - (-batch // self.recipe.accumulate)

    def order(self, epoch: int) -> list[int]:
        """The samples of an epoch, filled up."""
        generator = torch.Generator().manual_seed(seed_of(self.recipe.seed, "order", epoch))
        order = torch.randperm(self.samples, generator=generator).tolist()
        total = self.batches * self.recipe.batch_size * self.world_size
        return (order * (-(-total // len(order))))[:total]

    def size(self, epoch: int, batch: int) -> tuple[int, int]:
        """Height and width of a batch, the same in every process."""
        width, height = self.recipe.size
        if self.recipe.growth:
            sides = self.recipe.growth
            part = (epoch * self.batches + batch) * (len(sides) + 1) // (self.recipe.epochs * self.batches)
            return (sides[part], sides[part]) if part < len(sides) else (height, width)
        if not self.recipe.dynamic:
            return height, width
        low, high = self.recipe.dynamic
        rng = SampleRng(seed_of(self.recipe.seed, "size", epoch, batch))
        side = low + SIZE_MULTIPLE * rng.randint((high - low) // SIZE_MULTIPLE + 1)
        return side, side

    def epoch(self, epoch: int, first: int = 0) -> Iterator[list[Sample]]:
        """The batches of this process in an epoch, from batch number ``first``."""
        order, count = self.order(epoch), self.recipe.batch_size
        for batch in range(first, self.batches):
            start, size = (batch * self.world_size + self.rank) * count, self.size(epoch, batch)
            yield [
                Sample(index=order[place], seed=seed_of(self.recipe.seed, "sample", epoch, place), size=size)
                for place in range(start, start + count)
            ]


def load_batches(
    dataset: SegmentationDataset, sampler: BatchSampler, epoch: int, first: int, device: torch.device
) -> Generator[Batch]:
    """Batches of this process, prefetched by the recipe's workers, which end when it is closed.

    Args:
        dataset: The pairs.
        sampler: Which samples are in which batch.
        epoch: Counted from 0.
        first: Number of the batch to begin with.
        device: Where the batches are needed.

    Raises:
        DatasetError: A file that cannot be read any more.
        TrainingError: A worker has died.
    """
    recipe = sampler.recipe
    loader = DataLoader(
        dataset,
        batch_sampler=sampler.epoch(epoch, first),
        collate_fn=collate,
        num_workers=min(recipe.workers, max(0, sampler.batches - first)),
        pin_memory=device.type == "cuda",
        worker_init_fn=_start_worker,
        # Its own generator: making an iterator draws a number, which must not come from the training's.
        generator=torch.Generator().manual_seed(0),
    )
    with contextlib.closing(_read_from_workers(loader, recipe)) as batches:
        for batch in batches:
            if isinstance(batch, BiRefNetError):
                raise batch
            yield batch.to(device, torch.channels_last if recipe.channels_last else torch.contiguous_format)


@contextlib.contextmanager
def dead_workers_as_training_error(recipe: Recipe) -> Iterator[None]:
    """Makes the end of a worker process, which the DataLoader raises wherever the loop is, a TrainingError."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise _dead_worker(error, recipe) from error


def _read_from_workers(loader: DataLoader, recipe: Recipe) -> Generator[Batch | BiRefNetError]:
    """The batches. A worker that dies may be noticed by the end of its connection first."""
    try:
        batches = iter(loader)
    except BaseException as error:
        _end_started(error)
        if isinstance(error, OSError):
            raise _beyond_limits(error, recipe) from error
        raise
    try:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (ConnectionError, EOFError, FileNotFoundError) as error:
                if not recipe.workers or str(error).startswith("Caught"):  # raised in a worker, with its traceback
                    raise
                raise _dead_worker(error, recipe) from error
            except RuntimeError as error:
                if not any(words in str(error) for words in _LIMITS):
                    raise
                raise _beyond_limits(error, recipe) from error
            yield batch
    finally:
        # The DataLoader's handler of SIGCHLD raises for a dead worker until the others have ended, too; in __del__,
        # which would end them else, that is printed as a traceback.
        with contextlib.suppress(RuntimeError):
            getattr(batches, "_shutdown_workers", lambda: None)()


def _end_started(error: BaseException) -> None:
    """Ends workers beside one that could not be started: the DataLoader's iterator prints a traceback, in __del__."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        started: Any = frame.f_locals.get("self")
        if hasattr(started, "_workers") and not hasattr(started, "_workers_status"):
            started._workers_status = [True] * len(started._workers)
            with contextlib.suppress(RuntimeError):
                started._shutdown_workers()


def _dead_worker(error: Exception, recipe: Recipe) -> TrainingError:
    return TrainingError(
        f"a process that reads data was killed ({first_line(error).rstrip('. ')}); often the memory, or the shared "
        f"memory in /dev/shm, was used up. Go on with --resume, with {_fewer(recipe)} if it happens again."
    )


def _beyond_limits(error: Exception, recipe: Recipe) -> TrainingError:
    return TrainingError(
        f"{recipe.workers} processes that read data are more than this system allows "
        f"({first_line(error).partition('. ')[0]}). Go on with --resume and {_fewer(recipe)}, or raise the limit "
        "(ulimit -n for open files, -u for processes)."
    )


def _fewer(recipe: Recipe) -> str:
    return f"--workers {recipe.workers // 2}"


def _start_worker(_: int) -> None:
    # torchrun, terminals and `timeout` send signals to the group of a process, and the training needs its workers until
    # the step is done. They end with it.
    if hasattr(os, "setpgid"):  # not on Windows
        os.setpgid(0, 0)
    torch.set_num_threads(1)  # the workers share the cores
    sys.excepthook = _print_unless_disconnected


def _print_unless_disconnected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For threads of workers that pass batches on, and find that the training has ended: that says why by itself."""
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, error, trace)
