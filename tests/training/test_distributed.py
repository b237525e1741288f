"""Two processes on the CPU, joined by gloo."""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import birefnet_core as bc
from birefnet_core.training.distributed import PROCESS_GROUP_TIMEOUT, Ranks

from .conftest import write_shapes

ROOT = Path(__file__).parents[2]
LIMIT = 600  # seconds that a training may take on a busy machine

# Trains by the recipe in argv[1] on argv[2] into argv[3], without dropout, so that the processes do not differ.
# argv[4:] says in which rank, where and what happens. argv[3] gets gradients.pt of the first step, and validated<rank>,
# a byte for each pair that a process has validated.
SCRIPT = """
import datetime, json, os, signal, sys, time
import torch
from birefnet_core.cli.main import exit_code
from birefnet_core.errors import DatasetError
from birefnet_core.training import TrainingData, distributed, from_values, load_datasets, loop, state
from birefnet_core.training.data import preflight
torch.set_num_threads(1)
recipe, data, out, rank, place, event = sys.argv[1:7]
recipe, data, mine = from_values(json.loads(recipe)), TrainingData(sets=(data,)), rank == os.environ.get("RANK", "0")
validate, build, read, make = preflight.validate_pair, state.build_network, loop.load_batches, state.make_optimizer
score = loop.validate

def happen():
    if event == "error":
        raise DatasetError("the disc has gone")
    if event == "exit":
        sys.exit(7)
    if event == "slow":
        time.sleep(10)
    if event.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, event))

def validate_pair(pair, **options):
    if place == "preflight" and mine:
        happen()
    elif place == "preflight" and event != "slow":
        time.sleep(1)
    with open(out + "/validated" + os.environ.get("RANK", "0"), "a") as file:
        file.write("x")
    return validate(pair, **options)

def build_network(*args):
    model = build(*args)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    return model

def load_batches(*args):
    for number, batch in enumerate(read(*args)):
        if place == "batch" and mine and number == 1:
            happen()
        if place == "loss" and mine:
            batch.images.fill_(float("nan"))
        yield batch

def validate_network(*args, **options):
    if place == "validation" and mine:
        happen()
    return score(*args, **options)

def make_optimizer(model, recipe):
    optimizer, path = make(model, recipe), out + "/gradients.pt"
    def keep(*_):
        if mine and not os.path.exists(path):
            torch.save({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, path)
    optimizer.register_step_pre_hook(keep)
    return optimizer

def run():
    if event == "slow":
        distributed.PROCESS_GROUP_TIMEOUT = datetime.timedelta(seconds=7)
        with distributed.init_distributed(torch.device("cpu")) as ranks:
            print(load_datasets(recipe, data, ranks).text)
        return 0
    result = loop.train(recipe, data, out, device="cpu")
    return 0 if result.finished else 128 + result.signal

state.make_optimizer, state.build_network, loop.load_batches = make_optimizer, build_network, load_batches
preflight.validate_pair, loop.validate = validate_pair, validate_network
sys.exit(exit_code(run))
"""


class Launched(NamedTuple):
    """A training that has ended: its folder; exit code, output and errors of each process."""

    out: Path
    codes: list[int]
    texts: list[str]


# What a process needs to be one of several, before the script.
HEADER = """
import os, sys
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT)
os.dup2(log, 1), os.dup2(log, 2)
os.environ.update({environment!r})
sys.argv = {arguments!r}
"""


@pytest.fixture
def launch(shapes, tmp_path, processes_of):
    """Runs a training in two processes."""

    def run(recipe, rank: int = 0, place: str = "", event: str = "", data: Path = shapes) -> Launched:
        arguments = ["script", json.dumps(recipe.to_flat()), str(data), str(tmp_path), str(rank), place, event]
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        started = []
        for number in range(2):
            log, script = tmp_path / f"log{number}", tmp_path / f"script{number}.py"
            environment = {**group, "RANK": str(number)}
            header = HEADER.format(log=str(log), environment=environment, arguments=arguments)
            script.write_text(header + SCRIPT)
            started.append(processes_of(target=runpy.run_path, args=(str(script),)))
            started[-1].start()
        end = time.monotonic() + LIMIT
        for process in started:
            process.join(max(0, end - time.monotonic()))
        codes = [process.exitcode for process in started]
        for process in started:
            process.kill()
        return Launched(tmp_path, codes, [(tmp_path / f"log{number}").read_text() for number in range(2)])

    return run


