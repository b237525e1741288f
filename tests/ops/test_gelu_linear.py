"""The linear layer that keeps the input of its GELU."""

import torch
import torch.nn.functional as F

from birefnet_core.ops.gelu_linear import gelu_linear


def test_result_and_gradients_are_those_of_two_layers():
    x, weight, bias = torch.randn(2, 5, 3, 8), torch.randn(4, 8), torch.randn(4)
    results = []
    for function in (lambda x, w, b: F.linear(F.gelu(x), w, b), gelu_linear):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
        y = function(*leaves)
        y.square().sum().backward()
        results.append([y, *(leaf.grad for leaf in leaves)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_gradients_agree_with_finite_differences():
    shapes = (3, 6), (4, 6), (4,)
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(gelu_linear, leaves)


def test_under_autocast_parameters_get_gradients_of_their_own_type():
    x, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((7, 8), (4, 8), (4,)))
    with torch.autocast("cpu", torch.bfloat16):
        y = gelu_linear(x, weight, bias)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert {tensor.grad.dtype for tensor in (x, weight, bias)} == {torch.float32}
