"""The guided filter against its definition, solved window by window."""

import pytest
import torch

from birefnet_core.masks import windows
from birefnet_core.masks.guided_filter import guided_filter


def by_definition(mask, image, radius, epsilon):
    """Ridge regression in every window (He et al., Eq. 14-16), in float64."""
    mask, image = mask.double(), image.double()
    height, width = mask.shape
    a, b = torch.zeros(height, width, 3, dtype=torch.float64), torch.zeros(height, width, dtype=torch.float64)
    spans = [[slice(max(i - radius, 0), i + radius + 1) for i in range(n)] for n in (height, width)]
    for i, rows in enumerate(spans[0]):
        for j, columns in enumerate(spans[1]):
            colours, values = image[rows, columns].reshape(-1, 3), mask[rows, columns].reshape(-1)
            centred = colours - colours.mean(0)
            covariance = centred.T @ centred / len(values) + epsilon * torch.eye(3, dtype=torch.float64)
            a[i, j] = torch.linalg.solve(covariance, (centred * (values - values.mean())[:, None]).mean(0))
            b[i, j] = values.mean() - a[i, j] @ colours.mean(0)
    out = torch.empty_like(mask)
    for i, rows in enumerate(spans[0]):
        for j, columns in enumerate(spans[1]):
            out[i, j] = a[rows, columns].reshape(-1, 3).mean(0) @ image[i, j] + b[rows, columns].mean()
    return out.clamp(0, 1).float()


@pytest.mark.parametrize("radius", [1, 3, 20])
@pytest.mark.parametrize("epsilon", [1e-1, 1e-4])
def test_filter_equals_its_definition(radius, epsilon, generator):
    image, mask = torch.rand(1, 13, 16, 3, generator=generator), torch.rand(1, 13, 16, generator=generator)
    expected = by_definition(mask[0], image[0], radius, epsilon)
    torch.testing.assert_close(guided_filter(mask, image, radius, epsilon)[0], expected, rtol=0, atol=1e-4)


def test_grey_guides_stay_stable(generator):
    """Three equal channels make the covariance singular but for epsilon."""
    grey = torch.rand(1, 20, 20, 1, generator=generator).expand(-1, -1, -1, 3)
    mask = (grey[..., 0] > 0.5).float()
    expected = by_definition(mask[0], grey[0], 4, 1e-6)
    torch.testing.assert_close(guided_filter(mask, grey, 4, 1e-6)[0], expected, rtol=0, atol=1e-3)


def test_a_mask_that_is_linear_in_colour_comes_back(generator):
    image = torch.rand(2, 24, 24, 3, generator=generator)
    mask = image @ torch.tensor([0.2, 0.5, 0.3])
    torch.testing.assert_close(guided_filter(mask, image, 5, 1e-6), mask, rtol=0, atol=1e-3)


def test_a_blurred_edge_snaps_to_the_image():
    image = torch.zeros(1, 40, 40, 3)
    image[:, :, 20:] = torch.tensor([0.9, 0.4, 0.2])
    blurred = ((torch.arange(40) - 14) / 12.0).clamp(0, 1).expand(1, 40, 40)
    sharp = guided_filter(blurred, image, 8, 1e-4)
    before, after = ((m[..., 20] - m[..., 19]).mean() for m in (blurred, sharp))
    assert before < 0.1
    assert after > 0.5


def test_on_a_flat_image_it_is_two_box_means(generator):
    mask = torch.rand(1, 12, 9, generator=generator)
    expected = windows.box_mean(windows.box_mean(mask, 2), 2)
    torch.testing.assert_close(guided_filter(mask, torch.full((1, 12, 9, 3), 0.3), 2, 1e-4), expected)


def test_bands_do_not_show(monkeypatch, generator):
    image, mask = torch.rand(2, 90, 11, 3, generator=generator), torch.rand(2, 90, 11, generator=generator)
    whole = guided_filter(mask, image, 3, 1e-3)
    monkeypatch.setattr(windows, "CPU_PIECE", 1)
    torch.testing.assert_close(guided_filter(mask, image, 3, 1e-3), whole, rtol=0, atol=1e-6)
