"""Lateral connections in the prepared form: the same sums, never made whole."""

import pytest
import torch
from torch import nn

from birefnet_core.inference import prepared_lateral
from birefnet_core.inference.prepared_lateral import Connection, PreparedEntry, PreparedLateral
from birefnet_core.network.layers import resize
from birefnet_core.ops import execution

# Sides of a level, of the half-size image's map and of the feature before: where images are odd, the two differ.
SIZES = [((8, 12), (4, 6), (4, 6)), ((9, 7), (5, 4), (4, 3))]


@pytest.fixture
def maps():
    """A level as one map or two, the feature of the stage before, and the published sum of both."""

    def make(count, sizes):
        torch.manual_seed(0)
        lateral = nn.Conv2d(6 * count, 6 * count, 1)
        level = [torch.randn(2, 6, *size) for size in sizes[:count]]
        feature = torch.randn(2, 6 * count, *sizes[2])
        joined = torch.cat([resize(one, sizes[0]) for one in level], dim=1)
        return lateral, level, feature, lateral(joined) + resize(feature, sizes[0])

    return make


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("count", [1, 2])
@torch.no_grad()
def test_lateral_gives_the_sum(maps, count, sizes):
    lateral, level, feature, expected = maps(count, sizes)
    before = feature.clone()
    torch.testing.assert_close(PreparedLateral(Connection(lateral, count))(level, feature, sizes[0]), expected)
    assert torch.equal(feature, before)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_entry_gives_the_convolution_of_the_sum_up_to_the_border(maps, count, sizes, bias, monkeypatch):
    monkeypatch.setattr(prepared_lateral, "LEAST_CHANNELS", 5)  # the last piece is smaller than the others
    lateral, level, feature, expected = maps(count, sizes)
    conv = nn.Conv2d(6 * count, 4, 3, padding=1, bias=bias)
    with execution.use_chunk_sizes(upsampled=1):
        found = PreparedEntry(Connection(lateral, count), conv)(level, feature, sizes[0])
    torch.testing.assert_close(found, conv(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("like", ["the feature", "the stage", "neither"])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_a_level_that_is_coarser_than_its_stage_is_upsampled(like, bias):
    torch.manual_seed(0)
    lateral, conv = nn.Conv2d(5, 6, 1), nn.Conv2d(6, 4, 3, padding=1, bias=bias)
    size, feature = (8, 12), torch.randn(2, 6, 4, 6)
    level = torch.randn(2, 5, *{"the feature": (4, 6), "the stage": size, "neither": (2, 3)}[like])
    before = feature.clone()
    expected = lateral(resize(level, size)) + resize(feature, size)
    connection = Connection(lateral, 1, coarse=True)
    torch.testing.assert_close(PreparedLateral(connection)([level], feature, size), expected)
    with execution.use_chunk_sizes(map=1):  # a row at a time
        found = PreparedEntry(connection, conv)([level], feature, size)
    torch.testing.assert_close(found, conv(expected), atol=1e-5, rtol=1e-5)
    assert torch.equal(feature, before)
