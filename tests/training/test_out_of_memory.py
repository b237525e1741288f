"""A training that has too little memory says so in a sentence, and with what it needs less."""

import pytest
import torch

import birefnet_core as bc
from birefnet_core.cli.main import main
from birefnet_core.losses import HybridLoss
from birefnet_core.out_of_memory import OutOfMemoryError
from birefnet_core.training.out_of_memory import memory_as_limit_error

from .conftest import TINY_FLAGS

GPU = OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")
WORKER = RuntimeError(f"Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback:\nRuntimeError: {CPU}")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(GPU, "CUDA out of memory"), (CPU, "can't allocate memory)"), (WORKER, "(RuntimeError: [enforce fail"),
     (MemoryError(), "(out of memory)")],
)  # fmt: skip
def test_too_little_memory_is_told_with_what_needs_less(tiny_recipe, error, reason):
    recipe = tiny_recipe(size=(96, 64), batch_size=4, accumulate=2)
    with pytest.raises(bc.errors.MemoryLimitError) as caught, memory_as_limit_error(recipe):
        raise error
    message = str(caught.value)
    assert message.startswith("too little memory for batches of 4 at 96 x 64 pixels (") and reason in message
    assert "--checkpoint-activations, or --batch-size 1 --accumulate 8, or --train decoder, or a smaller" in message


@pytest.mark.parametrize(
    ("values", "size", "advice"),
    [
        ({"batch_size": 1, "checkpoint_activations": True}, "64 x 64", "with --train decoder, or a smaller --size;"),
        ({"batch_size": 1, "train": "decoder"}, "64 x 64", "with --checkpoint-activations, or a smaller --size;"),
        ({"dynamic": (64, 128), "batch_size": 1}, "128 x 128", "with --checkpoint-activations, or --train decoder,"),
        ({"growth": (64, 96), "size": (128, 96)}, "128 x 96", "--batch-size 1 --accumulate 2"),
    ],
)
def test_what_is_on_already_is_not_advised(tiny_recipe, values, size, advice):
    with pytest.raises(bc.errors.MemoryLimitError) as caught, memory_as_limit_error(tiny_recipe(**values)):
        raise GPU
    assert f" at {size} pixels" in str(caught.value) and advice in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shape mismatch"), ValueError("out of memory"), bc.errors.MemoryLimitError("the Segmenter's own"),
     bc.errors.TrainingError("out of memory")],
)  # fmt: skip
def test_other_errors_stay_what_they_are(tiny_recipe, error):
    with pytest.raises(type(error)) as caught, memory_as_limit_error(tiny_recipe()):
        raise error
    assert caught.value is error


def test_a_training_without_memory_ends_in_a_sentence_and_loses_no_step(shapes, tmp_path, monkeypatch, capsys):
    compare, calls = HybridLoss.__call__, []

    def out_of_memory(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise GPU
        return compare(self, *arguments)

    monkeypatch.setattr(HybridLoss, "__call__", out_of_memory)
    flags = "--size 64 --batch-size 2 --accumulate 1 --workers 0 --quiet --device cpu --epochs 1"
    assert main(["train", "--data", str(shapes), "--out", str(tmp_path / "run"), *flags.split(), *TINY_FLAGS]) == 2
    said = capsys.readouterr()
    assert "error: too little memory for batches of 2 at 64 x 64 pixels" in said.err and "Traceback" not in said.err
    assert torch.load(tmp_path / "run/last.pt", weights_only=True)["position"]["step"] == 2
