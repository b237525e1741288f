"""Augmentation of image and mask together, the same in every process."""

import dataclasses

import pytest
import torch

from birefnet_core import ConfigError
from birefnet_core.image_ops import resize
from birefnet_core.training.data import Pair, find_set
from birefnet_core.training.data import augment as augment_module
from birefnet_core.training.data.augment import Augmentation, SampleRng, augment, cover, replace_background
from birefnet_core.training.data.dataset import BatchSampler, SegmentationDataset, collate, load_batches

ALL = Augmentation(flip=0.5, crop=0.7, rotate=0.7, crop_least=0.5)


@pytest.mark.parametrize("seed", range(8))
def test_geometry_moves_image_and_mask_together(seed):
    mask = torch.zeros(1, 40, 56)
    mask[:, 8:20, 30:50] = 1
    pixels = mask.expand(4, -1, -1).contiguous()  # an image that is its mask stays its mask
    changed = augment(pixels, (32, 48), ALL, SampleRng(seed))
    assert changed.shape == (4, 32, 48)
    assert torch.equal(changed[0], changed[3])
    assert changed[3].max() > 0.5


def test_colours_leave_the_mask_alone():
    options = Augmentation(flip=0, colour=1, pepper=1, pepper_share=0.1)
    pixels = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(0))
    changed = augment(pixels, (16, 16), options, SampleRng(1))
    assert torch.equal(changed[3], pixels[3])
    assert not torch.equal(changed[:3], pixels[:3])
    assert 0 <= changed.min() <= changed.max() <= 1


def test_same_seed_gives_same_sample_and_other_seed_another():
    pixels = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment(pixels, (32, 32), ALL, SampleRng(5)), augment(pixels, (32, 32), ALL, SampleRng(5)))
    assert not torch.equal(augment(pixels, (32, 32), ALL, SampleRng(5)), augment(pixels, (32, 32), ALL, SampleRng(6)))


def test_background_is_replaced_outside_the_mask_only():
    pixels, background = torch.full((4, 4, 4), 0.25), torch.ones(3, 4, 4)
    pixels[3] = torch.eye(4)
    composed = replace_background(pixels, background)
    assert torch.equal(composed[0], 0.25 * torch.eye(4) + (1 - torch.eye(4)))
    assert cover(torch.rand(3, 5, 9), (16, 16), SampleRng(0)).shape == (3, 16, 16)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Augmentation)])
def test_options_out_of_range_are_refused(field):
    with pytest.raises(ConfigError, match=field):
        Augmentation(**{field: -0.1})


def test_cutouts_are_put_on_backgrounds(tmp_path):
    from PIL import Image

    image = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (8, 8, 24, 24))
    image.save(tmp_path / "a.png")
    Image.new("RGB", (50, 40), (0, 255, 0)).save(tmp_path / "b.jpg", quality=100)
    pair = Pair(name="a", image=tmp_path / "a.png", mask=None)
    pixels = SegmentationDataset([pair], Augmentation(), [tmp_path / "b.jpg"]).read(0, SampleRng(0))
    assert pixels[1, 0, 0] > 0.95  # green where the cut-out is clear
    assert pixels[2, 16, 16] == 1  # blue where it is not
    assert pixels[3].mean() == 0.25


def test_backgrounds_of_other_images_change_outside_the_mask(shapes, tmp_path):
    from PIL import Image

    Image.new("RGB", (50, 40), (0, 255, 0)).save(tmp_path / "green.png")
    pair = find_set(shapes).pairs[0]
    before = SegmentationDataset([pair], Augmentation()).read(0, SampleRng(0))
    outside = before[3] == 0
    for options in (Augmentation(plain_background=1), Augmentation(composite_background=1)):
        after = SegmentationDataset([pair], options, [tmp_path / "green.png"]).read(0, SampleRng(0))
        assert torch.equal(after[:, ~outside], before[:, ~outside])
        ground = after[:3, outside]
        assert torch.allclose(ground, ground[:, :1].expand_as(ground))  # one colour
        if options.composite_background:
            assert ground[:, 0].tolist() == pytest.approx([0, 1, 0])


