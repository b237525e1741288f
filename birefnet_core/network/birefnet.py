"""BiRefNet (Zheng et al., "Bilateral Reference for High-Resolution Dichotomous Image Segmentation", 2024).

The whole network: Localization Module -> Reconstruction Module (Sec. 3.1, Fig. 3).
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from timm.models import FeatureDictNet
from torch import Tensor, nn

from ..checkpoint_info import CheckpointInfo
from ..config import BiRefNetConfig
from ..errors import ConfigError, ImageError
from .encoders.registry import backbone_spec
from .layers import to_conv_memory_format
from .localization import LocalizationModule
from .reconstruction import GradientMaps, ReconstructionModule

SIZE_MULTIPLE = 32  # the coarsest stride: input sides must be multiples of it


class BiRefNetOutput(NamedTuple):
    """What BiRefNet gives. All but the logits only while training.

    Attributes:
        logits: B, 1, H, W; the mask is their sigmoid.
        intermediate: Three logit maps B, 1, H / s, W / s at strides s = 32, 16, 8, coarse to fine
            (multi-stage supervision); empty in eval mode and without it.
        gradient: Predictions and labels of the outward reference; None in eval mode and without it.
        classes: Logits B, num_classes of the auxiliary head; None in eval mode and without it.
    """

    logits: Tensor
    intermediate: tuple[Tensor, ...] = ()
    gradient: GradientMaps | None = None
    classes: Tensor | None = None


class BiRefNet(nn.Module):
    """The bilateral reference network.

    Args:
        config: The architecture; the published Swin-L network by default.

    Attributes:
        config: The same.
        checkpoint: Where the weights came from; None for a new network.
        fused: Whether it is what ``fuse_for_inference`` returns: for inference only.
        scales: What weights were multiplied by to fit into float16 (name -> one factor for each output channel); the
            norms after them take it back. Empty for most networks.
    """

    def __init__(self, config: BiRefNetConfig | None = None) -> None:
        super().__init__()
        if config is not None and not isinstance(config, BiRefNetConfig):
            raise ConfigError(
                f"config is {_found(config)}, expected a BiRefNetConfig such as BiRefNetConfig(backbone='swin_v1_t'); "
                "load_model builds the network of a checkpoint."
            )
        self.config = config or BiRefNetConfig()
        self.checkpoint: CheckpointInfo | None = None
        self.fused = False
        self.scales: dict[str, Tensor] = {}
        self.localization = LocalizationModule(self.config)
        self.reconstruction = ReconstructionModule(self.config)

    def forward(self, image: Tensor) -> BiRefNetOutput:
        """Segments a batch.

        Args:
            image: B, 3, H, W, RGB normalised with the ImageNet statistics; H and W multiples of 32.

        Raises:
            ImageError: No tensor, another shape, or an image smaller than the backbone can take.
        """
        self._check(image)
        if not self.training:
            image = to_conv_memory_format(image)
        levels, classes = self.localization(image)
        logits, intermediate, gradient = self.reconstruction(levels, image)
        return BiRefNetOutput(logits, intermediate, gradient, classes)

    def train(self, mode: bool = True) -> BiRefNet:
        """Sets train or eval mode.

        Raises:
            ConfigError: Train mode of a fused network.
        """
        if mode and self.fused:
            raise ConfigError(
                "a fused network cannot be trained, because its norms are folded into its convolutions: train the "
                "network that fuse_for_inference was given."
            )
        return super().train(mode)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Sets activation checkpointing: training keeps little for the backward pass and computes most of it again.

        Encoder blocks, decoder stages and the squeeze keep their inputs only. Numbers stay the same but for the order
        of sums.
        """
        for module in self.modules():
            # timm's wrapper of several stages would checkpoint stages, whose blocks do that already.
            if hasattr(module, "grad_checkpointing") and not isinstance(module, FeatureDictNet):
                cast("Any", module).grad_checkpointing = enable

    @property
    def min_side(self) -> int:
        """Shortest side of an input image, in pixels."""
        return backbone_spec(self.config.backbone).min_side

    def _check(self, image: Tensor) -> None:
        if not isinstance(image, Tensor):
            raise ImageError(
                f"image is {_found(image)}, expected a tensor B, 3, H, W, normalised; Segmenter takes paths, PIL "
                "images and arrays."
            )
        shape = tuple(image.shape)
        if image.ndim != 4 or shape[1] != 3 or shape[0] == 0:
            raise ImageError(f"BiRefNet takes images of shape B, 3, H, W; found {shape}.")
        if min(shape[2:]) < self.min_side or shape[2] % SIZE_MULTIPLE or shape[3] % SIZE_MULTIPLE:
            raise ImageError(
                f"image height and width must be multiples of {SIZE_MULTIPLE} and at least {self.min_side} for "
                f"{self.config.backbone}; found {shape[2]} x {shape[3]}. Segmenter resizes images of any size."
            )


def check_network(model: object) -> None:
    """Raises a ConfigError for what is no BiRefNet, nor wraps one and passes its attributes on."""
    if not isinstance(model, nn.Module) or not hasattr(model, "fused"):
        raise ConfigError(f"model is {_found(model)}, expected a BiRefNet: load_model makes one of a name or a file.")


def _found(value: object) -> str:
    return repr(value[:80]) if isinstance(value, str) else f"a {type(value).__name__}"
