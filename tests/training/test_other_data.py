"""What a training is resumed with: the same data, however it is written, and a last.pt that can be read."""

import errno
import functools
import os

import pytest
import torch

import birefnet_core as bc
from birefnet_core.checkpoints import pickled
from birefnet_core.training import TrainingData, load_datasets
from birefnet_core.training.data.folders import find_sets, find_training, fingerprint
from birefnet_core.training.run_folder import RunFolder

from .conftest import write_shapes


@pytest.fixture
def resume(tmp_path, tiny_recipe):
    """Resumes a training that was begun with the first data with the second ones, as far as reading its state."""
    recipe = tiny_recipe(val_fraction=0)
    find = functools.cache(lambda data: load_datasets(recipe, data))

    def load(begun: str | TrainingData, data: TrainingData):
        stored = begun if isinstance(begun, str) else find(begun).fingerprint
        torch.save({"format": 1, "recipe": recipe.to_flat(), "data": stored}, tmp_path / "last.pt")
        found = find(data)
        return RunFolder(tmp_path).load(recipe, found.fingerprint, found.fingerprint_0_1)

    return load


def test_what_was_trained_on_is_not_validated_on_after_resuming(tmp_path, resume):
    """And the reverse, though the names in all are the same."""
    a, b, c = (write_shapes(tmp_path / name, 2) for name in "abc")
    kinds = [TrainingData(sets=(a, b, c)), TrainingData(sets=(a, b), validation=(c,)),
             TrainingData(sets=(a,), validation=(b, c))]  # fmt: skip
    for begun in kinds:
        for data in kinds:
            if data is begun:
                assert resume(begun, data)
            else:
                with pytest.raises(bc.ConfigError, match=r"other data, by the names .* or by what is validated on"):
                    resume(begun, data)


def test_a_training_of_version_0_1_goes_on_with_its_data(tmp_path, resume):
    data = TrainingData(sets=(write_shapes(tmp_path / "a", 2),), validation=(write_shapes(tmp_path / "b", 2),))
    was = fingerprint((*find_training(data).pairs, *find_sets(data.validation).pairs))
    assert resume(was, data)
    with pytest.raises(bc.ConfigError, match="other data"):
        resume(was, TrainingData(sets=data.validation, validation=data.sets))


def test_folders_are_the_same_by_any_path(tmp_path, resume, monkeypatch):
    whole, moved = write_shapes(tmp_path / "set", 3), write_shapes(tmp_path / "elsewhere/set", 3)
    monkeypatch.chdir(whole)
    begun = TrainingData(sets=(whole,))
    for path in (".", "..", "../set", "./", "../elsewhere/set", "../elsewhere/set/im/..", moved):
        if path == "..":
            monkeypatch.chdir(whole / "im")
        assert resume(begun, TrainingData(sets=(path,))), path
        monkeypatch.chdir(whole)
    with pytest.raises(bc.ConfigError, match="other data"):
        resume(begun, TrainingData(sets=(write_shapes(tmp_path / "other", 3),)))


@pytest.mark.parametrize("masks", ["../gt", "gt"])
def test_folders_of_images_have_names_too(tmp_path, monkeypatch, masks):
    folder = write_shapes(tmp_path / "set", 2)
    monkeypatch.chdir(folder / ("im" if masks == "../gt" else ""))
    found = find_training(TrainingData(images=(".",) if masks == "../gt" else ("im",), masks=(masks,)))
    assert [pair.name for pair in found.pairs] == ["im/shape00", "im/shape01"]


@pytest.mark.parametrize("kind", ["folder", errno.EACCES, errno.ESTALE, errno.EIO])
def test_a_state_that_the_system_cannot_read_is_not_called_damaged(tmp_path, tiny_recipe, monkeypatch, kind):
    def fail(*_):
        raise OSError(kind, os.strerror(kind))

    if kind == "folder":
        (tmp_path / "last.pt").mkdir()
    else:
        (tmp_path / "last.pt").write_bytes(b"PK\x03\x04")
        monkeypatch.setattr(pickled, "open", fail, raising=False)
    reason = ".+" if kind == "folder" else os.strerror(kind)
    with pytest.raises(bc.CheckpointError, match=rf"last\.pt: cannot be read \({reason}\)\. .*--resume") as caught:
        RunFolder(tmp_path).load(tiny_recipe(), "data")
    assert "corrupted" not in str(caught.value)
