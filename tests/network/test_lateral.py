"""Lateral connections: the published sum, from maps that stay in their own size."""

import pytest
import torch
from torch import nn

from birefnet_core.network.layers import resize
from birefnet_core.network.localization import ContextFeatureFusion, PyramidConv2d, PyramidLevel
from birefnet_core.network.reconstruction import LateralConnection
from birefnet_core.ops import execution

# Sides of a level, of the half-size image's map and of the feature before: where images are odd, the two differ.
SIZES = [((8, 12), (4, 6), (4, 6)), ((9, 7), (5, 4), (4, 3))]


def joined(maps):
    return torch.cat(list(maps), dim=1)


@pytest.fixture
def maps():
    """A lateral connection, a level as one map or two, the feature of the stage before, and the published sum."""

    def make(count, sizes, channels=40):
        torch.manual_seed(0)
        lateral = LateralConnection(6 * count, channels)
        level = [torch.randn(2, 6, *size) for size in sizes[:count]]
        feature = torch.randn(2, channels, *sizes[2])
        concatenated = torch.cat([resize(one, sizes[0]) for one in level], dim=1)
        expected = nn.Conv2d.forward(lateral, concatenated) + resize(feature, sizes[0])
        return lateral, PyramidLevel(*level), feature, expected

    return make


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("count", [1, 2])
def test_lateral_gives_the_sum(maps, count, sizes, training):
    lateral, level, feature, expected = maps(count, sizes)
    before = feature.clone()
    with torch.set_grad_enabled(training):
        found = joined(lateral.train(training)(level, feature, sizes[0]))
    torch.testing.assert_close(found, expected)
    assert found.requires_grad == training
    assert torch.equal(feature, before)


@torch.no_grad()
def test_in_inference_the_sum_is_made_in_chunks_of_channels(maps):
    lateral, level, feature, expected = maps(2, SIZES[0])
    with execution.use_chunk_sizes(upsampled=1):
        chunks = list(lateral.eval()(level, feature, SIZES[0][0]))
    assert [len(chunk[0]) for chunk in chunks] == [16, 16, 8]
    torch.testing.assert_close(joined(chunks), expected)
    with execution.use_chunk_sizes(upsampled=1), torch.enable_grad():
        (whole,) = lateral.train()(level, feature, SIZES[0][0])
    torch.testing.assert_close(whole, expected)


@pytest.mark.parametrize("like", ["the feature", "the stage", "neither"])
@torch.no_grad()
def test_a_level_that_is_coarser_than_its_stage_is_upsampled(like):
    torch.manual_seed(0)
    lateral, size, feature = LateralConnection(5, 40).eval(), (8, 12), torch.randn(2, 40, 4, 6)
    level = torch.randn(2, 5, *{"the feature": (4, 6), "the stage": size, "neither": (2, 3)}[like])
    expected = nn.Conv2d.forward(lateral, resize(level, size)) + resize(feature, size)
    with execution.use_chunk_sizes(upsampled=1):
        found = joined(lateral(PyramidLevel(level), feature, size))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_convolution_of_a_level_is_that_of_its_maps_concatenated():
    conv, level = PyramidConv2d(6, 5), PyramidLevel(torch.randn(2, 3, 9, 7), torch.randn(2, 3, 5, 4))
    torch.testing.assert_close(conv(level), nn.Conv2d.forward(conv, level.concatenated()))
    single = PyramidLevel(level.concatenated())
    torch.testing.assert_close(conv(single), nn.Conv2d.forward(conv, single.full))


def test_context_fusion_concatenates_the_published_maps():
    levels = [PyramidLevel(torch.randn(2, 3, n, n + 8), torch.randn(2, 3, n // 2, n // 2 + 4)) for n in (32, 16, 8, 5)]
    size = levels[-1].full.shape[2:]
    expected = torch.cat([resize(level.concatenated(), size) for level in levels], dim=1)
    torch.testing.assert_close(ContextFeatureFusion()(levels), expected)
    single = [PyramidLevel(level.concatenated()) for level in levels]
    assert torch.equal(ContextFeatureFusion()(single), expected)
