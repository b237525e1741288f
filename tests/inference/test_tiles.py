"""Detail at native resolution where the whole-image pass is not sure, the global mask everywhere else."""

from itertools import pairwise

import pytest
import torch

import birefnet_core as bc
from birefnet_core.inference.tiles import tile_boxes

SEAM = 1 / 255


def near(mask, distance, unsure=0.02):
    """Pixels within a distance of those neither sure nor next to a pixel of the other kind, B, H, W."""
    x = mask[:, None]
    high = torch.nn.functional.max_pool2d(x, 3, 1, 1)
    low = -torch.nn.functional.max_pool2d(-x, 3, 1, 1)
    x = ((high > unsure) & (low < 1 - unsure)).float()
    for _ in ("along rows", "along columns"):
        sums = torch.nn.functional.pad(x, (distance + 1, distance)).cumsum(-1)
        x = (sums[..., 2 * distance + 1 :] > sums[..., : -2 * distance - 1]).float().mT
    return x[:, 0] > 0


@pytest.mark.parametrize(("height", "width"), [(3072, 4096), (1025, 1024), (1024, 5000), (1800, 1801)])
def test_tiles_cover_the_image_and_overlap_by_a_quarter(height, width):
    covered = torch.zeros(height, width, dtype=torch.int8)
    boxes = tile_boxes(height, width, (1024, 1024))
    for box in boxes:
        assert (box.height, box.width) == (1024, 1024)
        covered[box.top : box.bottom, box.left : box.right] += 1
    assert covered.min() == 1
    for starts in (sorted({box.top for box in boxes}), sorted({box.left for box in boxes})):
        assert all(b - a <= 768 for a, b in pairwise(starts))


WIRES = {1: 350, 2: 750, 3: 1150}  # width in pixels -> first row


