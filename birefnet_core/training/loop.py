"""The training itself.

What a step computes depends on the recipe, the data, the number of processes and the step, not on what happened
before in this process: everything random is seeded by them. So a training that was killed and resumed ends with the
same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..checkpoints import save_adapter, save_checkpoint
from ..devices import choose_device
from ..errors import ConfigError, TrainingError
from ..losses import HybridLoss
from .augment import NO_AUGMENTATION
from .data import TrainingData
from .dataset import Batch, Plan, SegmentationDataset, batches, seed_of
from .distributed import World, world
from .ema import Ema
from .interrupt import StopSignal
from .lora import extract_adapter, merged
from .optim import make_optimizer, rate, set_rate
from .outputs import Writer
from .prepare import Prepared, prepare
from .recipe import Recipe
from .setup import Phase, build_network, freezes_norms, leaves_unused, phase_of, set_phase
from .state import Folder, Position
from .validation import Validation, is_better, validate

Progress = Callable[[dict[str, Any]], None]  # what a step did


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What came of a training.

    Attributes:
        folder: Where the files are.
        finished: False where a signal stopped it; ``resume`` goes on.
        steps: Optimizer steps done.
        best: Best score; None without validation.
        scores: Of the last validation.
    """

    folder: Path
    finished: bool
    steps: int
    best: float | None
    scores: dict[str, float]


def train(
    recipe: Recipe,
    data: TrainingData,
    out: str | Path,
    *,
    device: str | torch.device = "auto",
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Trains a network; see ``Recipe`` for how.

    Writes ``best.safetensors`` (the network for use), ``last.pt`` (everything, for resuming), ``metrics.jsonl``,
    ``recipe.toml``, ``curves.png``, ``samples/`` and ``report.md`` into a folder. Under torchrun all processes call it
    with the same arguments.

    Args:
        recipe: How.
        data: On what.
        out: Folder of the results.
        device: "auto", "cpu", "cuda", ...
        resume: Go on with the training in the folder; start it where there is none yet.
        progress: Called after each step with its place, loss and terms; only in the first process.

    Raises:
        DatasetError: Data that cannot be trained on.
        ConfigError: A folder of another training, or options that do not go together.
        CheckpointError: Weights that do not load, or a file that cannot be written.
        TrainingError: A loss that is not finite.
    """
    with world(choose_device(device)) as here:
        folder = Folder(out)
        with here.first_does() as mine:
            if mine:
                folder.claim(resume=resume)
        with here.first_does() as mine:
            prepared = prepare(recipe, data) if mine else None
        prepared = here.share(prepared)
        trainer = Trainer(recipe, prepared, folder, here, progress)
        trainer.start(resume=resume)
        with StopSignal() as stop, _full_disk_named(folder):
            return trainer.run(stop)


@contextlib.contextmanager
def _full_disk_named(folder: Folder) -> Iterator[None]:
    """A disk that fills up under the small files ends a training like one that fills up under the large ones."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise TrainingError(
            f"{folder.path}: the disk is full. Free some space and go on with --resume; {folder.last.name} and "
            f"{folder.best.name} are as they were last saved."
        ) from error


