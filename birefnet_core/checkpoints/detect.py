"""State dict -> BiRefNetConfig: every option read from the names and shapes of the weights."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..config import BiRefNetConfig
from ..errors import CheckpointError
from ..network.encoders.registry import backbone_spec

logger = logging.getLogger(__name__)

# Prefixes that wrappers (DataParallel, torch.compile, training frameworks) put before every name.
_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "birefnet.")
_OWN_PREFIXES = ("localization.", "reconstruction.")

# Each encoder by what tells it from the others of its family.
_SWIN = {(96, 6): "swin_v1_t", (96, 18): "swin_v1_s", (128, 18): "swin_v1_b", (192, 18): "swin_v1_l"}
_PVT_V2 = {(32, 2): "pvt_v2_b0", (64, 2): "pvt_v2_b1", (64, 6): "pvt_v2_b2", (64, 40): "pvt_v2_b5"}
_CONVOLUTIONAL = {
    (7, 1, True): "resnet50", (7, 1, False): "resnet10", (3, 0, False): "vgg16", (3, 1, False): "vgg16bn",
}  # fmt: skip
_DINO_V3: dict[tuple[int, int], str] = {
    (384, False): "dino_v3_s",
    (384, True): "dino_v3_s_plus",
    (768, False): "dino_v3_b",
    (1024, False): "dino_v3_l",
    (1280, True): "dino_v3_h_plus",
    (4096, True): "dino_v3_7b",
}

# Other models people have in the same folders, by a piece of a name only they have.
_STRANGERS = {
    "model.diffusion_model.": "a Stable Diffusion checkpoint",
    "diffusion_model.": "a diffusion model",
    "double_blocks.": "a Flux diffusion model",
    "lora_": "a LoRA",
    "text_model.encoder.": "a text encoder",
    "first_stage_model.": "a VAE",
    "image_encoder.trunk.": "a SAM checkpoint",
    "image_encoder.neck.": "a SAM checkpoint",
    "stage1.rebnconvin.": "an IS-Net or U2-Net checkpoint",
}


def strip_wrappers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Takes off what training wrappers put before every name, in whatever order they were nested."""
    state_dict = dict(state_dict)
    while state_dict:
        prefix = next((p for p in _WRAPPER_PREFIXES if all(name.startswith(p) for name in state_dict)), None)
        if prefix is None:
            break
        state_dict = {name[len(prefix) :]: value for name, value in state_dict.items()}
    return state_dict


def has_own_names(names: Iterable[str]) -> bool:
    """True for a state dict under our own names, False for one under the published names."""
    return any(name.startswith(_OWN_PREFIXES) for name in names)


def own_name_family(names: Iterable[str]) -> str:
    """The kind of encoder in a state dict under our own names."""
    encoder = "localization.encoder.backbone."
    for name in names:
        if name.startswith(encoder + "stages."):
            return "swin_v1"
        if name.startswith(encoder + "stages_"):
            return "pvt_v2"
        if name.startswith(encoder + "model."):
            return "dino_v3"
        if name.startswith(encoder + "parts."):
            return "resnet50"
    raise CheckpointError("the state dict has no encoder (localization.encoder.backbone.*), so it is not whole.")


def own_name_block(names: Iterable[str]) -> str:
    """The kind of reconstruction block in a state dict under our own names."""
    names = set(names)
    if "reconstruction.blocks.0.block.0.conv1.weight" in names:
        return "residual"
    deformable = "reconstruction.blocks.0.block.aspp.branches.0.conv.offset.weight" in names
    return "deformable_aspp" if deformable else "aspp"


