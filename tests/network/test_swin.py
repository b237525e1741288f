"""Parts of the Swin encoder against slow, plain definitions."""

import pytest
import torch

from birefnet_core.network.encoders import swin
from birefnet_core.ops import execution


def test_relative_position_index_points_at_the_offset_of_each_pair():
    window = 3
    index = swin.relative_position_index(window)
    for a in range(9):
        for b in range(9):
            dy, dx = a // 3 - b // 3, a % 3 - b % 3
            assert index[a, b] == (dy + window - 1) * (2 * window - 1) + dx + window - 1


def test_shifted_windows_attend_only_to_former_neighbours():
    """After rolling by 2, tokens of a 4-window belong together if no border lay between them before."""
    window, height, width = 4, 12, 8
    masks = swin.shifted_window_masks(width, window, torch.device("cpu"))
    assert masks.shape == (2, 2, 16, 16)
    wrapped = torch.zeros(height, width)
    wrapped[-2:] += 1  # rows that came from the top
    wrapped[:, -2:] += 2  # columns that came from the left
    windows = wrapped.view(3, 4, 2, 4).permute(0, 2, 1, 3).reshape(3, 2, 16)
    expected = windows[..., :, None] == windows[..., None, :]
    for row, mask in enumerate((masks[0], masks[0], masks[1])):
        assert torch.equal(mask, expected[row])


@pytest.mark.parametrize("size", [(3, 5), (8, 8), (9, 13)])
@pytest.mark.parametrize("shifted", [False, True])
def test_working_on_some_rows_at_a_time_changes_nothing(shifted, size):
    torch.manual_seed(0)
    block = swin.SwinBlock(8, 2, 4, shifted=shifted, drop_path=0.0)
    masks = swin.shifted_window_masks(size[1] + -size[1] % 4, 4, torch.device("cpu"))
    x = torch.randn(2, *size, 8)
    whole = block(x.clone(), masks)
    with torch.no_grad(), execution.use_chunk_sizes(map=1):  # a row at a time
        torch.testing.assert_close(block(x.clone(), masks), whole)


@pytest.mark.parametrize("size", [(3, 5), (8, 8), (9, 13)])
def test_merging_some_rows_at_a_time_changes_nothing(size):
    torch.manual_seed(0)
    merge, x = swin.PatchMerging(8), torch.randn(2, *size, 8)
    whole = merge(x)
    with torch.no_grad(), execution.use_chunk_sizes(map=1):
        torch.testing.assert_close(merge(x), whole)


def test_patch_merging_takes_columns_before_rows_and_pads_odd_maps():
    merge = swin.PatchMerging(1)
    merge.norm = torch.nn.Identity()
    merge.reduction = torch.nn.Identity()
    x = torch.arange(9.0).view(1, 3, 3, 1)
    assert merge(x)[0, 0, 0].tolist() == [0, 3, 1, 4]
    assert merge(x)[0, 1, 1].tolist() == [8, 0, 0, 0]


def test_padding_takes_part_in_unshifted_windows():
    """Padded tokens are zero after the norm, so they attend with the bias of keys and values alone."""
    torch.manual_seed(0)
    attention = swin.WindowAttention(8, 2, 4)
    torch.nn.init.normal_(attention.qkv.bias)
    block = swin.SwinBlock(8, 2, 4, shifted=False, drop_path=0.0)
    block.attn, block.norm1 = attention, torch.nn.Identity()
    torch.nn.init.zeros_(block.mlp.fc2.weight)
    torch.nn.init.zeros_(block.mlp.fc2.bias)
    x = torch.randn(1, 2, 2, 8)
    window = torch.zeros(1, 4, 4, 8)
    window[:, :2, :2] = x
    expected = attention(window.view(1, 1, 1, 16, 8), attention.bias(None)).view(1, 4, 4, 8)[:, :2, :2]
    torch.testing.assert_close(block(x, swin.shifted_window_masks(4, 4, x.device)), x + expected)
