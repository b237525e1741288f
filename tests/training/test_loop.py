"""The training loop: what it writes, what it resumes, what it refuses."""

import errno
import io
import json
import os
import runpy
import signal
from pathlib import Path

import pytest
import torch

import birefnet_core as bc
from birefnet_core.checkpoints import io as checkpoint_files
from birefnet_core.training import Recipe, TrainingData, load_datasets, loop, run_folder, train
from birefnet_core.training import state as states
from birefnet_core.training.data.dataset import Batch
from birefnet_core.training.distributed import Ranks
from birefnet_core.training.run_folder import RunFolder

from .conftest import TINY, assert_same, draw_shape, read_state, write_shapes

# Everything that has a state or draws random numbers.
BUSY = {
    "ema": 0.9, "accumulate": 2, "schedule": "cosine", "warmup_steps": 2, "clip": 1.0, "rlft": 1, "decoder_epochs": 1,
    "epochs": 3, "dynamic": (64, 96), "augment.colour": 0.5, "augment.crop": 0.5, "save_steps": 1,
}  # fmt: skip

# Trains, and kills itself by a signal after a step. A module of its own, because tests are none to another process.
SCRIPT = """
import json, os, signal, sys
import torch
from birefnet_core.training import TrainingData, from_values, train
torch.set_num_threads(1)
os.fsync = lambda _: None  # a kill is no loss of power
recipe, data, out, step, number = {arguments!r}
def kill(values):
    if values["step"] == step:
        os.kill(os.getpid(), number)
recipe = from_values(json.loads(recipe))
result = train(recipe, TrainingData(sets=(data,)), out, device="cpu", resume=True, progress=kill)
sys.exit(0 if result.finished else 128 + result.signal)
"""


@pytest.fixture
def run_script(shapes, tmp_path, processes_of):
    """Runs a training in another process; kills it after a step."""

    def run(recipe, out: Path, step: int = -1, number: int = signal.SIGKILL) -> int:
        script = tmp_path / "script.py"
        arguments = json.dumps(recipe.to_flat()), str(shapes), str(out), step, int(number)
        script.write_text(SCRIPT.format(arguments=arguments))
        process = processes_of(target=runpy.run_path, args=(str(script),))
        process.start()
        process.join(1200)
        return process.exitcode

    return run