def detect_config(state_dict: Mapping[str, Tensor], image_pyramid: str | None = None) -> BiRefNetConfig:
    """Reads the architecture from a state dict under the published names.

    Args:
        state_dict: Names without wrapper prefixes.
        image_pyramid: "add" or "none" where the file's metadata says so: weights cannot tell them apart.

    Raises:
        CheckpointError: Not a BiRefNet, or one of a generation or backbone that is not supported.
    """
    shapes = {name: tuple(value.shape) for name, value in state_dict.items()}
    backbone = _detect_backbone(shapes)
    spec = backbone_spec(backbone)
    _refuse_older_generation(shapes)
    block = _detect_block(shapes)

    single = spec.single_stride
    lateral = _shape(shapes, "decoder.pyramid_neck_x3.conv.weight" if single else "decoder.lateral_block4.conv.weight")
    doubled = lateral[1] == 2 * spec.channels[2]
    if doubled:
        pyramid = "cat"
    else:
        pyramid = image_pyramid or "none"
        if image_pyramid is None:
            logger.warning(
                "These weights were trained without a concatenated image pyramid; whether with an added one or "
                "none they do not tell. Assuming none."
            )
    squeezed = _shape(shapes, "squeeze_module.0.conv_in.weight")[1]
    return BiRefNetConfig(
        backbone=backbone,
        image_pyramid=pyramid,
        context_fusion=3 if squeezed == sum(spec.channels) * (2 if doubled else 1) else 0,
        inward_reference="decoder.ipt_blk5.conv1.weight" in shapes,
        outward_reference="decoder.gdt_convs_4.0.weight" in shapes,
        reconstruction_block=block,
        multi_stage_supervision="decoder.conv_ms_spvn_4.weight" in shapes,
        num_classes=shapes["cls_head.0.weight"][0] if "cls_head.0.weight" in shapes else 0,
        batch_norm=any(n.startswith("decoder.") and n.endswith(".running_mean") for n in shapes),
    )


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(f"the checkpoint is not whole: {name} is missing. Download it again.")
    return shapes[name]


def _blocks(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    """Number of blocks below a prefix such as "bb.layers.2.blocks."."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({match[1] for name in shapes if (match := pattern.match(name))})


def _detect_backbone(shapes: Mapping[str, tuple[int, ...]]) -> str:
    key: Any
    table: dict[Any, str]
    if "bb.layers.0.blocks.0.attn.qkv.weight" in shapes:
        key = _shape(shapes, "bb.patch_embed.proj.weight")[0], _blocks(shapes, "bb.layers.2.blocks.")
        family, table, words = "Swin v1", _SWIN, "width {} and {} blocks in stage 3"
    elif "bb.patch_embed1.proj.weight" in shapes:
        key = shapes["bb.patch_embed1.proj.weight"][0], _blocks(shapes, "bb.block3.")
        family, table, words = "PVTv2", _PVT_V2, "width {} and {} blocks in stage 3"
    elif "bb.model.cls_token" in shapes:
        key = shapes["bb.model.cls_token"][-1], "bb.model.blocks.0.mlp.fc1_g.weight" in shapes
        family, table, words = "DINOv3", _DINO_V3, "width {}, gated MLP: {}"
    elif "bb.conv1.0.weight" in shapes:
        deep = "bb.conv1.4.0.conv3.weight" in shapes  # ResNet's bottlenecks
        key = shapes["bb.conv1.0.weight"][-1], len(shapes.get("bb.conv1.1.weight", ())), deep
        family, table, words = "convolutional", _CONVOLUTIONAL, "kernel {}, {} norm, bottlenecks: {}"
    else:
        raise CheckpointError(_not_a_birefnet(shapes))
    if key not in table:
        known = ", ".join(table.values())
        raise CheckpointError(f"a {family} encoder of {words.format(*key)} is not supported; known are {known}.")
    return table[key]


def _not_a_birefnet(shapes: Mapping[str, tuple[int, ...]]) -> str:
    guess = next((what for piece, what in _STRANGERS.items() if any(piece in name for name in shapes)), None)
    found = f"this looks like {guess}" if guess else f"its first names are {', '.join(list(shapes)[:3]) or 'none'}"
    return (
        f"not a BiRefNet checkpoint: {found}, and an encoder (bb.*), a squeeze module and a decoder were expected. "
        "`python -m birefnet_core checkpoints` lists checkpoints that fit."
    )


def _refuse_older_generation(shapes: Mapping[str, tuple[int, ...]]) -> None:
    if "decoder.ipt_blk4.conv1.weight" in shapes and "decoder.ipt_blk5.conv1.weight" not in shapes:
        raise CheckpointError(
            "this is the older generation of BiRefNet (March to May 2024) without the coarsest patch injection "
            "(decoder.ipt_blk5), which a different network computed. Use a current checkpoint such as BiRefNet or "
            "BiRefNet-legacy."
        )


def _detect_block(shapes: Mapping[str, tuple[int, ...]]) -> str:
    first = "decoder.decoder_block4."
    if any(name.startswith(first + "dec_att.aspp_deforms.") for name in shapes):
        return "deformable_aspp"
    if any(name.startswith(first + "dec_att.aspp2.") for name in shapes):
        return "aspp"
    if first + "0.conv1.weight" in shapes:
        return "residual"
    raise CheckpointError(f"the decoder's blocks ({first}*) are of a kind that is not supported, or missing.")
