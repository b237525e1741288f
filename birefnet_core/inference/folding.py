"""Linear operations merged into one: the algebra behind the prepared form.

Shapes: O output channels, I input channels, k kernel size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_weights


def fold_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """A convolution and the BatchNorm after it (or nothing) as one convolution, in the dtype of the first.

    The product is taken in float32: half precision would round twice.
    """
    if isinstance(norm, nn.Identity):
        return conv
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight.detach().float(), None if conv.bias is None else conv.bias.detach().float(),
        norm.running_mean.float(), norm.running_var.float(), norm.eps,
        norm.weight.detach().float(), norm.bias.detach().float(),
    )  # fmt: skip
    dtype = conv.weight.dtype
    return conv_from(weight.to(dtype), bias.to(dtype), padding_of(conv), conv.dilation[0])


def padding_of(conv: nn.Conv2d) -> int:
    """Pixels of padding on every side of a convolution."""
    assert not isinstance(conv.padding, str)
    return conv.padding[0]


def conv_from(weight: Tensor, bias: Tensor | None, padding: int, dilation: int = 1) -> nn.Conv2d:
    """A convolution module around given weights."""
    out_channels, in_channels, *size = weight.shape
    conv = nn.Conv2d(
        in_channels, out_channels, (size[0], size[1]), padding=padding, dilation=dilation, bias=bias is not None,
        device="meta", dtype=weight.dtype,
    )  # fmt: skip
    conv.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv


def split_inputs(conv: nn.Conv2d, sizes: list[int]) -> list[nn.Conv2d]:
    """A convolution of concatenated maps as one convolution a map, whose results add up; the first has the bias."""
    parts = conv.weight.split(sizes, dim=1)
    return [conv_from(part, conv.bias if i == 0 else None, padding_of(conv)) for i, part in enumerate(parts)]


def project_after(conv: nn.Conv2d, projection: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution followed by a 1 x 1 convolution as one convolution.

    Args:
        conv: O, I, k, k.
        projection: Weight of the 1 x 1 convolution, P, O.
        bias: Its bias, P, or None.
    """
    dtype = conv.weight.dtype
    projection = projection.float()
    weight = torch.einsum("po,oiyx->piyx", projection, conv.weight.float())
    total = torch.zeros(len(projection), device=weight.device) if bias is None else bias.float()
    if conv.bias is not None:
        total = total + projection @ conv.bias.float()
    return conv_from(weight.to(dtype), total.to(dtype), padding_of(conv))


def compose(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Two 3 x 3 convolutions with nothing between them as one 5 x 5 convolution.

    Equal to the two everywhere but in the outermost pixels: there the second one sees zeros
    where the merged one sees what the first would have computed outside the image.

    Args:
        first: M, I, 3, 3 with bias.
        second: O, M, 3, 3 with bias.
    """
    assert first.bias is not None and second.bias is not None
    # Correlating the second kernel with the mirrored first one adds up every path through the middle map.
    weight = F.conv2d(second.weight.float(), first.weight.float().flip(2, 3).transpose(0, 1), padding=2)  # O I 5 5
    bias = second.bias.float() + (second.weight.float().sum((2, 3)) @ first.bias.float())
    return conv_from(weight.to(first.weight.dtype), bias.to(first.weight.dtype), padding=2)