@pytest.fixture
def launch_by_torchrun(shapes, tmp_path):
    """Runs a training as a user does, by torchrun for several processes."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run(recipe, processes: int, *events: str) -> Launched:
        out = tmp_path / f"out{processes}"
        out.mkdir()
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        arguments = [json.dumps(recipe.to_flat()), str(shapes), str(out), *(events or ("0", "", ""))]
        done = subprocess.run(
            [sys.executable, *(start if processes > 1 else []), str(script), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, timeout=LIMIT, check=False, cwd=tmp_path,
        )  # fmt: skip
        return Launched(out, [done.returncode], [done.stderr])

    return run


def free_port() -> str:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
def test_two_processes_of_batch_two_equal_one_of_batch_four(launch_by_torchrun, tiny_recipe):
    # The last epoch trains the IoU loss only, which leaves the gradient heads without gradient.
    recipe = tiny_recipe(epochs=2, rlft=1, freeze_bn=True, batch_size=4, accumulate=2, optimizer="adam", weight_decay=0)
    one = launch_by_torchrun(recipe, 1)
    two = launch_by_torchrun(recipe.replace(batch_size=2), 2)
    assert one.codes + two.codes == [0, 0], one.texts + two.texts
    alone, together = (torch.load(run.out / "gradients.pt", weights_only=True) for run in (one, two))
    assert alone.keys() == together.keys()
    for name, gradient in alone.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        assert ((gradient - together[name]).abs() / scale).max() < 1e-4, name
    rows = [[json.loads(line) for line in (r.out / "metrics.jsonl").read_text().splitlines()] for r in (one, two)]
    assert [row["kind"] for row in rows[0]] == [row["kind"] for row in rows[1]]
    losses = [[row["loss"] for row in part if row["kind"] == "step"] for part in rows]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert bc.load_file(two.out / "best.safetensors").config.backbone == "pvt_v2_b0"


@pytest.mark.slow
def test_preflight_is_shared_and_may_take_longer_than_a_collective(launch, tiny_recipe):
    done = launch(tiny_recipe(), 1, "preflight", "slow")
    assert done.codes == [0, 0], done.texts
    assert [len((done.out / f"validated{rank}").read_text()) for rank in (0, 1)] == [3, 3]
    assert all("6 of 6 pairs can be used" in text for text in done.texts)


@pytest.mark.parametrize(
    ("rank", "event", "code", "message"),
    [pytest.param(0, "SIGINT", 130, "interrupted", marks=pytest.mark.slow), (1, "error", 2, "error: the disc has gone"),
     pytest.param(0, "SIGTERM", 143, "interrupted", marks=pytest.mark.slow),
     pytest.param(0, "exit", 7, "", marks=pytest.mark.slow)],
)  # fmt: skip
def test_what_ends_one_process_in_preflight_ends_the_other_alike_and_soon(
    launch, tiny_recipe, tmp_path, rank, event, code, message
):
    data = write_shapes(tmp_path / "many", 80, side=16)
    done = launch(tiny_recipe(), rank, "preflight", event, data=data)
    assert done.codes == [code, code], done.texts
    assert all(message in text and "Traceback" not in text for text in done.texts)
    # The other has 40 pairs at a second each, four at a time.
    assert len((done.out / f"validated{1 - rank}").read_text()) < 40


def test_error_in_one_process_during_a_step_is_raised_in_both(launch, tiny_recipe):
    done = launch(tiny_recipe(), 1, "batch", "error")
    assert done.codes == [2, 2], done.texts
    assert all("error: the disc has gone" in text and "Traceback" not in text for text in done.texts)
    assert torch.load(done.out / "last.pt", weights_only=True)["position"]["step"] == 1


@pytest.mark.slow
def test_error_in_one_process_ends_torchrun_with_its_message(launch_by_torchrun, tiny_recipe):
    done = launch_by_torchrun(tiny_recipe(), 2, "1", "batch", "error")
    assert done.codes != [0]
    assert done.texts[0].count("error: the disc has gone") == 2


def test_loss_of_one_process_that_is_not_finite_ends_both_with_the_file_names(launch, tiny_recipe):
    done = launch(tiny_recipe(), 1, "loss")
    assert done.codes == [2, 2], done.texts
    assert all("error: the loss is not finite" in text and "shapes0/shape0" in text for text in done.texts)
    assert (done.out / "last.pt").exists()


@pytest.mark.slow
def test_process_that_is_killed_ends_the_other_before_the_time_limit(launch, tiny_recipe):
    began = time.monotonic()
    done = launch(tiny_recipe(), 1, "batch", "SIGKILL")
    assert done.codes[1] == -signal.SIGKILL
    assert done.codes[0] not in (0, -signal.SIGKILL), "the other ended by itself"
    assert time.monotonic() - began < PROCESS_GROUP_TIMEOUT.total_seconds() / 2
    assert torch.load(done.out / "last.pt", weights_only=True)["position"]["step"] == 1


def test_signal_to_one_process_stops_both_after_the_step(launch, tiny_recipe):
    done = launch(tiny_recipe(), 1, "batch", "SIGTERM")
    assert done.codes == [143, 143], done.texts
    assert torch.load(done.out / "last.pt", weights_only=True)["position"]["step"] == 2


@pytest.mark.parametrize(
    ("event", "code"), [("SIGTERM", 143), pytest.param("error", 2, marks=pytest.mark.slow)]
)  # fmt: skip
def test_what_ends_a_validation_in_one_process_loses_no_step(launch, tiny_recipe, event, code):
    done = launch(tiny_recipe(val_fraction=0.4), 1, "validation", event)
    assert done.codes == [code, code], done.texts
    position = torch.load(done.out / "last.pt", weights_only=True)["position"]
    assert (position["epoch"], position["step"], position["batch"]) == (0, 1, 1)  # before the validation
    kinds = [json.loads(line)["kind"] for line in (done.out / "metrics.jsonl").open()]
    assert "validation" not in kinds


def test_single_process_passes_values_through():
    ranks = Ranks()
    assert ranks.is_main
    assert ranks.all_reduce_sum([1.5, 2.0]) == [1.5, 2.0]
    assert ranks.all_gather_object("a") == ["a"]
    assert ranks.broadcast_object("a") == "a"
    with ranks.main_process_first() as is_main:
        assert is_main
