"""Transfer functions against the values in the standards."""

import pytest
import torch

from birefnet_core.transfer import KNEE, from_sdr, srgb_from_linear, to_linear, to_sdr


@pytest.mark.parametrize(
    ("transfer", "coded", "light"),
    [
        ("pq", 0.58068888, 203.0),  # BT.2408: white of SDR at 58 % of PQ
        ("pq", 1.0, 10000.0),
        ("pq", 0.0, 0.0),
        ("hlg", 0.75, 203.0),  # BT.2408: at 75 % of HLG
        ("hlg", 1.0, 1000.0),
        ("sdr", 1.0, 203.0),
    ],
)
def test_light_is_that_of_the_standards(transfer, coded, light):
    found = to_linear(torch.full((1, 1, 3), coded), transfer) * 203
    assert found == pytest.approx(torch.full((1, 1, 3), light).numpy(), rel=5e-3, abs=1e-3)


@pytest.mark.parametrize("transfer", ["sdr", "pq", "hlg"])
@pytest.mark.parametrize("primaries", [1, 9])
def test_sdr_survives_the_way_to_hdr_and_back(transfer, primaries):
    torch.manual_seed(0)
    colours = srgb_from_linear(torch.rand(16, 16, 3) * KNEE)
    again = to_sdr(from_sdr(colours, transfer, primaries), transfer, primaries)
    assert (again - colours).abs().max() < 0.01


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_highlights_are_compressed_in_order(transfer):
    grey = torch.linspace(0, 1, 256)[:, None].expand(-1, 3)
    mapped = to_sdr(grey, transfer, 1)[:, 0]
    assert (mapped.diff() >= 0).all()
    assert mapped.max() <= 1
    assert mapped[-1] > mapped[200] > mapped[150]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["pq", "hlg"])
@pytest.mark.parametrize("call", ["to_sdr", "from_sdr", "to_linear"])
def test_other_precisions_are_computed_in_float32_at_least(call, name, dtype):
    colours = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    function = {
        "to_sdr": lambda x: to_sdr(x, name, 9),
        "from_sdr": lambda x: from_sdr(x, name, 9),
        "to_linear": lambda x: to_linear(x, name),
    }[call]
    found, expected = function(colours), function(colours.float())
    assert found.dtype == (dtype if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("call", [to_sdr, from_sdr])
def test_sdr_is_left_as_it_is(call):
    colours = torch.rand(4, 3).half()
    assert call(colours, "sdr", 9) is colours
