"""Convolutions of maps that are never concatenated, and of some rows."""

import pytest
import torch
from torch import nn

from birefnet_core.ops import execution
from birefnet_core.ops.split_conv import SplitConv2d, conv2d_rows


@pytest.mark.parametrize("rows", [(0, 11), (0, 3), (1, 2), (4, 9), (8, 11), (0, 1), (10, 11)])
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_rows_are_those_of_the_whole_convolution(rows, size, memory_format):
    conv = nn.Conv2d(5, 4, size, padding=size // 2)
    x = torch.randn(2, 5, 11, 6).contiguous(memory_format=memory_format)
    with torch.no_grad():
        found = conv2d_rows(x, conv.weight, conv.bias, slice(*rows))
        torch.testing.assert_close(found, conv(x)[:, :, slice(*rows)])


@pytest.mark.parametrize("grad", [True, False])
def test_split_convolutions_add_up(grad):
    conv, maps = SplitConv2d(9, 4, 3, padding=1), [torch.randn(2, c, 12, 6) for c in (2, 3, 4)]
    expected = nn.Conv2d.forward(conv, torch.cat(maps, dim=1))
    before = [one.clone() for one in maps]
    with torch.set_grad_enabled(grad), execution.use_chunk_sizes(map=100):
        torch.testing.assert_close(conv.eval()(iter(maps)), expected)
    assert all(map(torch.equal, maps, before))


def test_gradients_are_those_of_the_concatenated_maps():
    conv = SplitConv2d(5, 4, 3, padding=1).double()
    maps = [torch.randn(1, c, 4, 3, dtype=torch.float64, requires_grad=True) for c in (2, 3)]
    assert torch.autograd.gradcheck(lambda *tensors: conv(tensors), tuple(maps))
    conv(maps).sum().backward()
    found = conv.weight.grad.clone()
    conv.zero_grad()
    nn.Conv2d.forward(conv, torch.cat(maps, dim=1)).sum().backward()
    torch.testing.assert_close(found, conv.weight.grad)


@pytest.mark.parametrize("channels", [(), (5,), (5, 3)])
def test_other_channels_are_refused(channels):
    conv = SplitConv2d(9, 4, 3, padding=1)
    with pytest.raises(ValueError, match=f"9 channels in all expected, found {sum(channels)}"):
        conv(torch.randn(1, c, 4, 4) for c in channels)


@torch.no_grad()
def test_in_inference_a_map_is_freed_before_the_next_is_made():
    alive = set()

    def maps():
        for i in range(3):
            assert not alive
            x = torch.randn(1, 2, 4, 4)
            alive.add(i)
            torch.utils.weak.weakref.finalize(x, alive.discard, i)
            yield x
            del x

    SplitConv2d(6, 4, 3, padding=1).eval()(maps())
