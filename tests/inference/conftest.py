"""Stand-ins for a trained network: what they answer is computed from the image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import birefnet_core as bc
from birefnet_core.inference import transforms
from birefnet_core.inference.out_of_memory import OutOfMemoryError


class Oracle(bc.PreparedBiRefNet):
    """Dark is foreground. ``answer(probability, call)`` may change what the n-th call returns, N, 1, h, w.

    Attributes:
        inputs: Height and width of every pass so far.
        full: Calls that end with too little memory, by number.
    """

    def __init__(self, answer=None, contrast=20.0, threshold=0.5, training_size=(1024, 1024), full=()):
        nn.Module.__init__(self)
        self.scale = nn.Parameter(torch.tensor(contrast), requires_grad=False)
        self.answer, self.threshold, self.full = answer, threshold, set(full)
        self.checkpoint, self.min_side = None, 32
        self.inputs, self.calls = [], 0

    def forward(self, x):
        self.calls += 1
        if self.calls - 1 in self.full:
            raise OutOfMemoryError("no room")
        self.inputs += [tuple(x.shape[2:])] * len(x)
        grey = x[:, :1] * transforms.IMAGENET_STD[0] + transforms.IMAGENET_MEAN[0]
        logits = self.scale * (self.threshold - grey)
        if self.answer is not None:
            logits = torch.logit(self.answer(torch.sigmoid(logits), self.calls - 1), eps=1e-7)
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
