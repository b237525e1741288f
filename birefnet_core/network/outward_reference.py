"""Outward reference (Sec. 3.4): attention on areas rich in gradients, supervised by gradient maps.

Shapes: B batch, C channels, H W image, h w the stage's map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.execution import chunking
from .layers import batch_norm, fold_norm, resize

GRADIENT_CHANNELS = 16  # width of F^G, published


class OutwardReference(nn.Module):
    """Gradient feature F^G of a decoder stage, the attention A it gives, and the gradient map it predicts."""

    def __init__(self, channels: int, normed: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, GRADIENT_CHANNELS, 3, padding=1)
        self.norm = batch_norm(GRADIENT_CHANNELS, normed)
        self.relu = nn.ReLU(inplace=True)
        self.attention = nn.Conv2d(GRADIENT_CHANNELS, 1, 1)
        self.gradient: nn.Conv2d | None = nn.Conv2d(GRADIENT_CHANNELS, 1, 1)  # None once fused: it is for training

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weights the feature by its gradient attention.

        Args:
            x: B, C, h, w from the reconstruction block; changed in place in inference.

        Returns:
            The weighted feature B, C, h, w; and while training the logits B, 1, h, w of the gradient map.
        """
        feature = self.relu(self.norm(self.conv(x)))  # F^G: B 16 h w
        prediction = self.gradient(feature) if self.training and self.gradient is not None else None
        attention = torch.sigmoid(self.attention(feature))  # B 1 h w
        return (x.mul_(attention) if chunking(x, self.training) else x * attention), prediction

    def fuse(self) -> None:
        """Folds the norm and drops the head for the gradient map."""
        self.norm, self.gradient = fold_norm(self.conv, self.norm), None


def image_gradient(image: Tensor) -> Tensor:
    """G^gt: second derivative of the image's channel mean.

    A 5 x 5 Laplacian of ones with -24 in the middle, divided by the sum 48 of its magnitudes; borders
    are mirrored (published).

    Args:
        image: B, 3, H, W, normalised as for the network.

    Returns:
        B, 1, H, W.
    """
    kernel = torch.ones(1, 1, 5, 5, device=image.device, dtype=image.dtype)
    kernel[..., 2, 2] = -24
    grey = F.pad(image.mean(dim=1, keepdim=True), (2, 2, 2, 2), mode="reflect")
    return F.conv2d(grey, kernel / 48)


def gradient_label(gradient: Tensor, prediction: Tensor | None, mode: str) -> Tensor:
    """Label of a gradient map: image gradients, weighted by where the object is thought to be (Sec. 3.4).

    Args:
        gradient: B, 1, H, W from ``image_gradient``.
        prediction: Intermediate logits M_i, B, 1, h, w; None, where there is no multi-stage supervision,
            leaves the gradients unmasked.
        mode: "dilated", the paper's: gradients outside the binarised and dilated M_i are removed. The
            dilation is by one cell of M_i on every side, so that a coarser, less certain stage keeps
            a wider margin. "logit", the published code's: gradients times the logits themselves; the
            label then passes gradients on to M_i.

    Returns:
        B, 1, H, W; the loss compares the prediction with its sigmoid.
    """
    if prediction is None:
        return gradient
    size = gradient.shape[-2:]
    if mode == "logit":
        return gradient * resize(prediction, size)
    foreground = (prediction.detach() > 0).to(gradient.dtype)
    dilated = F.max_pool2d(foreground, kernel_size=3, stride=1, padding=1)
    return gradient * F.interpolate(dilated, size=size, mode="nearest")
