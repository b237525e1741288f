"""The training loop.

What a step computes depends on the recipe, the data, the number of processes and the number of the step, not on what
happened before in this process: everything random is seeded by them. So a training that was killed and resumed ends
with the same bits as one that was not.

Shapes: B batch, H W network input.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints import save_adapter, save_checkpoint
from ..checkpoints.save import network_metadata
from ..config import PatchOrder
from ..devices import choose_device
from ..errors import CheckpointError, TrainingError
from ..stop_signal import StopSignal
from ..text import first_line
from .data import TrainingData
from .data.dataset import BatchSampler, dead_workers_as_training_error, load_batches, seed_of
from .data.examples import draw_examples
from .data.folders import EXAMPLES
from .data.load import Datasets, load_datasets
from .distributed import Ranks, init_distributed
from .lora import extract_adapter, merged
from .loss_meter import LossMeter
from .model_setup import PhasedModel, amp_dtype, autocast, sync_gradients
from .optim import fit_recipe, lr_multiplier, set_lr
from .out_of_memory import memory_as_limit_error
from .recipe import Recipe
from .report import save_png
from .run_folder import RunFolder, write_errors_as_training_error
from .run_log import RunLog
from .state import LastSound, TrainState
from .validation import is_better, validate

logger = logging.getLogger(__name__)

Progress = Callable[[dict[str, Any]], None]  # place, loss and terms of a step


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Result of ``train``.

    Attributes:
        folder: Where the files are.
        signal: Number of the signal that stopped it, after which ``resume`` goes on; None where it is finished.
        steps: Optimizer steps done.
        best: Best score; None without validation.
        scores: Of the last validation.
    """

    folder: Path
    signal: int | None
    steps: int
    best: float | None
    scores: dict[str, float]

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end."""
        return self.signal is None


def train(
    recipe: Recipe,
    data: TrainingData,
    out: str | Path,
    *,
    device: str | torch.device = "auto",
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Trains a network.

    Writes ``best.safetensors`` (the network for use), ``last.pt`` (everything, for resuming), ``metrics.jsonl``,
    ``recipe.toml``, ``curves.png``, ``samples/`` and ``report.md`` into a folder. Under torchrun all processes call it
    with the same arguments.

    Args:
        recipe: How to train.
        data: What to train on.
        out: Folder of the results.
        device: "auto", "cpu", "cuda", ...
        resume: Go on with the training in the folder; start it if there is none yet.
        progress: Called after each step with its place, loss and terms; only in the main process.

    Raises:
        DatasetError: Data that cannot be trained on.
        ConfigError: A folder of another training or in use, or options that do not go together.
        CheckpointError: Weights that do not load, or a file that cannot be written.
        TrainingError: A loss that is not finite, or a full disk.
        MemoryLimitError: Too little memory for the recipe's batches.
        KeyboardInterrupt: A signal before the first step.
    """
    with StopSignal() as stop, init_distributed(choose_device(device)) as ranks, contextlib.ExitStack() as stack:
        folder = RunFolder(out)
        with ranks.main_process_first() as is_main, write_errors_as_training_error(folder):
            if is_main:
                stack.enter_context(folder.reserved())
                folder.prepare_output_dir(resume=resume)
        datasets = load_datasets(recipe, data, ranks, folder=folder, resume=resume)
        for line in datasets.text.splitlines():
            warned = ranks.is_main and line.startswith(("warning: ", "problem: "))
            logger.log(logging.WARNING if warned else logging.INFO, "%s", line)
        stack.enter_context(memory_as_limit_error(recipe))
        with write_errors_as_training_error(folder), dead_workers_as_training_error(recipe):
            trainer = Trainer(recipe, datasets, folder, ranks, progress)
            trainer.start(resume=resume)
            return trainer.run(stop)