def draw_wires(images):
    """Wires from the disc in the middle to the left border, and back."""
    wires = torch.zeros(images.shape[1:3], dtype=torch.bool)
    for width, row in WIRES.items():
        wires[row : row + width, : images.shape[2] // 2] = True
        diagonal = torch.arange(600)
        for i in range(width):
            wires[row + diagonal // 4, 1300 + diagonal + i] = True
    images[:, wires] = 0
    return wires


def test_wires_lost_by_the_global_pass_come_back(oracle, picture):
    images = picture(1536, 2048, 500)
    wires = draw_wires(images)
    truth = images[..., 0] < 0.5

    def only_what_is_clear(mask, call):
        return (mask > 0.9).float()  # in the shrunk image a wire is at most three quarters dark

    plain = bc.Segmenter(oracle(only_what_is_clear))(images, 512)
    network = oracle(only_what_is_clear)
    tiled = bc.Segmenter(network)(images, 512, tiled=True)
    lost = wires & (plain[0] < 0.5) & truth[0]
    assert lost.sum() > 0.5 * wires.sum()
    assert (tiled[0][lost] > 0.99).float().mean() > 0.999
    assert (tiled[~truth] < 0.01).float().mean() > 0.9999
    assert (tiled - truth.float()).abs().mean() < 0.05 * (plain - truth.float()).abs().mean()


def test_loose_wires_come_back_where_the_global_pass_has_a_trace_of_them(oracle):
    images = torch.ones(1, 1200, 1600, 3)
    images[:, 600, 100:1500] = 0
    plain = bc.Segmenter(oracle(contrast=12.0))(images, 512)
    tiled = bc.Segmenter(oracle(contrast=12.0))(images, 512, tiled=True)
    assert plain.max() < 0.3 and plain[0, 600, 110:1490].min() > 0.02
    assert tiled[0, 600, 110:1490].min() > 0.99


def test_seams_stay_below_one_grey_level(oracle):
    """Each tile is off by another amount; neighbouring pixels must not show it."""
    y, x = torch.arange(1100)[:, None], torch.arange(1500)
    truth = (torch.hypot(y - 550.0, x - 750.0) - 150).div(500).clamp(0, 1)  # sure inside, soft, sure outside
    images = truth[None, :, :, None].expand(-1, -1, -1, 3)
    generator = torch.Generator().manual_seed(0)

    def tiles_are_off(mask, call):
        offset = 0.0 if call == 0 else 0.2 * torch.rand((), generator=generator) - 0.1
        return (mask + offset).clamp(0, 1)

    network = oracle(tiles_are_off, contrast=6.0)
    plain = bc.Segmenter(oracle(contrast=6.0))(images, 512)[0]
    tiled = bc.Segmenter(network)(images, 512, tiled=True)[0]
    off = tiled - plain
    assert network.calls > 6 and off.abs().max() > 0.05
    assert off.diff(dim=0).abs().max() < SEAM
    assert off.diff(dim=1).abs().max() < SEAM


@pytest.mark.parametrize("shape", [(1200, 1600), (560, 660)])  # shrunk to a third, and hardly at all
def test_the_band_of_a_hard_edge_ends_without_a_seam(shape, oracle, picture):
    images, generator = picture(*shape, shape[0] // 4), torch.Generator().manual_seed(1)

    def tiles_are_off(mask, call):
        offset = 0.0 if call == 0 else 0.4 * torch.rand((), generator=generator) - 0.2
        return mask * (1 - abs(offset)) + max(offset, 0)

    honest = bc.Segmenter(oracle())(images, 512, tiled=True)[0]
    off = bc.Segmenter(oracle(tiles_are_off))(images, 512, tiled=True)[0] - honest
    flat = ~near(honest[None], 2)[0]
    assert off[flat].abs().max() > 0.03
    for dim in (0, 1):
        step, both = off.diff(dim=dim).abs(), flat.narrow(dim, 1, flat.shape[dim] - 1)
        assert step[both & flat.narrow(dim, 0, flat.shape[dim] - 1)].max() < SEAM


def test_tiles_that_agree_leave_no_seam_at_all(oracle):
    image = torch.rand(1, 1, 40, 60)
    images = torch.nn.functional.interpolate(image, size=(700, 900), mode="bicubic").clamp(0, 1)
    images = images[0, 0][None, :, :, None].expand(-1, -1, -1, 3)
    native = bc.Segmenter(oracle(contrast=6.0))(images, (896, 704))
    tiled = bc.Segmenter(oracle(contrast=6.0))(images, 512, tiled=True)
    assert (tiled - native).abs().max() < 0.05


@pytest.mark.parametrize("wrong", ["everything", "nothing", "inverted"])
def test_tiles_without_context_do_not_overrule_the_global_pass(wrong, oracle, picture):
    answers = {"everything": torch.ones_like, "nothing": torch.zeros_like, "inverted": lambda mask: 1 - mask}
    images = picture(1200, 1600, 300)
    plain = bc.Segmenter(oracle())(images, 512)
    tiled = bc.Segmenter(oracle(lambda mask, call: answers[wrong](mask) if call else mask))(images, 512, tiled=True)
    far = ~near(plain, 128)
    assert far.float().mean() > 0.5
    assert torch.equal(tiled[far], plain[far])
    assert ((tiled > 0.5) != (plain > 0.5)).float().mean() < 1e-3


def test_a_piece_of_background_that_a_tile_takes_for_an_object_leaves_no_trace(oracle, picture):
    images = picture(1200, 1600, 300)

    def a_square_too_many(mask, call):
        mask = mask.clone()
        mask[..., 100:300, 100:420] = torch.where(torch.tensor(call > 0), 1.0, mask[..., 100:300, 100:420])
        return mask

    tiled = bc.Segmenter(oracle(a_square_too_many))(images, 512, tiled=True)
    outside = (images[..., 0] == 1) & ~near((images[..., 0] < 0.5).float(), 8)
    assert tiled[outside].max() < 0.05


def test_away_from_the_band_the_global_mask_stands_bit_for_bit(oracle, picture):
    images = picture(1200, 1600, 300) * (0.9 + 0.1 * torch.rand(1, 1200, 1600, 1))
    plain = bc.Segmenter(oracle())(images, 512)
    tiled = bc.Segmenter(oracle())(images, 512, tiled=True)
    far = ~near(plain, 128)
    assert torch.equal(tiled[far], plain[far])
    assert not torch.equal(tiled, plain)
    assert tiled.min() >= 0 and tiled.max() <= 1


def test_tiles_with_nothing_unsure_are_skipped(oracle, picture):
    images, network, steps = picture(1200, 1600, 60).roll((-500, -700), (1, 2)), oracle(), []
    bc.Segmenter(network)(images, 512, tiled=True, progress=lambda *step: steps.append(step))
    assert network.inputs == [(512, 512)] * 2
    assert steps == [(0, 13), (1, 13), (13, 13)]


def test_an_image_without_anything_unsure_takes_one_pass(oracle):
    network = oracle()
    images = torch.ones(1, 700, 900, 3)
    assert torch.equal(bc.Segmenter(network)(images, 512, tiled=True), bc.Segmenter(oracle())(images, 512))
    assert network.calls == 1


@pytest.mark.parametrize(("shape", "size"), [((500, 400), 512), ((512, 512), 512), ((640, 800), "native")])
def test_images_that_fit_the_network_are_not_tiled(shape, size, oracle, picture):
    images, network = picture(*shape, 100), oracle()
    assert torch.equal(bc.Segmenter(network)(images, size, tiled=True), bc.Segmenter(oracle())(images, size))
    assert network.calls == 1


@pytest.mark.parametrize("shape", [(1, 900), (900, 1), (30, 700), (513, 100), (300, 2000)])
def test_narrow_images_are_tiled_along_their_length(shape, oracle):
    images = torch.rand(1, *shape, 1)
    masks = bc.Segmenter(oracle())(images, 512, tiled=True)
    assert masks.shape == (1, *shape)
    assert masks.isfinite().all() and masks.min() >= 0 and masks.max() <= 1


@pytest.mark.parametrize("batch_size", [2, 3])
def test_batches_equal_single_images(batch_size, oracle, picture):
    images = picture(500, 700, 150, batch=3) * torch.rand(3, 1, 1, 3)
    images[1] = images[1].roll(90, 0)
    together = bc.Segmenter(oracle(), batch_size=batch_size)(images, 256, tiled=True)
    alone = torch.cat([bc.Segmenter(oracle())(image[None], 256, tiled=True) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_no_more_tiles_than_the_batch_size_run_at_once(oracle, picture):
    seen = []
    network = oracle(lambda mask, call: seen.append(len(mask)) or mask)
    bc.Segmenter(network, batch_size=3)(picture(500, 700, 150), 256, tiled=True)
    assert max(seen) == 3


@pytest.mark.parametrize("flip", [False, True])
def test_progress_is_monotone_and_complete(flip, oracle, picture):
    images, network, steps = picture(500, 700, 150, batch=2), oracle(), []
    region = [(0, 0, 700, 500), (300, 200, 200, 200)]  # the second fits the network
    bc.Segmenter(network, batch_size=2)(
        images, 256, region=region, margin=0, tiled=True, flip=flip, progress=lambda *step: steps.append(step)
    )
    total = (1 + len(tile_boxes(500, 700, (256, 256))) + 1) * (1 + flip)
    assert {step[1] for step in steps} == {total}
    assert steps == sorted(steps)
    assert steps[0][0] == 0 and steps[-1][0] == total
    assert network.inputs[0] == (256, 256) and len(network.inputs) <= total


def test_a_run_can_be_ended_between_tiles(oracle, picture):
    network = oracle()

    def cancel(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bc.Segmenter(network)(picture(500, 700, 150), 256, tiled=True, progress=cancel)
    assert network.calls == 3


def test_too_little_memory_for_tiles_halves_the_batch(oracle, picture):
    images = picture(500, 700, 150)
    expected = bc.Segmenter(oracle())(images, 256, tiled=True)
    steps = []
    segment = bc.Segmenter(oracle(full=(1, 2)), batch_size=4)
    masks = segment(images, 256, tiled=True, progress=lambda *step: steps.append(step))
    torch.testing.assert_close(masks, expected, atol=1e-6, rtol=0)
    assert steps == sorted(steps)
    with pytest.raises(bc.MemoryLimitError, match="smaller size"):
        bc.Segmenter(oracle(full=range(1, 99)))(images, 256, tiled=True)


def test_a_region_can_be_tiled(oracle, picture):
    images = picture(700, 900, 150)
    images[:, 350, :] = 0
    masks = bc.Segmenter(oracle(threshold=0.05))(images, 256, region=(200, 150, 500, 400), margin=0, tiled=True)
    crop = bc.Segmenter(oracle(threshold=0.05))(images[:, 150:550, 200:700], 256, tiled=True)
    assert torch.equal(masks[:, 150:550, 200:700], crop)
    assert masks[0, 350, 205:695].min() > 0.5
    assert masks[0, 350, :200].max() == 0


def test_a_real_network_can_be_tiled(filled):
    segment = bc.Segmenter(bc.model_from_state_dict(filled("smallest")))
    images = torch.rand(1, 100, 130, 3)
    masks = segment(images, 64, tiled=True)
    assert masks.shape == (1, 100, 130) and masks.dtype == torch.float32
    assert masks.min() >= 0 and masks.max() <= 1
    assert not masks.is_inference()
