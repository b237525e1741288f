"""Two processes on the CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import birefnet_core as bc
from birefnet_core.training import TrainingData, train
from birefnet_core.training.distributed import PATIENCE

from .conftest import assert_same

ROOT = Path(__file__).parents[2]

# Trains by the recipe in argv[1] on argv[2] into argv[3]; dropout off, so that it does not depend on the process; the
# gradients of the first step are kept in argv[3]/gradients.pt. With argv[4] == "poison" the second process meets a NaN,
# with "die" it is killed.
SCRIPT = """
import json, os, signal, sys
import torch
from birefnet_core.training import TrainingData, from_values, loop
from birefnet_core.training.dataset import Batch
torch.set_num_threads(1)
recipe, data, out, mode = sys.argv[1:5]
build, update, read = loop.build_network, loop.Trainer._update, loop.batches
def without_dropout(*args):
    model = build(*args)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    return model
def keep(trainer):
    if trainer.world.first and trainer.position.step == 0:
        gradients = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
        torch.save(gradients, out + "/gradients.pt")
    update(trainer)
def poisoned(dataset, plan, *rest):
    for batch in read(dataset, plan, *rest):
        if mode == "die" and plan.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        factor = float("nan") if plan.rank == 1 else 1.0
        yield Batch(images=batch.images * factor, masks=batch.masks, classes=batch.classes, names=batch.names)
loop.build_network, loop.Trainer._update = without_dropout, keep
if mode != "plain":
    loop.batches = poisoned
loop.train(from_values(json.loads(recipe)), TrainingData(sets=(data,)), out, device="cpu")
"""


@pytest.fixture
def launch(shapes, tmp_path):
    """Runs a training in some processes, as torchrun does, and gives its folder and what it printed."""

    def run(recipe, processes: int, name: str, mode: str = "plain") -> tuple[Path, subprocess.CompletedProcess]:
        script = tmp_path / "script.py"
        script.write_text(SCRIPT)
        out = tmp_path / name
        arguments = [str(script), json.dumps(recipe.to_flat()), str(shapes), str(out), mode]
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        done = subprocess.run(
            [sys.executable, *(start if processes > 1 else []), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, timeout=1200, check=False, cwd=tmp_path,
        )  # fmt: skip
        return out, done

    return run


def test_two_processes_of_batch_two_equal_one_of_batch_four(launch, tiny_recipe):
    # The last epoch trains the IoU loss only, which leaves the gradient heads without gradient.
    recipe = tiny_recipe(epochs=2, rlft=1, freeze_bn=True, batch_size=4, accumulate=2, optimizer="adam", weight_decay=0)
    one, done = launch(recipe, 1, "one")
    assert done.returncode == 0, done.stderr
    two, done = launch(recipe.replace(batch_size=2), 2, "two")
    assert done.returncode == 0, done.stderr
    alone, together = (torch.load(folder / "gradients.pt", weights_only=True) for folder in (one, two))
    assert alone.keys() == together.keys()
    for name, gradient in alone.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        assert ((gradient - together[name]).abs() / scale).max() < 1e-4, name
    rows = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (one, two)]
    assert [row["kind"] for row in rows[0]] == [row["kind"] for row in rows[1]]
    losses = [[row["loss"] for row in part if row["kind"] == "step"] for part in rows]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert bc.load_file(two / "best.safetensors").config.backbone == "pvt_v2_b0"


def test_failure_of_one_process_ends_both_with_the_file_names(launch, tiny_recipe):
    out, done = launch(tiny_recipe(), 2, "bad", mode="poison")
    assert done.returncode != 0
    assert "TrainingError: the loss is not finite" in done.stderr
    assert "shapes0/shape0" in done.stderr
    assert (out / "last.pt").exists()


def test_process_that_is_killed_ends_the_other_at_once(launch, tiny_recipe):
    began = time.monotonic()
    out, done = launch(tiny_recipe(), 2, "killed", mode="die")
    assert done.returncode != 0
    assert time.monotonic() - began < PATIENCE.total_seconds()  # not by waiting for it
    assert (out / "last.pt").exists()


def test_world_of_one_changes_nothing(shapes, tiny_recipe, tmp_path):
    states = []
    for name in ("a", "b"):
        train(tiny_recipe(epochs=1), TrainingData(sets=(shapes,)), tmp_path / name, device="cpu")
        states.append(torch.load(tmp_path / name / "last.pt", weights_only=True))
    assert_same(*states)
