"""Trainings that go on with another number of processes."""

import json

import pytest
import torch

from birefnet_core.training import Recipe, TrainingData, train
from birefnet_core.training.data.dataset import BatchSampler
from birefnet_core.training.optim import lr_multiplier

from .conftest import read_state, write_shapes


@pytest.mark.parametrize("samples", [1, 7, 40, 41])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize(("was", "now"), [(1, 2), (2, 1), (3, 2), (2, 5), (2, 2)])
def test_no_image_of_an_epoch_is_left_out(samples, accumulate, was, now):
    recipe = Recipe(batch_size=2, accumulate=accumulate)
    before, after = (BatchSampler(samples=samples, recipe=recipe, world_size=count) for count in (was, now))
    for done in [*range(0, before.batches, accumulate), before.batches]:
        batch = after.next_batch(done, was)
        if done == before.batches:
            assert batch == after.batches
            continue
        assert batch % accumulate == 0 and batch < after.batches
        assert batch * now <= done * was < (batch + accumulate) * now
        assert now != was or batch == done


@pytest.mark.parametrize(("samples", "accumulate"), [(1, 1), (9, 2), (10, 3), (12, 4)])
def test_steps_are_numbered_one_after_the_other(samples, accumulate):
    sampler = BatchSampler(samples=samples, recipe=Recipe(batch_size=1, accumulate=accumulate))
    places = [(epoch, batch) for epoch in range(3) for batch in range(0, sampler.batches, accumulate)]
    assert [sampler.step(*place) for place in places] == list(range(3 * sampler.steps))
    assert sampler.step(0, sampler.batches) == sampler.steps


def test_the_schedule_of_the_rate_does_not_end_early(tiny_recipe, tmp_path, caplog):
    """Two processes had done half of the steps of one; by steps, one had been at its end with half of its epochs."""
    data = TrainingData(sets=(write_shapes(tmp_path / "set", 8),))
    recipe = tiny_recipe(val_fraction=0, epochs=2, schedule="cosine")

    class Stop(Exception):
        pass

    def stop(values):
        if values["step"] == 5:
            raise Stop

    with pytest.raises(Stop):
        train(recipe, data, tmp_path / "out", device="cpu", progress=stop)
    path, steps = tmp_path / "out/last.pt", []
    state = read_state(path.parent)
    assert (state["processes"], state["position"]["epoch"], state["position"]["batch"]) == (1, 1, 1)
    torch.save({**state, "processes": 2}, path)
    assert train(recipe, data, path.parent, device="cpu", resume=True, progress=steps.append).steps == 7
    assert "1 processes go on with what 2 began" in caplog.text
    assert [values["steps"] for values in steps] == [7] * 2  # four of the second epoch's eight images
    rows = [json.loads(line) for line in (path.parent / "metrics.jsonl").open()]
    rates = [row["lr"] for row in rows if row["kind"] == "step"][5:]
    assert rates == [recipe.lr * lr_multiplier(recipe, step, 4) for step in range(6, 8)]
