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


@pytest.mark.parametrize("size", [(3, 5), (8, 8), (9, 13)])
@pytest.mark.parametrize("shifted", [False, True])
def test_working_on_some_rows_at_a_time_changes_nothing(shifted, size):
    torch.manual_seed(0)
    block = swin.SwinBlock(8, 2, 4, shifted=shifted, drop_path=0.0)
    x = torch.randn(2, *size, 8)
    whole = block(x.clone())
    with torch.no_grad(), execution.use_chunk_sizes(attention=1, map=1):  # a row at a time
        torch.testing.assert_close(block(x.clone()), whole)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("height", [13, 15, 16])
def test_strips_of_several_rows_of_windows_cover_the_map(height, rows):
    """The last strip is made of the first and the last rows of the map, of which there may be none."""
    torch.manual_seed(0)
    block = swin.SwinBlock(8, 2, 4, shifted=True, drop_path=0.0)
    x = torch.randn(1, height, 6, 8)
    whole = block(x.clone())
    with torch.no_grad(), execution.use_chunk_sizes(attention=rows * x[:, 0].numel() * 3 * 4):
        torch.testing.assert_close(block(x.clone()), whole)


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
    expected = attention(window)[:, :2, :2]
    torch.testing.assert_close(block(x), x + expected)


@pytest.mark.parametrize("window", [4, 7])
def test_fused_blocks_give_the_same(window):
    torch.manual_seed(0)
    block = swin.SwinBlock(8, 2, window, shifted=True, drop_path=0.0).eval()
    x = torch.randn(1, 9, 10, 8)
    names = list(block.state_dict())
    with torch.no_grad():
        expected = block(x.clone())
        block.attn.fuse()
        assert torch.equal(block(x.clone()), expected)
    assert list(block.state_dict()) == names


def small_swin(**options):
    torch.manual_seed(0)
    return swin.SwinTransformer(
        swin.SwinConfig(embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 2), window_size=4, **options)
    )


def test_patches_as_a_matrix_product_equal_the_convolution(monkeypatch):
    embed, x = swin.PatchEmbed(8), torch.randn(2, 3, 10, 13).contiguous(memory_format=torch.channels_last)
    expected = embed(x)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    torch.testing.assert_close(embed(x), expected)


def test_checkpointed_blocks_have_the_same_gradients():
    model, x = small_swin(drop_path_rate=0.0), torch.randn(1, 3, 40, 56)
    gradients = []
    for enable in (False, True):
        model.zero_grad()
        for stage in model.stages:
            stage.grad_checkpointing = enable
        sum(one.square().sum() for one in model(x)).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)
