"""State dict -> BiRefNetConfig: every option read from the names (ours) and shapes of the weights."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..config import BiRefNetConfig
from ..errors import CheckpointError
from ..network.encoders.registry import backbone_spec
from ..text import enumerate_names, printable
from . import keymap

logger = logging.getLogger(__name__)

# First parts of the names of whole networks, published and our own; what stands before them a wrapper put there.
_ROOTS = ("bb", "squeeze_module", "decoder", "cls_head", "localization", "reconstruction")
# Parts that torch.compile, FSDP, activation checkpointing and Lightning Fabric put anywhere into names.
_WRAPPER_PARTS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
_COUNTERS = {"total_ops", "total_params"}  # buffers that thop adds to every module
_OWN_PREFIXES = ("localization.", "reconstruction.")
_ENCODER = "localization.encoder.backbone."
_FIRST_BLOCK = "reconstruction.blocks.0.block."
_PATCH_CONVOLUTION = "reconstruction.blocks.{}.inward.conv_in.weight"

# Each encoder by what tells it from the others of its family.
_SWIN = {(96, 6): "swin_v1_t", (96, 18): "swin_v1_s", (128, 18): "swin_v1_b", (192, 18): "swin_v1_l"}
_PVT_V2 = {(32, 2): "pvt_v2_b0", (64, 2): "pvt_v2_b1", (64, 6): "pvt_v2_b2", (64, 40): "pvt_v2_b5"}
_CONVOLUTIONAL = {
    (7, 1, True): "resnet50", (7, 1, False): "resnet10", (3, 0, False): "vgg16", (3, 1, False): "vgg16bn",
}  # fmt: skip
_EFFICIENTNET_LITE = {
    (320, 2): "efficientnet_lite0", (320, 3): "efficientnet_lite1", (352, 3): "efficientnet_lite2",
}  # fmt: skip
_DINO_V3: dict[tuple[int, int], str] = {
    (384, False): "dino_v3_s",
    (384, True): "dino_v3_s_plus",
    (768, False): "dino_v3_b",
    (1024, False): "dino_v3_l",
    (1280, True): "dino_v3_h_plus",
    (4096, True): "dino_v3_7b",
}

# Substring of a name -> model family, for other models that are kept in the same folders.
_KNOWN_OTHER_MODELS = {
    "model.diffusion_model.": "a Stable Diffusion checkpoint",
    "diffusion_model.": "a diffusion model",
    "double_blocks.": "a Flux diffusion model",
    ".lora_up": "a low-rank adapter, to be given as adapter beside the model it was trained on",
    "lora_": "a LoRA",
    ".parametrizations.weight.": "the state of an adapter's training, beside which best.safetensors lies",
    "text_model.encoder.": "a text encoder",
    "first_stage_model.": "a VAE",
    "image_encoder.trunk.": "a SAM checkpoint",
    "image_encoder.neck.": "a SAM checkpoint",
    "stage1.rebnconvin.": "an IS-Net or U2-Net checkpoint",
}

Shapes = dict[str, tuple[int, ...]]


def strip_wrappers(state_dict: Mapping[str, Tensor]) -> dict[str, str]:
    """The names of a network without what training wrappers put before them and into them.

    Where a whole network is under a prefix, other entries (counters, losses, another network) are left out. Of
    several networks a moving average is taken.

    Returns:
        Name without wrappers -> name in the state dict.
    """
    groups: dict[str, dict[str, str]] = {}
    for name in state_dict:
        parts = [part for part in name.split(".") if part not in _WRAPPER_PARTS]
        first = next((i for i, part in enumerate(parts) if part in _ROOTS), 0)
        if _COUNTERS.isdisjoint(parts[-1:]):
            groups.setdefault(".".join(parts[:first]), {})[".".join(parts[first:])] = name
    if len(groups) == 1:
        return next(iter(groups.values()))
    whole = {prefix: names for prefix, names in groups.items() if len(_roots(names)) > 1}
    if "" in whole or not whole:
        return {f"{before}.{n}".lstrip("."): name for before, names in groups.items() for n, name in names.items()}
    prefix = max(whole, key=lambda prefix: (len(whole[prefix]), "ema" in prefix))
    left = len(state_dict) - len(whole[prefix])
    if others := [other for other in whole if other != prefix]:
        taken, rest = printable(repr(prefix)), printable(enumerate_names([repr(other) for other in others]))
        logger.warning(
            "These weights are of several networks. That under %s is taken, and what is under %s left out: to load it, "
            "save it alone.", taken, rest
        )  # fmt: skip
    elif left:
        logger.info("Loading the network under %r; %d other entries are left out.", prefix, left)
    return whole[prefix]


def _roots(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}.intersection(_ROOTS)


def has_own_names(names: Iterable[str]) -> bool:
    """True for a state dict under our own names, False for one under the published names."""
    return any(name.startswith(_OWN_PREFIXES) for name in names)


def detect_config(state_dict: Mapping[str, Tensor]) -> BiRefNetConfig:
    """Reads the architecture from a state dict.

    Args:
        state_dict: Under our own names. Names that have none of ours may be as in the file.

    Raises:
        CheckpointError: Not a BiRefNet, or one of a generation or backbone that is not supported.
    """
    shapes = {name: tuple(value.shape) for name, value in state_dict.items()}
    backbone = detect_backbone(shapes)
    spec = backbone_spec(backbone)
    _refuse_older_generation(shapes, backbone)
    lateral = "localization.neck.convs.2.weight" if spec.single_stride else "reconstruction.laterals.0.weight"
    doubled = _shape(shapes, lateral, 4)[1] == 2 * spec.channels[2]
    if not doubled:
        logger.warning(
            "These weights were trained without a concatenated image pyramid; they do not tell whether with an added "
            "one or none. Assuming none."
        )
    squeezed = _shape(shapes, "localization.squeeze.conv_in.weight", 4)[1]
    return BiRefNetConfig(
        backbone=backbone,
        image_pyramid="cat" if doubled else "none",
        context_fusion=3 if squeezed == sum(spec.channels) * (2 if doubled else 1) else 0,
        inward_reference=_PATCH_CONVOLUTION.format(0) in shapes,
        outward_reference="reconstruction.blocks.0.outward.conv.weight" in shapes,
        reconstruction_block=_detect_block(shapes),
        multi_stage_supervision="reconstruction.supervision.0.weight" in shapes,
        num_classes=count_classes(shapes),
        batch_norm=any(n.startswith("reconstruction.") and n.endswith(".running_mean") for n in shapes),
    )


def count_classes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Classes of the auxiliary head; 0 where there is none."""
    name = "localization.classifier.fc.weight"
    return _shape(shapes, name, 2)[0] if name in shapes else 0


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(f"the checkpoint is not whole: {name} is missing. Download it again.")
    if len(shapes[name]) != dimensions:
        raise CheckpointError(f"{name} has shape {shapes[name]}, expected {dimensions} dimensions. Download it again.")
    return shapes[name]


