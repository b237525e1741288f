"""What differs from timm's PVTv2."""

import pytest
import timm
import torch
from timm.models import pvt_v2
from timm.models.pvt_v2 import MlpWithDepthwiseConv

from birefnet_core.network.encoders.pvt import ChunkedMlp, build_pvt_v2
from birefnet_core.ops import execution


@pytest.mark.parametrize("size", [(1, 3), (8, 5), (19, 7)])
def test_the_feed_forward_layer_is_timms_whole_and_in_chunks(size):
    torch.manual_seed(0)
    published = MlpWithDepthwiseConv(4, 16)
    ours, x = ChunkedMlp(published), torch.randn(2, size[0] * size[1], 4)
    expected = published(x, size)
    assert torch.equal(ours(x, size), expected)
    with torch.no_grad(), execution.use_chunk_sizes(map=1):  # as few rows at a time as may be
        torch.testing.assert_close(ours.eval()(x, size), expected)


def test_the_encoder_has_timms_weights_and_maps():
    published = timm.create_model("pvt_v2_b0", features_only=True, pretrained=False).eval()
    encoder = build_pvt_v2("b0").eval()
    encoder.load_state_dict(published.state_dict())
    assert sum(isinstance(module, ChunkedMlp) for module in encoder.modules()) == 8
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        for ours, expected in zip(encoder(x), published(x), strict=True):
            torch.testing.assert_close(ours, expected)


def test_timm_1_0_20_builds_it_on_the_meta_device(monkeypatch):
    def rates_of_older_timm(rate, depths, stagewise):
        return [x.tolist() for x in torch.linspace(0, rate, sum(depths)).split(depths)]

    monkeypatch.setattr(pvt_v2, "calculate_drop_path_rates", rates_of_older_timm, raising=False)
    with torch.device("meta"):
        encoder = build_pvt_v2("b0")
    assert all(parameter.is_meta for parameter in encoder.parameters())
