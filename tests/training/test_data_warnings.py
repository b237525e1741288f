"""What the report of the data warns of before a training: batches and folders that are not what they seem."""

import pytest

from birefnet_core.training import TrainingData, load_datasets
from birefnet_core.training.distributed import Ranks

from .conftest import write_shapes


@pytest.mark.parametrize(
    ("images", "batch", "val_fraction", "told"),
    [(3, 2, 0.0, ""), (3, 3, 0.0, ""), (3, 4, 0.0, "a batch of 4 is more than the 3 images"),
     (3, 3, 0.3, "a batch of 3 is more than the 2 images"), (1, 2, 0.3, "a batch of 2 is more than the 1 images")],
)  # fmt: skip
def test_a_batch_of_more_than_the_images_is_told(tmp_path, tiny_recipe, images, batch, val_fraction, told):
    recipe = tiny_recipe(batch_size=batch, val_fraction=val_fraction)
    text = load_datasets(recipe, TrainingData(sets=(write_shapes(tmp_path, images),))).text
    assert told in text
    assert ("a batch of" in text) == bool(told)


def test_a_batch_is_that_of_all_processes(tmp_path, tiny_recipe, monkeypatch):
    ranks = Ranks()
    monkeypatch.setattr(ranks, "all_gather_object", lambda value: [value] * 2)
    monkeypatch.setattr(ranks, "broadcast_object", lambda value: value)
    ranks.world_size = 2
    data = TrainingData(sets=(write_shapes(tmp_path, 4),))
    for batch, told in ((2, False), (3, True)):
        text = load_datasets(tiny_recipe(batch_size=batch, val_fraction=0), data, ranks).text
        assert ("a batch of 6 is more than the 4 images" in text) == told


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (("train/im", "train/gt"), ("val/im", "val/gt"), "the 2 pairs in val are taken as those in train are"),
        (("images/train2017", "masks/train2017"), ("images/val2017", "masks/val2017"), "val2017 are taken as those in"),
        (("DIS-TR/im", "DIS-TR/gt"), ("DIS-TE1/im", "DIS-TE1/gt"), "in DIS-TE1 are taken as those in DIS-TR are"),
        (("train/im", "train/gt"), ("trees/im", "trees/gt"), ""),
        (("tests/im", "tests/gt"), ("more/im", "more/gt"), ""),
        (("train/im", "train/gt"), ("val/im", "val/other"), ""),
    ],
)
def test_folders_that_are_named_after_a_split_are_told(tmp_path, tiny_recipe, first, second, told):
    write_shapes(tmp_path / "data", 3, names=first)
    write_shapes(tmp_path / "data", 2, 3, names=second)
    text = load_datasets(tiny_recipe(), TrainingData(sets=(tmp_path / "data",))).text
    assert told in text
    assert ("are taken as" in text) == bool(told)


def test_folders_of_a_split_that_is_given_are_not_told(tmp_path, tiny_recipe):
    training, held_out = write_shapes(tmp_path / "train", 3), write_shapes(tmp_path / "val", 2, 3)
    assert "warning" not in load_datasets(tiny_recipe(), TrainingData(sets=(training,), validation=(held_out,))).text


@pytest.mark.parametrize(("images", "fraction", "told"), [(4, 0.25, 1), (4, 0.0, 0), (1, 0.5, 0), (12, 0.5, 6)])
def test_the_pairs_that_are_held_out_are_named(tmp_path, tiny_recipe, images, fraction, told):
    data = TrainingData(sets=(write_shapes(tmp_path / "set", images),))
    found = load_datasets(tiny_recipe(val_fraction=fraction), data)
    (line,) = (line for line in found.text.splitlines() if "held out for validation" in line and "warning" not in line)
    assert line.startswith(f"{images - told} pairs to train on, {told} held out for validation")
    assert all(pair.name in line for pair in found.validation.pairs[:5])
    assert ("and 1 more" in line) == (told == 6)
    assert line.endswith(")") == bool(told)


def test_images_of_formats_that_are_not_taken_are_told(tmp_path, tiny_recipe):
    folder = write_shapes(tmp_path, 3)
    first = min((folder / "im").iterdir())
    first.rename(first.with_suffix(".psd"))
    (folder / "im" / "notes.txt").write_text("no image")
    text = load_datasets(tiny_recipe(), TrainingData(sets=(folder,))).text
    assert "1 images are of formats that are not taken" in text and f"({first.stem}.psd)" in text
    assert f"1 masks have no image and are left out ({first.stem}.png)" in text
    (folder / "im" / f"{first.stem}.psd").rename(first)
    assert "not taken" not in load_datasets(tiny_recipe(), TrainingData(sets=(folder,))).text