def _count_blocks(shapes: Shapes, prefix: str) -> int:
    """Number of blocks below a prefix such as "stages.2.blocks."."""
    pattern = re.compile(re.escape(_ENCODER + prefix) + r"(\d+)\.")
    return len({match[1] for name in shapes if (match := pattern.match(name))})


def detect_backbone(shapes: Shapes) -> str:
    """The encoder, from names (ours) and shapes.

    Raises:
        CheckpointError: None that is known.
    """
    encoder = {name.removeprefix(_ENCODER): shape for name, shape in shapes.items() if name.startswith(_ENCODER)}
    key: Any
    table: dict[Any, str]
    if "stages.0.blocks.0.attn.qkv.weight" in encoder:
        key = _shape(shapes, f"{_ENCODER}patch_embed.proj.weight", 4)[0], _count_blocks(shapes, "stages.2.blocks.")
        family, table, words = "Swin v1", _SWIN, "width {} and {} blocks in stage 3"
    elif "stages_0.blocks.0.attn.q.weight" in encoder:
        key = _shape(shapes, f"{_ENCODER}patch_embed.proj.weight", 4)[0], _count_blocks(shapes, "stages_2.blocks.")
        family, table, words = "PVTv2", _PVT_V2, "width {} and {} blocks in stage 3"
    elif "model.cls_token" in encoder:
        key = _shape(shapes, f"{_ENCODER}model.cls_token", 3)[-1], "model.blocks.0.mlp.fc1_g.weight" in encoder
        family, table, words = "DINOv3", _DINO_V3, "width {}, gated MLP: {}"
    elif "conv_stem.weight" in encoder:
        key = _shape(shapes, f"{_ENCODER}blocks.6.0.bn3.weight", 1)[0], _count_blocks(shapes, "blocks.1.")
        family, table, words = "EfficientNet-Lite", _EFFICIENTNET_LITE, "{} channels and {} blocks in its second stage"
    elif "parts.0.0.weight" in encoder:
        deep = "parts.0.4.0.conv3.weight" in encoder  # ResNet's bottlenecks
        key = _shape(shapes, f"{_ENCODER}parts.0.0.weight", 4)[-1], len(encoder.get("parts.0.1.weight", ())), deep
        family, table, words = "convolutional", _CONVOLUTIONAL, "kernel {}, {} norm, bottlenecks: {}"
    else:
        raise CheckpointError(_not_a_birefnet(shapes))
    if key not in table:
        known = ", ".join(table.values())
        raise CheckpointError(f"a {family} encoder of {words.format(*key)} is not supported; known are {known}.")
    return table[key]