def lines(folder: Path) -> list[dict]:
    """metrics.jsonl without times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize(
    "stops",
    [
        ((3, signal.SIGTERM), (5, signal.SIGKILL)),
        pytest.param(((1, signal.SIGKILL), (3, signal.SIGTERM), (5, signal.SIGKILL)), marks=pytest.mark.slow),
    ],
    ids=["", "killed twice"],
)
def test_killed_and_resumed_training_equals_one_that_was_not(run_script, tiny_recipe, tmp_path, stops):
    recipe = tiny_recipe().replace(**BUSY)
    assert run_script(recipe, tmp_path / "whole") == 0
    # Five pairs in batches of two, two batches a step: two steps an epoch. Killed in the middle of an epoch, stopped
    # politely, and killed in the region-level tail.
    for step, number in stops:
        assert run_script(recipe, tmp_path / "parts", step, number) == (143 if number == signal.SIGTERM else -number)
    assert run_script(recipe, tmp_path / "parts") == 0
    whole, parts = (read_state(tmp_path / name) for name in ("whole", "parts"))
    assert whole["position"]["step"] == 6
    assert_same(parts, whole)
    best = [bc.load_file(tmp_path / name / "best.safetensors").state_dict() for name in ("whole", "parts")]
    assert_same(*best)
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


@pytest.mark.slow
def test_growing_sizes_and_inner_channels_survive_a_kill(run_script, tiny_recipe, tmp_path):
    recipe = tiny_recipe(growth=(64, 96), size=(96, 64), epochs=2, save_steps=1, channels_last=True)
    assert run_script(recipe, tmp_path / "whole") == 0
    assert run_script(recipe, tmp_path / "parts", 3, signal.SIGKILL) == -signal.SIGKILL
    assert run_script(recipe, tmp_path / "parts") == 0
    assert_same(*(read_state(tmp_path / n) for n in ("parts", "whole")))
    with pytest.raises(bc.ConfigError, match=r"another recipe \(growth: \[64, 96\] then, \[64\] now\)"):
        RunFolder(tmp_path / "whole").load(recipe.replace(growth=[64]), "")


def test_channels_last_changes_the_layout_and_not_the_training(shapes, tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda _, x: x)  # draws in the order of memory
    losses = {}

    def stop(values):
        losses[inner] = values["loss"]
        raise ValueError

    data = TrainingData(sets=(shapes,))
    for inner in (False, True):
        with pytest.raises(ValueError):
            train(tiny_recipe(channels_last=inner), data, tmp_path / str(inner), device="cpu", progress=stop)
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)  # of the first step; rounding grows from there


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """A finished training of one epoch, with everything on."""
    recipe = Recipe(
        backbone="pvt_v2_b0", network=TINY, size=(64, 64), epochs=1, batch_size=2, workers=0, log_steps=1, amp="bf16",
        ema=0.9, checkpoint_activations=True,
    )  # fmt: skip
    out = tmp_path_factory.mktemp("trained")
    return recipe, out, train(recipe, TrainingData(sets=(shapes,)), out, device="cpu")


def test_training_writes_everything_a_user_needs(trained):
    _, out, result = trained
    assert result.finished
    assert result.steps == 3
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    expected = {"best.safetensors", "last.pt", "metrics.jsonl", "recipe.toml", "report.md", "curves.png"}
    assert expected | {"samples/epoch_0001.png"} <= names
    kinds = [row["kind"] for row in lines(out)]
    assert kinds == ["step", "step", "step", "epoch", "validation"]
    assert set(lines(out)[0]["terms"]) == {"bce", "iou", "ssim", "gradient"}
    assert "| Sm |" in (out / "report.md").read_text()


def test_best_loads_under_the_published_names_with_its_recipe(trained, caplog):
    from birefnet_core.checkpoints.io import read_file

    _, out, _ = trained
    file = read_file(out / "best.safetensors")
    assert {name.split(".")[0] for name in file.tensors} == {"bb", "squeeze_module", "decoder"}
    assert json.loads(file.metadata["birefnet_recipe"])["loss.bce"] == 30
    model = bc.load_model(out / "best.safetensors")
    last = bc.load_model(out / "last.pt")
    assert_same(last.state_dict(), model.state_dict())  # the average, which was validated
    assert model.checkpoint.training_size == last.checkpoint.training_size == (64, 64)
    assert last.config == model.config and caplog.text.count("moving average") == 1
    assert bc.Segmenter(model)(torch.rand(1, 40, 50, 3)).shape == (1, 40, 50)


def test_folder_of_another_run_is_refused(trained, shapes, tmp_path):
    recipe, out, _ = trained
    data = TrainingData(sets=(shapes,))
    before = (out / "best.safetensors").read_bytes()
    with pytest.raises(bc.ConfigError, match="holds another run"):
        train(recipe, data, out, device="cpu")
    with pytest.raises(bc.ConfigError, match=r"another recipe \(lr: 0.0001 then, 0.5 now\)"):
        train(recipe.replace(lr=0.5), data, out, device="cpu", resume=True)
    with pytest.raises(bc.ConfigError, match="other data"):
        train(recipe, TrainingData(sets=(write_shapes(tmp_path / "more", 3),)), out, device="cpu", resume=True)
    result = train(recipe.replace(workers=1), data, out, device="cpu", resume=True)
    assert (result.steps, result.scores) == (3, trained[2].scores)  # done already
    assert (out / "best.safetensors").read_bytes() == before


class SmallDisk(io.FileIO):
    """A file on a disk with room for a little more."""

    def write(self, data) -> int:
        if self.tell() + len(data) > 5000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_full_disk_leaves_the_former_state(monkeypatch, tmp_path):
    folder = RunFolder(tmp_path)
    folder.save({"step": 1})
    before = folder.last.read_bytes()
    monkeypatch.setattr(run_folder, "open", SmallDisk, raising=False)
    with pytest.raises(bc.CheckpointError, match=r"disk is full.*--resume.*The former one is still there"):
        folder.save({"step": 2, "weights": [torch.ones(500) for _ in range(9)]})
    assert folder.last.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("write", [1, 2, 7])
def test_a_signal_while_the_state_is_written_is_none_of_its_errors(monkeypatch, tmp_path, write):
    class Interrupted(io.FileIO):
        writes = 0

        def write(self, data):
            self.writes += 1
            if self.writes == write:
                raise KeyboardInterrupt
            return super().write(data)

    monkeypatch.setattr(run_folder, "open", Interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        RunFolder(tmp_path).save({"weights": [torch.ones(500) for _ in range(9)]})
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_former_best_and_the_training_goes_on_later(shapes, tiny_recipe, tmp_path, monkeypatch):
    data, recipe = TrainingData(sets=(shapes,)), tiny_recipe(batch_size=6, val_fraction=0)
    saved = []

    def fill(values):
        if values["step"] == 2:  # in the second epoch
            saved.append((tmp_path / "best.safetensors").read_bytes())
            monkeypatch.setattr(checkpoint_files, "_write_tensors", full)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(bc.CheckpointError, match=r"best.safetensors: not written, the disk is full"):
        train(recipe, data, tmp_path, device="cpu", progress=fill)
    assert (tmp_path / "best.safetensors").read_bytes() == saved[0]
    monkeypatch.undo()
    assert train(recipe, data, tmp_path, device="cpu", resume=True).steps == 2
    assert (tmp_path / "best.safetensors").read_bytes() != saved[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_disk_that_fills_up_under_the_log_keeps_what_was_saved(shapes, tiny_recipe, tmp_path):
    data, recipe = TrainingData(sets=(shapes,)), tiny_recipe(batch_size=5)

    def fill(values):
        if values["step"] == 2:  # in the second epoch
            (tmp_path / "metrics.jsonl").unlink()
            (tmp_path / "metrics.jsonl").symlink_to("/dev/full")

    with pytest.raises(bc.TrainingError, match=r"disk is full.*--resume"):
        train(recipe, data, tmp_path, device="cpu", progress=fill)
    assert bc.load_model(tmp_path / "best.safetensors")
    (tmp_path / "metrics.jsonl").unlink()
    assert train(recipe, data, tmp_path, device="cpu", resume=True).steps == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_file_that_breaks_during_training_is_named(tiny_recipe, tmp_path, workers):
    """Each epoch reads the files anew; what was saved stays."""
    folder = write_shapes(tmp_path / "set", 6)

    def spoil(values):
        if values["step"] == 2:
            for path in (folder / "im").iterdir():
                path.write_bytes(path.read_bytes()[:100])

    recipe = tiny_recipe(workers=workers, batch_size=3, val_fraction=0, epochs=2)
    with pytest.raises(bc.DatasetError, match=r"im/shape0\d.png") as caught:
        train(recipe, TrainingData(sets=(folder,)), tmp_path / "out", device="cpu", progress=spoil)
    assert "Traceback" not in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert bc.load_model(tmp_path / "out/best.safetensors")


def test_loss_that_is_not_finite_stops_with_the_file_names(shapes, tiny_recipe, tmp_path, monkeypatch):
    def poisoned(*args):
        for batch in original(*args):
            yield Batch(images=batch.images * float("nan"), masks=batch.masks, classes=batch.classes, names=batch.names)

    original = loop.load_batches
    monkeypatch.setattr(loop, "load_batches", poisoned)
    with pytest.raises(bc.TrainingError, match=r"not finite in epoch 1, step 1.*shapes0/shape0"):
        train(tiny_recipe(), TrainingData(sets=(shapes,)), tmp_path, device="cpu")
    assert (tmp_path / "last.pt").exists()


def test_nan_in_a_validation_says_what_to_do(shapes, tiny_recipe, tmp_path, monkeypatch):
    def overflow(*_, **__):
        raise bc.CheckpointError("the network computes NaN")

    monkeypatch.setattr(loop, "validate", overflow)
    with pytest.raises(
        bc.TrainingError, match=r"NaN in the validation after step 1\. Lower the learning rate.*last\.pt"
    ):
        train(tiny_recipe(batch_size=5), TrainingData(sets=(shapes,)), tmp_path, device="cpu")


def test_one_pair_and_batch_one_train_with_norms_kept(tmp_path, tiny_recipe, caplog):
    recipe = tiny_recipe(batch_size=1, epochs=1)
    result = train(recipe, TrainingData(sets=(write_shapes(tmp_path / "one", 1),)), tmp_path / "out", device="cpu")
    assert result.finished
    assert "BatchNorm keeps its statistics" in caplog.text
    model = bc.load_model(tmp_path / "out/best.safetensors")
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all((norm.running_mean == 0).all() for norm in norms)


def test_backbone_of_the_checkpoint_must_be_the_one_asked_for(tiny_checkpoint, tiny_recipe, shapes, tmp_path):
    recipe = tiny_recipe(init=str(tiny_checkpoint)).replace(backbone="swin_v1_t")
    with pytest.raises(bc.ConfigError, match="has the backbone pvt_v2_b0, not swin_v1_t"):
        train(recipe, TrainingData(sets=(shapes,)), tmp_path, device="cpu")


@pytest.fixture
def first_gradients(monkeypatch, tmp_path):
    """Trains without noise; gives the gradients the optimizer takes its first step with, which is the last."""

    class Found(Exception):
        pass

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            parameters = [p for group in self.param_groups for p in group["params"]]
            raise Found({str(i): p.grad.clone() for i, p in enumerate(parameters) if p.grad is not None})

    def run(recipe, data: TrainingData, name: str) -> dict[str, torch.Tensor]:
        monkeypatch.setattr(torch.nn.Dropout, "forward", lambda _, x: x)
        monkeypatch.setattr("timm.layers.DropPath.forward", lambda _, x: x)
        monkeypatch.setattr(states, "make_optimizer", lambda model, _: with_base(Watched(model.parameters(), lr=0.0)))
        with pytest.raises(Found) as found:
            train(recipe, data, tmp_path / name, device="cpu")
        return found.value.args[0]

    def with_base(optimizer):
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
        return optimizer

    return run


def test_accumulated_batches_give_the_gradient_of_one_large_batch(first_gradients, tiny_recipe, tmp_path):
    data = TrainingData(sets=(write_shapes(tmp_path / "four", 4),))
    recipe = tiny_recipe(epochs=1, val_fraction=0, freeze_bn=True, batch_size=4)
    whole = first_gradients(recipe, data, "whole")
    parts = first_gradients(recipe.replace(batch_size=2, accumulate=2), data, "parts")
    assert whole
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_clipping_limits_the_norm_of_the_gradient(first_gradients, tiny_recipe, shapes):
    recipe, data = tiny_recipe(epochs=1, val_fraction=0), TrainingData(sets=(shapes,))
    norms = [
        torch.stack([g.norm() for g in first_gradients(recipe.replace(clip=clip), data, str(clip)).values()]).norm()
        for clip in (0, 0.5)
    ]
    assert norms[0] > 1
    assert norms[1] == pytest.approx(0.5, rel=1e-3)


def test_cutouts_on_backgrounds_train(tmp_path, tiny_recipe):
    for name in ("cutouts", "backgrounds"):
        (tmp_path / name).mkdir()
        for i in range(3):
            image, mask = draw_shape(i)
            if name == "cutouts":
                image.putalpha(mask)
            image.save(tmp_path / name / f"{i}.png")
    data = TrainingData(sets=(tmp_path / "cutouts",), backgrounds=tmp_path / "backgrounds")
    assert train(tiny_recipe(epochs=1), data, tmp_path / "out", device="cpu").scores["MAE"] < 1
    assert "3 backgrounds" in (tmp_path / "out" / "report.md").read_text()


def test_float16_trains_with_scaled_gradients_and_keeps_the_scale(tiny_recipe, tmp_path):
    recipe, folder = tiny_recipe(amp="fp16", epochs=1, clip=1.0), write_shapes(tmp_path / "set", 3)
    result = train(recipe, TrainingData(sets=(folder,)), tmp_path, device="cpu")
    assert result.steps == 1
    assert read_state(tmp_path)["scaler"]["scale"] > 1
    assert bc.load_model(tmp_path / "best.safetensors")


def test_norms_over_processes_need_gpus(shapes, tiny_recipe, tmp_path):
    recipe = tiny_recipe(sync_bn=True)
    datasets = load_datasets(recipe, TrainingData(sets=(shapes,)))
    with pytest.raises(bc.ConfigError, match="sync_bn needs GPUs"):
        loop.Trainer(recipe, datasets, RunFolder(tmp_path), Ranks(0, 2))


def test_decoder_only_leaves_the_encoder_alone(tiny_checkpoint, tiny_recipe, shapes, tmp_path):
    recipe = tiny_recipe(
        init=str(tiny_checkpoint), train="decoder", epochs=1, weight_decay=0.1, val_fraction=0
    ).replace(batch_size=6)
    train(recipe, TrainingData(sets=(shapes,)), tmp_path, device="cpu")
    before, after = (bc.load_file(p).state_dict() for p in (tiny_checkpoint, tmp_path / "best.safetensors"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith("localization.encoder") for name in changed)


def test_classes_of_the_file_names_are_learned(tmp_path, tiny_recipe):
    folder = write_shapes(tmp_path / "set", 4)
    for i, path in enumerate([*sorted((folder / "im").iterdir()), *sorted((folder / "gt").iterdir())]):
        path.rename(path.with_name(f"1#Group#{i % 2}#Class{i % 2}#{i % 4}.png"))
    recipe = tiny_recipe(classes="file_name", epochs=1)
    train(recipe, TrainingData(sets=(folder,)), tmp_path / "out", device="cpu")
    assert "ce" in lines(tmp_path / "out")[0]["terms"]
    assert bc.load_model(tmp_path / "out/best.safetensors").config.num_classes == 2
