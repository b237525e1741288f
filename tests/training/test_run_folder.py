"""last.pt that is damaged or of something else; leftovers of killed processes."""

import errno
import io
import json
import os
import random
import zipfile

import pytest
import torch

import birefnet_core as bc
from birefnet_core.checkpoints.io import write_safetensors
from birefnet_core.stop_signal import StopSignal
from birefnet_core.training import Recipe, TrainingData, load_datasets, train
from birefnet_core.training.distributed import Ranks
from birefnet_core.training.loop import Trainer
from birefnet_core.training.recipe import SCORES
from birefnet_core.training.run_folder import Position, RunFolder, write_errors_as_training_error

from .conftest import TINY, draw_shape, read_state, write_shapes

RECIPE = Recipe(
    backbone="pvt_v2_b0", network=TINY, size=(64, 64), epochs=1, batch_size=5, workers=0, ema=0.9, train="decoder"
)


@pytest.fixture(scope="module")
def data(shapes):
    return load_datasets(RECIPE, TrainingData(sets=(shapes,)))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of a training of one step, and what did it."""
    trainer = Trainer(RECIPE, data, RunFolder(tmp_path_factory.mktemp("trained")), Ranks())
    trainer.start(resume=False)
    trainer.run(StopSignal())
    return trainer.folder.path, trainer


@pytest.fixture(scope="module")
def finished(trained):
    """The bytes of a last.pt with some weights alone: those of all would only take longer to look through."""
    state = read_state(trained[0])
    state["model"], state["ema"]["state"] = (few(part) for part in (state["model"], state["ema"]["state"]))
    state["optimizer"]["state"] = few(state["optimizer"]["state"])
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def few(values: dict) -> dict:
    return dict(list(values.items())[:30])


@pytest.fixture
def load(data, tmp_path):
    """Resumes from a last.pt of some bytes."""

    def resume(content: bytes):
        (tmp_path / "last.pt").write_bytes(content)
        return RunFolder(tmp_path).load(RECIPE, data.fingerprint)

    return resume


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 50, bytes(100_000), b"PK\x03\x04" + bytes(1000)])
def test_what_is_no_state_is_refused_by_name(load, content):
    with pytest.raises(bc.CheckpointError, match=r"last\.pt: truncated or corrupted .*Start a new folder"):
        load(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
            "a Git LFS pointer: run `git lfs pull`",
        ),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
    ],
)
def test_what_lies_in_the_place_of_a_state_is_named(load, content, words):
    with pytest.raises(bc.CheckpointError, match=rf"last\.pt: it holds {words}.*Start a new folder"):
        load(content)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_state_is_refused(load, finished, part):
    with pytest.raises(bc.CheckpointError, match=r"last\.pt"):
        load(finished[: int(len(finished) * part)])


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 12))])
def test_a_flipped_bit_is_found_wherever_it_is(load, finished, seed, tmp_path):
    place = random.Random(seed).randrange(len(finished))
    content = bytearray(finished)
    content[place] ^= 1 << seed % 8
    try:
        state = load(bytes(content))
    except bc.CheckpointError:
        return
    intact = torch.load(io.BytesIO(finished), weights_only=True)  # a bit that means nothing, such as padding
    assert zipfile.ZipFile(tmp_path / "last.pt").testzip() is None
    assert all(torch.equal(state["model"][name], value) for name, value in intact["model"].items())


CHANGES = {
    "a list": lambda s: [1, 2],
    "another format": lambda s: {**s, "format": 2},
    "no recipe": lambda s: {k: v for k, v in s.items() if k != "recipe"},
    "a recipe of text": lambda s: {**s, "recipe": "dis5k"},
    "no data": lambda s: {k: v for k, v in s.items() if k != "data"},
    "no model": lambda s: {k: v for k, v in s.items() if k != "model"},
    "no weights": lambda s: {**s, "model": None},
    "few weights": lambda s: {**s, "model": dict(list(s["model"].items())[:5])},
    "no average": lambda s: {**s, "ema": None},
    "no moments": lambda s: {**s, "optimizer": {"state": {}, "param_groups": []}},
    "no position": lambda s: {**s, "position": None},
    "a negative epoch": lambda s: {**s, "position": {**s["position"], "epoch": -3}},
    "an epoch of text": lambda s: {**s, "position": {**s["position"], "epoch": "1"}},
    "no processes": lambda s: {**s, "processes": 0},
    "half a process": lambda s: {**s, "processes": 0.5},
    "processes of text": lambda s: {**s, "processes": "2"},
    "a batch beyond the data": lambda s: {**s, "position": {**s["position"], "epoch": 0, "batch": 10**9}},
    "an epoch beyond the recipe": lambda s: {**s, "position": {**s["position"], "epoch": 10**9, "step": 10**10}},
    "a step beyond all": lambda s: {**s, "position": {**s["position"], "step": 10**18}},
    "fewer steps than epochs": lambda s: {**s, "position": {**s["position"], "step": 0}},
    "a batch that is true": lambda s: {**s, "position": {**s["position"], "batch": True}},
    "a best score of text": lambda s: {**s, "position": {**s["position"], "best": "1"}},
    "a best score of 7": lambda s: {**s, "position": {**s["position"], "best": 7.0}},
    "sums without steps": lambda s: {**s, "position": {**s["position"], "sums": {"loss": 1.0}, "count": 0}},
    "steps without sums": lambda s: {**s, "position": {**s["position"], "epoch": 0, "count": 1, "sums": {}}},
    "sums of text": lambda s: {**s, "position": {**s["position"], "sums": {"loss": "1"}, "count": 1}},
    "more positions": lambda s: {**s, "position": {**s["position"], "hello": 1}},
}


def small(state):
    """A state in which all elements of a tensor are the first one, which a file holds once."""
    if isinstance(state, dict):
        return {key: small(value) for key, value in state.items()}
    if isinstance(state, torch.Tensor) and state.ndim:
        return state.flatten()[:1].clone().expand(state.shape)
    return state


@pytest.fixture(scope="module")
def sound(trained, tmp_path_factory):
    """A state that is taken: what the tests change is what is refused."""
    folder, trainer = trained
    state = small(read_state(folder))
    trainer.folder = RunFolder(tmp_path_factory.mktemp("sound"))
    torch.save(state, trainer.folder.last)
    trainer.start(resume=True)
    assert trainer.state.position.step == 1
    return state


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_of_something_else_is_refused_without_a_traceback(sound, trained, tmp_path, name):
    torch.save(CHANGES[name](sound), tmp_path / "last.pt")
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    before = (tmp_path / "last.pt").read_bytes()
    trainer = trained[1]
    trainer.folder = RunFolder(tmp_path)
    with pytest.raises(bc.CheckpointError, match=r"last\.pt: not (a|the) state .*Start a new folder"):
        trainer.start(resume=True)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert (tmp_path / "metrics.jsonl").read_text() == "{}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "metrics.jsonl"}


def test_pickles_do_not_run(load, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for zipped in (True, False):
        file = io.BytesIO()
        torch.save({"format": 1, "x": Evil()}, file, _use_new_zipfile_serialization=zipped)
        with pytest.raises(bc.CheckpointError):
            load(file.getvalue())
    assert not (tmp_path / "ran").exists()


def test_leftovers_of_killed_writers_are_removed_when_the_run_goes_on(tmp_path):
    (tmp_path / "samples").mkdir()
    for name in (".last.pt.0123abcd.part", "samples/.epoch_0001.png.0123abcd.part"):
        (tmp_path / name).write_bytes(bytes(9))
    RunFolder(tmp_path).prepare_output_dir(resume=True)
    assert not list(tmp_path.rglob("*.part"))


ROWS = [
    {"kind": "validation", "epoch": 0, "step": 0, **dict.fromkeys(SCORES, 0.5)},
    {"kind": "epoch", "epoch": 1, "step": 3, "loss": None, "terms": {"bce": 1.0}},
]


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b"3", b"null", b"{}", b"[1]", b"\0\0\0", b'{"kind": "epoch"}', b"[" * 100_000,
     b'{"kind": "step", "epoch": 1, "step": "x"}', b'{"kind": "epoch", "epoch": 1, "step": 3}',
     b'{"kind": "validation", "epoch": 1, "step": 3, "Sm": "x"}'],
)  # fmt: skip
def test_damaged_lines_of_the_log_are_skipped(tmp_path, line):
    folder = RunFolder(tmp_path)
    good = [json.dumps(row).encode() for row in ROWS]
    folder.metrics.write_bytes(b"\n".join([good[0], line, good[1], line, b""]))
    assert folder.rows() == ROWS
    folder.rewind(Position(epoch=1, step=3))
    assert folder.rows() == ROWS


@pytest.mark.parametrize("steps", [0, 3])
def test_a_training_without_its_state_is_not_begun_again_over_its_results(tmp_path, steps):
    folder = RunFolder(tmp_path)
    for row in ROWS[: 1 + bool(steps)]:
        folder.log(row)
    folder.best.write_bytes(b"weights")
    if steps:
        with pytest.raises(bc.ConfigError, match=r"last\.pt is missing.*--init .*best\.safetensors"):
            folder.prepare_output_dir(resume=True)
    else:  # killed before the first state was saved
        folder.prepare_output_dir(resume=True)


@pytest.mark.parametrize("name", ["best.safetensors", "best_adapter.safetensors"])
@pytest.mark.parametrize("text", [{}, {"training": '{"step": 7}'}, {"training": '{"step": 0}'}, {"training": "[]"}])
def test_a_network_of_which_nothing_else_is_left_is_not_replaced_by_resume(tmp_path, name, text):
    """It may be what ``--init`` names. One from before the first step is of a start that was killed."""
    folder = RunFolder(tmp_path)
    write_safetensors(tmp_path / name, {"a": torch.ones(1)}, text)
    if "0" in text.get("training", ""):
        folder.prepare_output_dir(resume=True)
    else:
        with pytest.raises(bc.ConfigError, match=r"last\.pt is missing"):
            folder.prepare_output_dir(resume=True)


@pytest.mark.parametrize("kind", ["curves", "samples", "quota", "read-only", "elsewhere"])
def test_files_of_a_run_that_cannot_be_written_are_named(tmp_path, kind):
    folder = RunFolder(tmp_path)
    number = {"quota": errno.EDQUOT, "read-only": errno.EROFS}.get(kind, errno.EACCES)
    expected = PermissionError if kind == "elsewhere" else bc.TrainingError
    with pytest.raises(expected) as caught, write_errors_as_training_error(folder):
        if kind == "curves":
            (tmp_path / "curves.png").mkdir()
            folder.write_text("curves.png", "")
        if kind == "samples":
            (tmp_path / "samples").write_text("")
            (tmp_path / "samples").mkdir()
        raise OSError(number, os.strerror(number), "/elsewhere" if kind == "elsewhere" else str(folder.metrics))
    names = {"curves": "curves.png cannot be", "samples": "samples cannot be", "read-only": "metrics.jsonl cannot be"}
    assert {**names, "quota": "the disk is full"}.get(kind, "elsewhere") in str(caught.value)


def test_a_training_goes_on_with_its_own_backgrounds_alone(tmp_path, tiny_recipe):
    folder = write_shapes(tmp_path / "set", 3)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        draw_shape(0)[0].save(tmp_path / name / f"{name}.png")

    def go_on(backgrounds, resume=True):
        data = TrainingData(sets=(folder,), backgrounds=backgrounds and tmp_path / backgrounds)
        recipe = tiny_recipe(epochs=1, batch_size=3, val_fraction=0)
        return train(recipe, data, tmp_path / "out", device="cpu", resume=resume)

    go_on("one", resume=False)
    for backgrounds in ("other", None):
        with pytest.raises(bc.ConfigError, match="with other --backgrounds"):
            go_on(backgrounds)
    go_on("one")
    state = read_state(tmp_path / "out")
    del state["backgrounds"]  # as earlier versions left it
    torch.save(state, tmp_path / "out/last.pt")
    go_on("other")


@pytest.mark.parametrize("val_fraction", [0, 0.2])
@pytest.mark.parametrize("save_steps", [0, 1])
def test_weights_that_are_not_finite_are_never_saved(shapes, tiny_recipe, tmp_path, val_fraction, save_steps):
    def spoil(values):
        if values["step"] == (1 if save_steps else 2):  # within an epoch, or at its end
            with torch.no_grad():
                next(trainer.state.model.parameters())[0] = torch.nan

    recipe = tiny_recipe(epochs=2, batch_size=3, val_fraction=val_fraction, save_steps=save_steps)
    datasets = load_datasets(recipe, TrainingData(sets=(shapes,)))
    trainer = Trainer(recipe, datasets, RunFolder(tmp_path), Ranks(), spoil)
    trainer.start(resume=False)
    with pytest.raises(bc.TrainingError, match=r"the weights are not finite after step \d.*clip=1"):
        trainer.run(StopSignal())
    state = read_state(tmp_path)["model"]
    assert all(value.isfinite().all() for value in state.values())


def test_hidden_files_of_other_programs_stay(tmp_path):
    others = [".film.mp4.part", ".photo.png.a1b2.part", "deeper/.download.part", ".part", "last.pt.0123abcd.part"]
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(9))
    RunFolder(tmp_path).prepare_output_dir(resume=False)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.part")) == sorted(others)