def _not_a_birefnet(names: Iterable[str]) -> str:
    names = list(names)
    guess = next((what for piece, what in _KNOWN_OTHER_MODELS.items() if any(piece in name for name in names)), None)
    found = f"this looks like {guess}" if guess else f"its first names are {enumerate_names(names) or 'none'}"
    return (
        f"not a BiRefNet checkpoint: {found}, and an encoder, a squeeze module and a decoder were expected. "
        "Choose one that fits, such as BiRefNet or BiRefNet_lite; `python -m birefnet_core checkpoints` lists them all."
    )


def _refuse_older_generation(shapes: Shapes, backbone: str) -> None:
    coarsest, next_one = _PATCH_CONVOLUTION.format(0), _PATCH_CONVOLUTION.format(1)
    if coarsest not in shapes and next_one in shapes:
        published = keymap.to_published([coarsest], BiRefNetConfig(backbone=backbone))[coarsest]
        raise CheckpointError(
            "this is the older generation of BiRefNet (March to May 2024) without the coarsest patch injection "
            f"({published}), which a different network computed. Use a current checkpoint such as BiRefNet or "
            "BiRefNet-legacy."
        )


def _detect_block(shapes: Shapes) -> str:
    if f"{_FIRST_BLOCK}aspp.branches.1.conv.offset.weight" in shapes:
        return "deformable_aspp"
    if f"{_FIRST_BLOCK}aspp.branches.1.conv.weight" in shapes:
        return "aspp"
    if f"{_FIRST_BLOCK}0.conv1.weight" in shapes:
        return "residual"
    raise CheckpointError("the decoder's blocks are of a kind that is not supported, or missing.")


def newer_generation(file_name: str, names: Iterable[str]) -> str:
    """What to say of a file that could not be loaded and looks like BiRefNet v2, else an empty string.

    Version 2 is announced, on a DINOv3 encoder, and not published: its name and that of such an encoder are all there
    is to go by.
    """
    names = list(names)
    named = re.search(r"birefnet[-_ ]?(v2|2)(?![0-9k])", file_name, re.IGNORECASE)
    encoder = any("dinov3" in name.lower() or "storage_tokens" in name or "register_tokens" in name for name in names)
    decoder = any(name.startswith(("decoder.", "squeeze_module.")) for name in names)
    if not (named or (encoder and decoder)):
        return ""
    return " This looks like BiRefNet v2, which this version does not have: update this package, or use BiRefNet."
