"""Windows put together from doublings equal those summed directly."""

import pytest
import torch

from birefnet_core.masks.windows import box_mean, frame_groups, strips, window_max, window_sum


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8, 11, 20])
@pytest.mark.parametrize("dim", [-1, -2])
def test_windows_equal_unfolding(size, dim, generator):
    x = torch.rand(2, 23, 20, generator=generator)
    windows = x.unfold(dim, size, 1)
    torch.testing.assert_close(window_sum(x, size, dim), windows.sum(-1))
    torch.testing.assert_close(window_max(x, size, dim), windows.amax(-1))


@pytest.mark.parametrize("radius", [0, 1, 3, 50])
def test_box_mean_counts_only_pixels_inside(radius, generator):
    x = torch.rand(6, 9, generator=generator)
    expected = torch.empty_like(x)
    for i in range(6):
        for j in range(9):
            expected[i, j] = x[max(i - radius, 0) : i + radius + 1, max(j - radius, 0) : j + radius + 1].mean()
    torch.testing.assert_close(box_mean(x, radius), expected)


def test_small_sums_after_large_ones_keep_their_precision():
    x = torch.cat([torch.ones(1000), torch.full((50,), 1e-6)])
    torch.testing.assert_close(window_sum(x, 10, -1)[-1].item(), 1e-5, rtol=1e-5, atol=0)


@pytest.mark.parametrize("height", [1, 2, 7, 1000, 1001])
def test_strips_cover_every_row_once_and_start_even(height):
    bands = strips(height, 1 << 16, torch.device("cpu"))
    assert [row for top, bottom in bands for row in range(top, bottom)] == list(range(height))
    assert all(top % 2 == 0 for top, _ in bands)


def test_frame_groups_cover_every_frame_once():
    groups = frame_groups(7, 1 << 21)
    assert [frame for group in groups for frame in range(7)[group]] == list(range(7))
    assert len(groups) == 4