class Trainer:
    """One training in one process.

    Args:
        recipe: How.
        prepared: The data.
        folder: Of the results.
        here: The processes.
        progress: Called after each step.
    """

    def __init__(
        self, recipe: Recipe, prepared: Prepared, folder: Folder, here: World, progress: Progress | None = None
    ) -> None:
        self.recipe, self.prepared, self.folder, self.world, self.progress = recipe, prepared, folder, here, progress
        self.plan = Plan(samples=len(prepared.training), recipe=recipe, rank=here.rank, world=here.size)
        self.training = SegmentationDataset(prepared.training, recipe.augment, prepared.backgrounds, prepared.labels)
        self.validation = SegmentationDataset(prepared.validation, NO_AUGMENTATION, prepared.backgrounds)
        self.amp = precision(recipe.amp, here.device)
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.model = build_network(recipe, len(prepared.labels)).to(here.device).to(memory_format=self.layout)
        self.frozen_norms = freezes_norms(recipe, here.size)
        if recipe.sync_bn and here.size > 1:
            if here.device.type != "cuda":
                raise ConfigError("sync_bn needs GPUs: on the CPU, train with freeze_bn or larger batches.")
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.optimizer: Optimizer = make_optimizer(self.model, recipe)
        self.scaler = torch.amp.GradScaler(here.device.type, enabled=self.amp == torch.float16)
        self.ema = Ema(self.model, recipe.ema) if recipe.ema else None
        self.writer = Writer(folder, recipe, prepared, enabled=here.first)
        self.position = Position()
        self.scores: dict[str, float] = {}
        self.phase: Phase | None = None
        self.forward: Callable[[Tensor], Any] = self.model

    def start(self, *, resume: bool) -> None:
        """Takes up the state in the folder, or begins: validates a checkpoint as it came, and saves a first state."""
        state = self.folder.load(self.recipe, self.prepared.fingerprint) if resume else None
        if state is not None:
            self.position = Position(**state["position"])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.ema:
                self.ema.load_state_dict(state["ema"])
        with self.world.first_does() as mine:
            if mine:
                self.folder.rewind(self.position if state else None)
                self.folder.write_text(self.folder.recipe.name, self.recipe.to_toml())
        if state is None:
            if self.recipe.init:
                self._validate()
            self._save()

    def run(self, stop: StopSignal) -> TrainingResult:
        """Trains to the end, or until told to stop."""
        began = time.monotonic()
        finished = True
        while finished and self.position.epoch < self.recipe.epochs:
            finished = self._epoch(stop)
        if finished:
            with self.world.first_does():
                self.writer.finish(time.monotonic() - began)
        return TrainingResult(
            folder=self.folder.path,
            finished=finished,
            steps=self.position.step,
            best=self.position.best,
            scores=self.scores,
        )

    def _epoch(self, stop: StopSignal) -> bool:
        """The rest of an epoch. False where it was stopped, with everything saved."""
        position = self.position
        self._enter(phase_of(self.recipe, position.epoch))
        source = batches(self.training, self.plan, position.epoch, position.batch, self.world.device)
        while position.batch < self.plan.batches:
            group = min(self.recipe.accumulate, self.plan.batches - position.batch)
            stopped = self._step(source, group, stop)
            done = position.batch == self.plan.batches
            due = self.recipe.save_steps and position.step % self.recipe.save_steps == 0
            if (due and not done) or stopped:
                self._save()
            if stopped:
                return False
        means = {name: value / position.count for name, value in position.sums.items()}
        position.epoch, position.batch, position.sums, position.count = position.epoch + 1, 0, {}, 0
        self.writer.epoch(position, means)
        if position.epoch % self.recipe.validate_every == 0 or position.epoch == self.recipe.epochs:
            self._validate()
        self._save()
        return True

    def _enter(self, phase: Phase) -> None:
        """Makes the parts learn that should in a phase, and tells the processes which gradients to expect."""
        set_phase(self.model, self.recipe, phase, frozen_norms=self.frozen_norms)
        if phase == self.phase:
            return
        self.phase, self.loss = phase, HybridLoss(phase.weights)
        self.forward = torch.compile(self.model) if self.recipe.compile else self.model
        if self.world.size > 1:
            self.forward = DistributedDataParallel(
                self.forward,
                device_ids=[self.world.device.index] if self.world.device.type == "cuda" else None,
                find_unused_parameters=leaves_unused(self.model, phase),
            )

    def _step(self, source: Iterator[Batch], group: int, stop: StopSignal) -> bool:
        """One optimizer step over some batches. True where a process was told to stop."""
        position, began = self.position, time.monotonic()
        set_rate(self.optimizer, rate(self.recipe, position.step, self.plan.steps))
        sums: dict[str, float] = {}
        bad: tuple[str, ...] = ()
        for i in range(group):
            batch = next(source)
            value = self._backward(batch.to(self.world.device), group, last=i == group - 1)
            if not all(map(math.isfinite, value.values())):
                bad += batch.names
            for name, one in value.items():
                sums[name] = sums.get(name, 0.0) + one / group
            position.batch += 1
        flags = [float(stop.raised), float(bool(bad))]
        stopped, failed, *totals = self.world.total([*flags, *sums.values()])
        if failed:
            self._stop_at(bad, sums)
        self._update()
        position.step += 1
        means = {name: total / self.world.size for name, total in zip(sums, totals, strict=True)}
        for name, one in means.items():
            position.sums[name] = position.sums.get(name, 0.0) + one
        position.count += 1
        self._tell(means, time.monotonic() - began)
        return stopped > 0

    def _backward(self, batch: Batch, group: int, *, last: bool) -> dict[str, float]:
        """Gradients of one batch; gives the loss and its terms."""
        torch.manual_seed(seed_of(self.recipe.seed, "step", self.position.epoch, self.position.batch, self.world.rank))
        with contextlib.nullcontext() if last else own_gradients(self.forward):
            with autocast(self.amp, self.world.device):
                output = self.forward(batch.images.contiguous(memory_format=self.layout))
            classes = batch.classes if output.classes is not None else None
            value = self.loss(output, batch.masks, classes)
            self.scaler.scale(value.total / group).backward()
        numbers = torch.stack([value.total.detach(), *value.terms.values()]).tolist()
        return dict(zip(("loss", *value.terms), numbers, strict=True))

    def _stop_at(self, bad: tuple[str, ...], sums: dict[str, float]) -> None:
        names = [name for part in self.world.gather(bad) for name in part]
        terms = ", ".join(f"{name} {value:g}" for name, value in sums.items())
        raise TrainingError(
            f"the loss is not finite in epoch {self.position.epoch + 1}, step {self.position.step + 1} ({terms}). The "
            f"batch's images: {', '.join(names)}. Look at them; else lower the rate, set clip=1, or amp='off'. "
            f"{self.folder.last.name} holds the state before."
        )

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        if self.recipe.clip:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.model)

    def _tell(self, means: dict[str, float], seconds: float) -> None:
        position = self.position
        lr = self.optimizer.param_groups[-1]["lr"]
        if position.step % self.recipe.log_steps == 0:
            self.writer.step(position, means, lr, seconds)
        if self.progress and self.world.first:
            self.progress(
                {"epoch": position.epoch + 1, "step": position.step, "steps": self.plan.steps * self.recipe.epochs,
                 "lr": lr, "best": position.best, **means}
            )  # fmt: skip

    def _validate(self) -> None:
        """Scores the network that would be saved, and saves it if it is the best."""
        # Statistics of each process's own batches differ; the first one's are saved, so they are what is scored.
        self.world.align(self.model.buffers() if self.ema is None else self.ema.state.values())
        with self.ema.applied(self.model) if self.ema else contextlib.nullcontext():
            if not len(self.validation):
                better = True
            else:
                result: Validation = validate(
                    merged(self.model), self.validation, self.recipe.size, world=self.world,
                    precision=autocast(self.amp, self.world.device), sheet=self.recipe.sheet,
                )  # fmt: skip
                self.scores = result.scores
                better = is_better(self.recipe.best, result.scores[self.recipe.best], self.position.best)
                self.writer.validation(self.position, result)
            with self.world.first_does() as mine:
                if mine and better:
                    self._save_best()
        if better and len(self.validation):
            self.position.best = self.scores[self.recipe.best]

    def _save_best(self) -> None:
        texts = {
            "birefnet_recipe": json.dumps(self.recipe.to_flat()),
            "training": json.dumps({"epoch": self.position.epoch, "step": self.position.step, "scores": self.scores}),
        }
        origin = f"trained from {self.recipe.init}" if self.recipe.init else "trained from new"
        note = f"{origin} on {len(self.prepared.training)} images with the recipe {self.recipe.name}"
        if self.recipe.train == "lora":
            save_adapter(extract_adapter(self.model), self.folder.adapter, texts)
        save_checkpoint(
            merged(self.model), self.folder.best, training_size=self.recipe.size, provenance=note, metadata=texts
        )

    def _save(self) -> None:
        with self.world.first_does() as mine:
            if mine:
                self.folder.save(
                    {
                        "recipe": json.loads(json.dumps(self.recipe.to_flat())),
                        "data": self.prepared.fingerprint,
                        "position": dataclasses.asdict(self.position),
                        "model": self.model.state_dict(),
                        "optimizer": self.optimizer.state_dict(),
                        "scaler": self.scaler.state_dict(),
                        "ema": self.ema.state_dict() if self.ema else None,
                    }
                )


def own_gradients(forward: Callable[[Tensor], Any]) -> contextlib.AbstractContextManager:
    """Within this, several processes keep their gradients to themselves, as until the last batch of a step."""
    return forward.no_sync() if isinstance(forward, DistributedDataParallel) else contextlib.nullcontext()


def precision(name: str, device: torch.device) -> torch.dtype | None:
    """What the network computes in under autocast; None for float32 throughout."""
    if name == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def autocast(dtype: torch.dtype | None, device: torch.device) -> contextlib.AbstractContextManager:
    """The context a network runs in."""
    return torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()


__all__ = ["Trainer", "TrainingResult", "autocast", "precision", "train"]