def test_workers_and_processes_do_not_change_the_samples(shapes, tiny_recipe):
    recipe = tiny_recipe(augment=dataclasses.replace(ALL, colour=0.5))
    dataset = SegmentationDataset(find_set(shapes).pairs, recipe.augment)
    cpu = torch.device("cpu")

    def all_batches(workers: int, rank: int = 0, world_size: int = 1, first: int = 0, **changes):
        changed = recipe.replace(workers=workers, **changes)
        sampler = BatchSampler(samples=6, recipe=changed, rank=rank, world_size=world_size)
        return list(load_batches(dataset, sampler, 1, first, cpu))

    alone = all_batches(0)
    for one, other in zip(alone, all_batches(2), strict=True):
        assert torch.equal(one.images, other.images)
    assert torch.equal(alone[2].images, all_batches(0, first=2)[0].images)
    halves = [all_batches(0, rank, 2, batch_size=1) for rank in (0, 1)]
    for i, one in enumerate(alone):
        assert torch.equal(one.images, torch.cat([half[i].images for half in halves]))
        assert one.names == halves[0][i].names + halves[1][i].names


def test_last_batch_is_filled_up_and_sizes_vary_by_batch(tiny_recipe):
    sampler = BatchSampler(samples=5, recipe=tiny_recipe(dynamic=(64, 128), accumulate=2))
    assert (sampler.batches, sampler.steps) == (3, 2)
    order = sampler.order(0)
    assert sorted(order[:5]) == list(range(5))
    assert order[5] == order[0]
    assert sampler.order(0) != sampler.order(1)
    sizes = {sampler.size(epoch, batch) for epoch in range(10) for batch in range(3)}
    assert sizes == {(64, 64), (96, 96), (128, 128)}
    assert all(len({sample.size for sample in batch}) == 1 for batch in sampler.epoch(0))


def test_sizes_grow_over_equal_parts_of_the_training(tiny_recipe):
    recipe = tiny_recipe(size=(128, 96), growth=(64, 64, 96), epochs=4)
    sampler = BatchSampler(samples=6, recipe=recipe)  # three batches an epoch
    sizes = [sampler.size(epoch, batch) for epoch in range(4) for batch in range(3)]
    assert sizes == 6 * [(64, 64)] + 3 * [(96, 96)] + 3 * [(96, 128)]
    within = BatchSampler(samples=6, recipe=recipe.replace(epochs=1, growth=[64]))
    assert [within.size(0, batch) for batch in range(3)] == [(64, 64), (64, 64), (96, 128)]


def test_processes_agree_about_growing_sizes_and_resuming_finds_them_again(tiny_recipe):
    recipe = tiny_recipe(size=(128, 128), growth=(64, 96), batch_size=1, epochs=3)
    samplers = [BatchSampler(samples=7, recipe=recipe, rank=rank, world_size=2) for rank in (0, 1)]
    for epoch in range(3):
        first, second = ([batch[0].size for batch in sampler.epoch(epoch)] for sampler in samplers)
        assert first == second
        assert [batch[0].size for batch in samplers[0].epoch(epoch, first=2)] == first[2:]


def test_batches_are_normalised_as_for_inference():
    from birefnet_core.inference.transforms import to_network_input

    pixels = torch.rand(4, 32, 32)
    batch = collate([(pixels, -1, "a")])
    expected = to_network_input(pixels[:3].permute(1, 2, 0)[None], 32, 32)
    assert torch.allclose(batch.images, expected, atol=1e-6)
    assert torch.equal(batch.masks[0], pixels[3:])


@pytest.mark.parametrize(("size", "found"), [((2000, 8), (4, 6000)), ((8, 2000), (6000, 4)), ((1500, 1500), (2, 9000))])
def test_a_long_background_is_cut_before_it_is_scaled(monkeypatch, size, found):
    elements = []

    def resized(x, size, **options):
        elements.append(size[0] * size[1])
        return resize(x, size, **options)

    monkeypatch.setattr(augment_module, "resize", resized)
    background = torch.rand(3, *found)
    result = cover(background, size, SampleRng(0))
    assert result.shape == (3, *size)
    assert max(elements) <= max(5 * size[0] * size[1], 10**6)  # it was 6 * 10**9
    assert background.min() <= result.min() and result.max() <= background.max()
