"""VGG-16 and ResNet as torchvision builds them, cut into four parts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vgg import cfgs, make_layers

from ..checkpointing import checkpoint


class Stages(nn.Module):
    """A convolutional network cut into four consecutive parts.

    Attributes:
        grad_checkpointing: Whether to keep for the backward pass only what each part reads.
    """

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> list[Tensor]:
        """B, 3, H, W -> four maps at strides 4, 8, 16, 32."""
        maps = []
        for part in self.parts:
            x = checkpoint(part, part, x) if self.grad_checkpointing else part(x)
            maps.append(x)
        return maps


def build_vgg16(normed: bool) -> Stages:
    """VGG-16 with or without BatchNorm, cut after the second to fifth max-pooling layer."""
    cuts = (0, 14, 24, 34, 44) if normed else (0, 10, 17, 24, 31)
    # The convolutions of torchvision.models.vgg16, which would make the 124 M weights of a classifier, too.
    layers = make_layers(cfgs["D"], batch_norm=normed)
    return Stages([layers[a:b] for a, b in itertools.pairwise(cuts)])


def build_resnet(block: str, depths: Sequence[int]) -> Stages:
    """A ResNet of "basic" or "bottleneck" blocks, so many in each of its four layers."""
    net = torchvision.models.ResNet(BasicBlock if block == "basic" else Bottleneck, list(depths))
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
    return Stages([stem, net.layer2, net.layer3, net.layer4])
