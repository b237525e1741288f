"""A training writes over nothing that it reads."""

import os

import pytest
from PIL import Image

from birefnet_core import ConfigError
from birefnet_core.cli.main import main
from birefnet_core.training import Recipe, TrainingData, load_datasets, train
from birefnet_core.training.data.folders import EXAMPLES
from birefnet_core.training.run_folder import RunFolder
from birefnet_core.training.run_inputs import _outputs

from .conftest import TINY_FLAGS, draw_shape

FLAGS = ["--size", "64", "--epochs", "1", "--batch-size", "2", "--workers", "0", "--device", "cpu", "--quiet"]


def write_pairs(images, masks, names):
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        image, mask = draw_shape(number, 64)
        image.save(images / name)
        mask.save(masks / name)


def begin(folder):
    """A training that was killed at its start: what is there is taken for its own, unless it is read."""
    (folder / "metrics.jsonl").touch()


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs a training that is refused, by a sentence with some words, and leaves all files as they were."""

    def run(*flags, words):
        before = contents(tmp_path)
        assert main(["train", *map(str, flags), *FLAGS]) == 2
        error = capsys.readouterr().err
        assert all(str(word) in error for word in words) and error.count("\n") <= 2
        assert contents(tmp_path) == before

    return run


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--resume"]])
@pytest.mark.parametrize("name", ["curves.png", "samples/epoch_0000.png"])
def test_images_with_names_of_results_are_not_replaced(tmp_path, refused, more, name):
    images, masks = (tmp_path / "o" / name).parent, tmp_path / "m"
    write_pairs(images, masks, ["0.png", "1.png", "2.png", os.path.basename(name)])
    flags = ["--images", images, "--masks", masks, "--out", tmp_path / "o", *more]
    # Refused before the data are looked at: no training has drawn them.
    words = [tmp_path / "o", f"{name} would be replaced", "came from none", "--out another folder"]
    refused(*flags, words=words)
    begin(tmp_path / "o")
    if "--resume" in more and name != "curves.png":  # which is left out of data beside a training
        words = [tmp_path / "o" / name, f"would be replaced by {name} of {tmp_path / 'o'}, ", "--out another folder"]
        refused(*flags, words=words)


@pytest.mark.parametrize("kind", ["masks", "validation", "backgrounds", "unpaired"])
def test_every_kind_of_data_stays(tmp_path, refused, kind):
    for name in ("set", "other"):
        write_pairs(tmp_path / name / "im", tmp_path / name / "gt", [f"{name}{n}.png" for n in range(3)])
    flags = ["--data", tmp_path / "set"]
    read = tmp_path / "other" / ("gt" if kind == "masks" else "im") / "other1.png"
    (tmp_path / "o/samples").mkdir(parents=True)
    os.link(read, tmp_path / "o/samples/epoch_0000.png")
    if kind == "backgrounds":
        flags += ["--backgrounds", tmp_path / "other/im"]
    elif kind == "validation":
        flags += ["--val-data", tmp_path / "other"]
    else:
        flags = ["--data", tmp_path / "other", "--skip-bad"]
        if kind == "unpaired":
            (tmp_path / "other/gt/other1.png").unlink()
    begin(tmp_path / "o")
    words = [read, "would be replaced by samples/epoch_0000.png"]
    refused(*flags, "--out", tmp_path / "o", "--resume", words=words)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_data_are_known_through_links(tmp_path, refused, link):
    write_pairs(tmp_path / "im", tmp_path / "gt", ["0.png", "1.png", "2.png"])
    (tmp_path / "o").mkdir()
    link(tmp_path / "im/1.png", tmp_path / "o" / EXAMPLES)
    refused("--data", tmp_path, "--out", tmp_path / "o", words=[tmp_path / "o", f"{EXAMPLES} would be replaced"])
    begin(tmp_path / "o")
    words = [tmp_path / "im/1.png", f"replaced by {EXAMPLES}"]
    refused("--data", tmp_path, "--out", tmp_path / "o", "--resume", words=words)


@pytest.mark.parametrize("names", [["0.png", "1.png"], ["epoch_0000.png", "epoch_0001.png"]])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_samples_that_lead_to_data_are_refused(tmp_path, refused, names, more):
    write_pairs(tmp_path / "im", tmp_path / "gt", names)
    (tmp_path / "o").mkdir()
    os.symlink(tmp_path / "im", tmp_path / "o/samples")
    if "epoch_0000.png" in names:
        words = [tmp_path / "o", "samples/epoch_0000.png, samples/epoch_0001.png would be replaced"]
        refused("--data", tmp_path, "--out", tmp_path / "o", *more, words=words)
    begin(tmp_path / "o")
    more = [*more, "--resume"]
    words = [tmp_path / "o/samples", f"leads to {tmp_path / 'im'}"]
    refused("--data", tmp_path, "--out", tmp_path / "o", *more, words=words)


@pytest.mark.parametrize("cutouts", [True, False])
def test_an_image_called_as_the_examples_is_not_taken_for_them(tmp_path, refused, cutouts):
    write_pairs(tmp_path / "im", tmp_path / "gt", ["0.png", "1.png", "2.png", EXAMPLES])
    flags = ["--images", tmp_path / "im", "--masks", tmp_path / "gt", "--skip-bad"]
    if cutouts:
        for path in (tmp_path / "im").iterdir():
            image = Image.open(path)
            image.putalpha(Image.open(tmp_path / "gt" / path.name))
            image.save(path)
        flags = ["--data", tmp_path / "im"]
    refused(*flags, "--out", tmp_path / "im", "--dry-run", words=[tmp_path / "im", f"{EXAMPLES} would be replaced"])


@pytest.mark.parametrize("flag", ["init", "encoder"])
def test_weights_that_a_new_training_begins_with_stay(shapes, tmp_path, flag):
    """A killed start leaves a network of step 0, which --resume may write anew."""
    (tmp_path / "o").mkdir()
    (tmp_path / "o/best.safetensors").write_bytes(b"x")
    recipe = Recipe(**{flag: str(tmp_path / "o/best.safetensors"), "size": (64, 64)})
    with pytest.raises(ConfigError, match=r"best\.safetensors is read by this training and would be replaced"):
        load_datasets(recipe, TrainingData(sets=(shapes,)), folder=RunFolder(tmp_path / "o"), resume=True)


def test_a_recipe_is_not_replaced_by_another_file_of_the_run(tmp_path, refused):
    write_pairs(tmp_path / "im", tmp_path / "gt", ["0.png", "1.png"])
    (tmp_path / "o").mkdir()
    (tmp_path / "r.toml").write_text("name = 'mine'")
    os.link(tmp_path / "r.toml", tmp_path / "o/report.md")
    flags = ["--data", tmp_path, "--recipe", tmp_path / "r.toml", "--out", tmp_path / "o"]
    refused(*flags, words=[tmp_path / "r.toml", "report.md"])


@pytest.mark.parametrize("place", ["", "im", "run"])
def test_a_run_beside_its_data_goes_on_and_all_that_it_writes_is_known(tmp_path, place):
    write_pairs(tmp_path / "p/im", tmp_path / "p/gt", ["0.png", "1.png", "2.png"])
    out = tmp_path / "p" / place
    flags = ["train", "--data", str(tmp_path / "p"), "--out", str(out), *FLAGS, *TINY_FLAGS]
    before = contents(tmp_path / "p")
    assert main([*flags, "--dry-run"]) == main(flags) == main([*flags, "--resume"]) == 0
    after = contents(tmp_path / "p")
    assert before.items() <= after.items()
    written = {tmp_path / "p" / path for path in after.keys() - before.keys()}
    known = set(_outputs(RunFolder(out)))
    assert {path for path in written if "tensorboard" not in path.parts} <= known


def test_data_in_the_folder_of_the_run_under_other_names_are_trained_on(tmp_path, tiny_recipe):
    write_pairs(tmp_path / "o/samples", tmp_path / "o/m", ["0.png", "1.png", "2.png"])
    data = TrainingData(images=(tmp_path / "o/samples",), masks=(tmp_path / "o/m",))
    before = contents(tmp_path)
    train(tiny_recipe(epochs=1), data, tmp_path / "o", device="cpu")
    assert before.items() <= contents(tmp_path).items()
