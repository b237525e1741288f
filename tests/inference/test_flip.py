"""The mean of the mask of the image and the mirrored mask of the mirrored image."""

import torch

import birefnet_core as bc


def test_flip_is_the_mean_of_both(filled):
    segment = bc.Segmenter(bc.model_from_state_dict(filled("smallest")), batch_size=2)
    images = torch.rand(2, 50, 70, 3)
    plain, mirrored = segment(images, 64), segment(images.flip(2), 64).flip(2)
    assert (plain - mirrored).abs().max() > 0.01
    torch.testing.assert_close(segment(images, 64, flip=True), (plain + mirrored) / 2, atol=1e-5, rtol=0)


def test_a_flipped_image_gives_the_flipped_mask(oracle, picture):
    images = picture(90, 120, 20).roll(25, 2)

    def one_sided(mask, call):
        return mask * torch.linspace(0, 1, mask.shape[-1])

    segment = bc.Segmenter(oracle(one_sided))
    torch.testing.assert_close(
        segment(images, 64, flip=True).flip(2), segment(images.flip(2), 64, flip=True), atol=1e-5, rtol=0
    )


def test_both_passes_count_as_progress(oracle):
    steps = []
    bc.Segmenter(oracle(), batch_size=2)(
        torch.rand(3, 20, 20, 3), 64, flip=True, progress=lambda *step: steps.append(step)
    )
    assert steps == [(0, 6), (2, 6), (4, 6), (5, 6), (6, 6)]


def test_too_little_memory_in_either_pass_is_overcome(oracle):
    images = torch.rand(4, 20, 20, 3)
    expected, steps = bc.Segmenter(oracle())(images, 64, flip=True), []
    network = oracle(full=(1, 2))
    masks = bc.Segmenter(network, batch_size=4)(images, 64, flip=True, progress=lambda *step: steps.append(step))
    torch.testing.assert_close(masks, expected, atol=1e-6, rtol=0)
    assert steps == sorted(steps) and steps[-1] == (8, 8)
