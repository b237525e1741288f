"""Linear layers by another library, with the same results."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from birefnet_core.inference import products


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_linear_equals_torchs(bias, activation):
    x, weight = torch.randn(2, 3, 5, 33).transpose(0, 1), torch.randn(17, 33)
    given = torch.randn(17) if bias else None
    expected = F.linear(x, weight, given)
    with torch.no_grad():
        found = products.linear(x, weight, given, activation)
    torch.testing.assert_close(found, expected.relu() if activation == "relu" else expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_to_torch(dtype):
    x, weight = torch.randn(4, 8).to(dtype), torch.randn(3, 8).to(dtype)
    with torch.no_grad():
        assert torch.equal(products.linear(x, weight), F.linear(x, weight))


def test_gradients_are_left_to_torch():
    layer, x = nn.Linear(8, 3), torch.randn(4, 8)
    with products.faster_linear_layers(x.device):
        layer(x).sum().backward()
    assert layer.weight.grad is not None


def test_layers_use_it_inside_the_context_only(monkeypatch):
    calls = []
    monkeypatch.setattr(products, "linear", lambda *given: calls.append(1) or F.linear(*given))
    monkeypatch.setattr(products, "_has_onednn", lambda: True)
    layer, x = nn.Linear(8, 3), torch.randn(4, 8)
    with torch.no_grad():
        layer(x)
        assert not calls
        with products.faster_linear_layers(x.device):
            layer(x)
        layer(x)
    assert len(calls) == 1


def test_a_torch_without_the_operator_goes_on(monkeypatch):
    monkeypatch.setattr(products, "_has_onednn", lambda: False)
    layer, x = nn.Linear(8, 3), torch.randn(4, 8)
    with torch.no_grad(), products.faster_linear_layers(x.device):
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
