"""A stand-in for a trained network, whose mask is computed from the image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import birefnet_core as bc
from birefnet_core.inference import transforms
from birefnet_core.out_of_memory import OutOfMemoryError


class Oracle(nn.Module):
    """Dark is foreground. ``change(probability, call)`` may change the mask N, 1, h, w of the n-th call.

    Attributes:
        inputs: Height and width of every image so far.
        full: Calls that run out of memory, by number.
    """

    fused, checkpoint, min_side, config = True, None, 32, bc.BiRefNetConfig(backbone="pvt_v2_b0")

    def __init__(self, change=None, contrast=20.0, threshold=0.5, full=()):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(contrast), requires_grad=False)
        self.change, self.threshold, self.full = change, threshold, set(full)
        self.inputs, self.calls = [], 0

    def forward(self, x):
        self.calls += 1
        if self.calls - 1 in self.full:
            raise OutOfMemoryError("CUDA out of memory")
        self.inputs += [tuple(x.shape[2:])] * len(x)
        grey = x[:, :1] * transforms.IMAGENET_STD[0] + transforms.IMAGENET_MEAN[0]
        logits = self.scale * (self.threshold - grey)
        if self.change is not None:
            logits = torch.logit(self.change(torch.sigmoid(logits), self.calls - 1), eps=1e-7)
        return bc.BiRefNetOutput(logits)


@pytest.fixture(scope="session")
def oracle():
    return Oracle


@pytest.fixture(scope="session")
def picture():
    """A white image B, H, W, 3 with a black disc in the middle, whose edge is one pixel soft."""

    def draw(height, width, radius, batch=1):
        y, x = torch.arange(height)[:, None] - height / 2, torch.arange(width) - width / 2
        grey = (torch.hypot(y, x) - radius + 0.5).clamp(0, 1)
        return grey[None, :, :, None].repeat(batch, 1, 1, 3)

    return draw
