"""What a BiRefNet is made of: the options of the paper (Sec. 3, Tab. 1-3), as one frozen dataclass."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any

from .errors import ConfigError
from .text import did_you_mean, enumerate_names

BACKBONES = (
    "swin_v1_t", "swin_v1_s", "swin_v1_b", "swin_v1_l",
    "pvt_v2_b0", "pvt_v2_b1", "pvt_v2_b2", "pvt_v2_b5",
    "dino_v3_s", "dino_v3_s_plus", "dino_v3_b", "dino_v3_l", "dino_v3_h_plus", "dino_v3_7b",
    "vgg16", "vgg16bn", "resnet50", "resnet10",
    "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2",
)  # fmt: skip

RECONSTRUCTION_BLOCKS = ("deformable_aspp", "aspp", "residual")
NUM_STAGES = 4  # strides 4, 8, 16, 32
DIS5K_CLASSES = 219  # labels of DIS5K-TR, for the auxiliary classification head
MOST_CLASSES = 100_000  # beyond any data set; a file with more is damaged


class PatchOrder(str, Enum):
    """Order of the inward reference's patches on the channel axis of the *file* a network came from.

    The image is cut into g_h x g_w patches. With c the colour, i the patch's row and j its column,
    channel n of the stacked patches is

    - ``CHANNELS_FIRST``: n = (c * g_h + i) * g_w + j, published code since 5 November 2024;
    - ``COLUMNS_FIRST``:  n = (j * g_h + i) * 3 + c, published code before that day.

    The network itself always computes CHANNELS_FIRST; a COLUMNS_FIRST file has the input channels
    of its patch convolutions permuted once when it is read.
    """

    CHANNELS_FIRST = "channels_first"
    COLUMNS_FIRST = "columns_first"


_CHOICES: dict[str, tuple[Any, ...]] = {
    "backbone": BACKBONES,
    "image_pyramid": ("cat", "add", "none"),
    "context_fusion": (0, 3),
    "reconstruction_block": RECONSTRUCTION_BLOCKS,
    "gradient_mask": ("dilated", "logit"),
}
_FLAGS = ("inward_reference", "outward_reference", "multi_stage_supervision", "batch_norm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiRefNetConfig:
    """The architecture of one BiRefNet. The defaults are the published Swin-L network.

    Attributes:
        backbone: Encoder, one of ``BACKBONES`` (Tab. 4, 7).
        image_pyramid: IPT (Sec. 3.6): features of the half-size image are concatenated ("cat") or
            added ("add") to those of the full-size image, or the half-size pass is left out ("none").
        context_fusion: CFF (Sec. 3.6): how many of the shallower levels join the deepest one, 3 or 0.
        inward_reference: InRef (Sec. 3.4): image patches enter every decoder stage.
        outward_reference: OutRef (Sec. 3.4): gradient attention, and gradient maps while training.
        reconstruction_block: RM (Sec. 3.3): "deformable_aspp" is the paper's block, "aspp" the same
            with plain dilated convolutions, "residual" the baseline of Tab. 2.
        multi_stage_supervision: MSS (Sec. 3.3): a logit map at each of the three coarser stages.
        num_classes: 219 adds the auxiliary classification head (Sec. 3.2), 0 leaves it out.
        gradient_mask: Mask on the gradient labels of OutRef, "dilated" as in the paper or "logit"
            as in the published code. Acts on labels only; inference is the same for both.
        batch_norm: False builds the network without BatchNorm, as published training does at batch size 1.
        patch_order: Layout of the patch convolutions in the file of this network (see PatchOrder).
            ``save_checkpoint`` writes it; what the network computes does not depend on it.

    Raises:
        ConfigError: A value no BiRefNet has; the message lists the possible ones.
    """

    backbone: str = "swin_v1_l"
    image_pyramid: str = "cat"
    context_fusion: int = 3
    inward_reference: bool = True
    outward_reference: bool = True
    reconstruction_block: str = "deformable_aspp"
    multi_stage_supervision: bool = True
    num_classes: int = 0
    gradient_mask: str = "dilated"
    batch_norm: bool = True
    patch_order: PatchOrder = PatchOrder.CHANNELS_FIRST

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices or isinstance(value, bool):
                known = ", ".join(map(repr, choices)) + "." + did_you_mean(value, choices)
                raise ConfigError(f"{name}={value!r} is not known; choose one of {known}")
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected True or False.")
        count = self.num_classes
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST_CLASSES:
            raise ConfigError(f"num_classes={self.num_classes!r}: expected 0 (no head) or a count, as {DIS5K_CLASSES}.")
        try:
            object.__setattr__(self, "patch_order", PatchOrder(self.patch_order))
        except ValueError:
            known = ", ".join(repr(o.value) for o in PatchOrder)
            raise ConfigError(f"patch_order={self.patch_order!r} is not known; choose one of {known}.") from None

    def replace(self, **changes: Any) -> BiRefNetConfig:
        """A copy with some options changed, validated like any other."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON metadata."""
        return {**dataclasses.asdict(self), "patch_order": self.patch_order.value}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BiRefNetConfig:
        """The inverse of ``to_dict``.

        Raises:
            ConfigError: An option this version does not know, or a value out of range.
        """
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            names = enumerate_names(unknown)
            raise ConfigError(f"unknown option {names}: perhaps from a newer version of this package.")
        return cls(**values)