class Trainer:
    """One training in one process.

    Args:
        recipe: How to train.
        datasets: What to train on.
        folder: Of the results.
        ranks: The processes.
        progress: Called after each step.
    """

    def __init__(
        self, recipe: Recipe, datasets: Datasets, folder: RunFolder, ranks: Ranks, progress: Progress | None = None
    ) -> None:
        self.recipe, self.datasets, self.folder, self.ranks, self.progress = recipe, datasets, folder, ranks, progress
        self.state = self._initial_state()
        self.log = RunLog(folder, recipe, enabled=ranks.is_main)
        self.scores: dict[str, float] = {}
        self.sound = LastSound(self.state)
        self.sampler = BatchSampler(
            samples=len(datasets.training), recipe=recipe, rank=ranks.rank, world_size=ranks.world_size
        )

    def _initial_state(self) -> TrainState:
        """The state before the first step.

        To resume, only its form matters, for all values are in last.pt; so the files that it was made from may be gone.
        """
        recipe, folder, classes = self.recipe, self.folder, len(self.datasets.labels)
        try:
            return TrainState.create(recipe, classes, self.ranks)
        except CheckpointError:
            if not os.path.exists(folder.last) or (recipe.init and not os.path.exists(folder.best)):
                raise
        formed = dataclasses.replace(recipe, init=str(folder.best) if recipe.init else "", encoder="")
        return TrainState.create(formed, classes, self.ranks)

    def start(self, *, resume: bool) -> None:
        """Loads the state in the folder, or validates the initial checkpoint and saves a first state."""
        data, stored = self.datasets, None
        if resume:
            stored = self.folder.load(
                self.recipe, data.fingerprint, data.fingerprint_0_1, backgrounds=data.background_fingerprint
            )
        if stored is not None:
            with self.folder.damage_as_checkpoint_error():
                self.state.load_state_dict(stored, self.recipe)
                self._fit_position(stored.get("processes", self.ranks.world_size))
        self._fit_schedule()
        with self.ranks.main_process_first() as is_main:
            if is_main:
                self.folder.rewind(self.state.position if stored else None)
                self.folder.write_text(self.folder.recipe.name, self.recipe.to_toml())
                if stored is None:
                    save_png(draw_examples(self.datasets.training.pairs), self.folder.path / EXAMPLES)
        self.scores = self.folder.last_scores()
        if stored is None:
            if self.recipe.init:
                self.validate()
            self.save()

    def _fit_position(self, processes: int) -> None:
        """Goes on where another number of processes stopped, by the images they did."""
        position, sampler = self.state.position, self.sampler
        position.check(epochs=self.recipe.epochs, batches=sampler.of(processes).batches, steps=sampler.of(1).steps)
        if processes != self.ranks.world_size:
            position.batch = sampler.next_batch(position.batch, processes)
            text = "%d processes go on with what %d began: steps are over other batches, so the result is another one."
            logger.warning(text, self.ranks.world_size, processes)

    def _fit_schedule(self) -> None:
        """Makes what ``run`` computes by: the recipe, fitted to the number of steps and the size of the batches."""
        self.schedule = fit_recipe(self.recipe, self.sampler.steps) if self.state.fitted else self.recipe
        changed = [
            f"{name} {getattr(self.schedule, name)} instead of {getattr(self.recipe, name)}"
            for name in ("decoder_epochs", "warmup_steps", "freeze_bn")
            if getattr(self.schedule, name) != getattr(self.recipe, name)
        ]
        if changed:
            steps, size = self.sampler.steps * self.recipe.epochs, self.recipe.batch_size
            logger.info("For %d steps in batches of %d: %s.", steps, size, ", ".join(changed))

    def run(self, stop: StopSignal) -> TrainingResult:
        """Trains to the last epoch, or until a signal requests a stop. After an error, what was done is saved."""
        began = time.monotonic()
        self.sound.keep()
        try:
            stopped = self._train_epochs(stop)
        except Exception:
            self._save_last_sound()
            raise
        # Where several processes had a signal, that of the first is everyone's.
        numbers = self.ranks.all_gather_object(stop.number) if stopped else ()
        number = next((number for number in numbers if number is not None), None)
        return self._finish(number, seconds=time.monotonic() - began)

    def _train_epochs(self, stop: StopSignal) -> bool:
        """Trains; returns whether a signal stopped it."""
        recipe, ranks, state, sampler = self.schedule, self.ranks, self.state, self.sampler
        model, optimizer, scaler, position = state.model, state.optimizer, state.scaler, state.position
        phases, amp = PhasedModel(model, recipe, ranks), amp_dtype(recipe.amp, ranks.device)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        stop.graceful, stopped = True, False
        while position.epoch < recipe.epochs and not stopped:
            forward, loss = phases.start_epoch(position.epoch)  # `model`, with torch.compile and DDP
            # Closed here, as an interrupt while it is left to the garbage collector would be lost.
            with contextlib.closing(
                load_batches(self.datasets.training, sampler, position.epoch, position.batch, ranks.device)
            ) as batches:
                while position.batch < sampler.batches and not stopped:
                    step_began = time.monotonic()
                    step = sampler.step(position.epoch, position.batch)
                    set_lr(optimizer, lr_multiplier(recipe, step, sampler.steps))
                    accumulate = min(recipe.accumulate, sampler.batches - position.batch)
                    meter = LossMeter()
                    for i in range(accumulate):
                        batch = ranks.in_all(functools.partial(next, batches))
                        # For dropout and stochastic depth.
                        torch.manual_seed(seed_of(recipe.seed, "step", position.epoch, position.batch, ranks.rank))
                        with sync_gradients(forward, i == accumulate - 1):
                            with autocast(amp, ranks.device):
                                output = forward(batch.images)  # logits B 1 H W
                            value = loss(output, batch.masks, batch.classes)
                            scaler.scale(value.total / accumulate).backward()
                        meter.add(value, accumulate, batch.names)
                        position.batch += 1
                    means, stopped = meter.reduce(ranks, stop.requested)
                    self.sound.discard()
                    if meter.failed:
                        raise meter.not_finite(ranks, position, self.folder.last.name)
                    scaler.unscale_(optimizer)
                    if recipe.clip:
                        nn.utils.clip_grad_norm_(parameters, recipe.clip)
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad(set_to_none=True)
                    if state.ema:
                        state.ema.update(model)
                    position.add_step(means)
                    self.sound.keep()
                    self._report_step(means, time.monotonic() - step_began)
                    if stopped or self._must_save():
                        self._check_weights()
                        self.save()
            if not stopped:
                stopped = self._end_epoch(stop)
        return stopped

    def _must_save(self) -> bool:
        """Whether ``last.pt`` is to be written within an epoch."""
        position, every = self.state.position, self.recipe.save_steps
        return every > 0 and position.step % every == 0 and position.batch < self.sampler.batches

    def _end_epoch(self, stop: StopSignal) -> bool:
        """Ends an epoch; returns whether a signal did, before its validation, which resuming begins with."""
        recipe, position = self.recipe, self.state.position
        self._check_weights()
        self.log.epoch(position, position.end_epoch())
        stopped = False
        if position.epoch % recipe.validate_every == 0 or position.epoch == recipe.epochs:
            stopped = not self.validate(stop) and self.sound.restore()
        self.save()
        return stopped

    def _finish(self, number: int | None, *, seconds: float) -> TrainingResult:
        position = self.state.position
        if number is None:
            with self.ranks.main_process_first():
                self.log.finish(self.datasets.text, seconds)
        return TrainingResult(
            folder=self.folder.path, signal=number, steps=position.step, best=position.best, scores=self.scores
        )

    def validate(self, stop: StopSignal | None = None) -> bool:
        """Scores the network that would be saved, and saves it if it is the best; False if a signal stopped that."""
        recipe, state, datasets = self.recipe, self.state, self.datasets
        # Each process has other batch statistics; those of the main one are saved, so they are scored.
        self.ranks.broadcast_tensors(state.model.buffers() if state.ema is None else state.ema.state.values())
        with state.ema.applied(state.model) if state.ema else contextlib.nullcontext():
            better = True
            if len(datasets.validation):
                with self._nan_as_training_error():
                    result = validate(
                        merged(state.model), datasets.validation, recipe.size, ranks=self.ranks, sheet=recipe.sheet,
                        precision=autocast(amp_dtype(recipe.amp, self.ranks.device), self.ranks.device), stop=stop,
                    )  # fmt: skip
                if result is None:
                    return False
                self.scores = result.scores
                best = self.folder.score_to_beat(state.position.best)
                better = is_better(recipe.best, result.scores[recipe.best], best)
                self.log.validation(state.position, result)
            with self.ranks.main_process_first() as is_main:
                if is_main and better:
                    self._save_best()
        if better and len(datasets.validation):
            state.position.best = self.scores[recipe.best]
        return True

    def save(self) -> None:
        """Writes ``last.pt``."""
        self.sound.discard()  # what cannot be written now is not tried again
        with self.ranks.main_process_first() as is_main:
            if is_main:
                self._write_state()
        self.sound.keep()

    def _write_state(self) -> None:
        recipe = json.loads(json.dumps(self.recipe.to_flat()))
        data, count = self.datasets, self.ranks.world_size
        run = {"data": data.fingerprint, "backgrounds": data.background_fingerprint, "processes": count}
        # For those who load the file as a network; its weights are under our own names.
        network = network_metadata(self.state.model, self.recipe.size, PatchOrder.CHANNELS_FIRST)
        self.folder.save({"recipe": recipe, **run, "network": network, **self.state.state_dict()})

    def _save_last_sound(self) -> None:
        """Saves, after an error, the state after the last whole step; only in the main process, without the others."""
        if not self.ranks.is_main or not self.sound.restore():
            return
        step = self.state.position.step
        try:
            self._check_weights()
            self._write_state()
        except Exception as error:  # the training ends by the first one
            logger.warning("The state after step %d could not be saved: %s", step, first_line(error))
        else:
            logger.warning("The state after step %d is saved; --resume goes on from there.", step)

    def _save_best(self) -> None:
        recipe, model, position = self.recipe, self.state.model, self.state.position
        metadata = {
            "birefnet_recipe": json.dumps(recipe.to_flat()),
            "training": json.dumps({"epoch": position.epoch, "step": position.step, "scores": self.scores}),
        }
        origin = f"trained from {recipe.init}" if recipe.init else "trained from new"
        if recipe.encoder:
            origin += f" with the encoder weights {Path(recipe.encoder).name}"
        note = f"{origin} on {len(self.datasets.training)} images with the recipe {recipe.name}"
        if recipe.train == "lora":
            save_adapter(extract_adapter(model, recipe.size), self.folder.adapter, metadata)
        save_checkpoint(merged(model), self.folder.best, training_size=recipe.size, provenance=note, metadata=metadata)

    def _report_step(self, means: dict[str, float], seconds: float) -> None:
        """Logs a step, and calls ``progress``."""
        position, lr = self.state.position, self.state.optimizer.param_groups[-1]["lr"]
        self.log.step(position, means, lr, seconds)
        if self.progress and self.ranks.is_main:
            left = self.sampler.steps * self.recipe.epochs - self.sampler.step(position.epoch, position.batch)
            place = {"epoch": position.epoch + 1, "step": position.step, "steps": position.step + left}
            self.progress({**place, "lr": lr, "best": position.best, **means})

    def _check_weights(self) -> None:
        """Checks weights before they are saved: a step may spoil them that had a finite loss."""
        values = [value for value in self.state.model.state_dict().values() if value.is_floating_point()]
        if not torch.stack([value.isfinite().all() for value in values]).all():
            raise self._diverged("the weights are not finite")

    @contextlib.contextmanager
    def _nan_as_training_error(self) -> Iterator[None]:
        """Makes it a TrainingError that a network computes NaN when it is validated, unless it came so."""
        try:
            yield
        except CheckpointError as error:
            if not self.state.position.step:
                raise
            raise self._diverged("the network computes NaN in the validation") from error

    def _diverged(self, what: str) -> TrainingError:
        self.sound.discard()
        return TrainingError(
            f"{what} after step {self.state.position.step}. Lower the learning rate, set clip=1, or amp='off'. "
            f"{self.folder.last.name} holds an earlier state."
        )
