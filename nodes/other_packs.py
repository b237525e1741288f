"""Nodes with the inputs of other packs' nodes, which take their places in workflows where a pack is not installed.

Their inputs have the names and the values of the originals, so that every value of an old workflow arrives; hence they
differ from our own nodes, do not appear in ComfyUI's search, and are no start for new workflows. What an input chose
that is a matter of speed alone (how a mask is enlarged, where the model lies between runs) is taken and not used.
"""

from __future__ import annotations

import logging
from typing import Any

from PIL.ImageColor import getrgb

from ..birefnet_core import ConfigError
from .comfy_compat import BackgroundRemovalType, BiRefNetModelType, core, io, pick, schema
from .inputs import checked, expect
from .model_folders import DEFAULT_MODEL, check_model_name, file_stamp, known_as
from .model_handle import ModelHandle, load
from .tensors import computed, in_color, progress_bar

logger = logging.getLogger(__name__)

DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}
UPSCALE_METHODS = ["bilinear", "nearest", "nearest-exact", "bicubic"]
# Of files of March 2024, which ComfyUI-BiRefNet and ComfyUI-BiRefNet-ZHO were made for.
SUCCESSORS = {"BiRefNet-ep480": "BiRefNet", "BiRefNet-DIS_ep580": "BiRefNet-DIS5K"}


def _schema(name: str, of: str, inputs: list, outputs: list) -> io.Schema:
    return schema(
        node_id=name,
        display_name=f"BiRefNet, as {of}",
        category="BiRefNet/other packs",
        description=f"Takes the place of {of} in workflows where that pack is not installed. "
        "For new workflows take BiRefNet Segment, BiRefNet Apply Alpha or Background Removal (BiRefNet).",
        is_deprecated=True,
        inputs=inputs,
        outputs=outputs,
    )


def _model_input() -> io.String.Input:
    """Text, as ComfyUI's page takes a value that is not in a list for a model that is missing."""
    tooltip = "A name from the list of Load BiRefNet Model, or the name another pack gave the file."
    return io.String.Input("model", default=DEFAULT_MODEL, tooltip=tooltip)


def _picture_and_mask() -> list:
    return [io.Image.Output("cutout", display_name="image"), io.Mask.Output("alpha", display_name="mask")]


def model_value(name: Any) -> str:
    """What our load node calls the model that a value of another pack's node means.

    Values are file names, short names, repositories after "Auto_DownLoad-", and folders in models/rembg. An early
    ComfyUI-BiRefNet-Hugo has a switch in this place, and only one model.
    """
    if not isinstance(name, str) or name in ("", "True", "False"):
        return DEFAULT_MODEL
    name = name.removeprefix("Auto_DownLoad-")
    if name.startswith("models--"):
        name = name.removeprefix("models--").replace("--", "/")
    entry = known_as(name)
    if entry is not None and entry.name in SUCCESSORS:
        successor = SUCCESSORS[entry.name]
        logger.warning("%s is for a network of March 2024, which is not in this pack: %s is used.", name, successor)
        return successor
    if entry is None and check_model_name(name) is not True and check_model_name(f"{name}/model.safetensors") is True:
        return f"{name}/model.safetensors"  # a folder of a model, as transformers keeps them
    return entry.name if entry is not None and "/" in name else name


def _load(model: Any, device: Any = "auto", dtype: Any = "auto") -> ModelHandle:
    precision = DTYPES.get(dtype, "auto") if isinstance(dtype, str) else "auto"
    return load(model_value(model), precision, "cpu" if str(device).lower() == "cpu" else "auto", "auto")


def _color(value: Any) -> tuple[int, ...]:
    """Red, green and blue of a colour's name or number."""
    try:
        return getrgb(str(value).strip())[:3]
    except ValueError as error:
        raise ConfigError(f"color is {value!r}, expected a name such as green, or #rrggbb.") from error


def _cut_out(node, image, mask, output: str, colors: str | None, color: Any = "#000000") -> io.NodeOutput:
    masks = core(".masks")
    options = masks.CutoutOptions(output=output, colors=colors, color=_color(color))

    def cut_out(image, mask):
        return masks.cut_out(image, mask, options, progress=progress_bar())

    return io.NodeOutput(*computed(node, cut_out, in_color(image), mask))


def _stretched(masks):
    """Each mask stretched to 0 and 1, as ComfyUI-BiRefNet-ZHO and -Hugo do."""
    low, high = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
    return ((masks - low) / (high - low).clamp(min=1e-6)).where(high > low, masks)


class _Named(io.ComfyNode):
    """A node that is given a model by name."""

    @classmethod
    def validate_inputs(cls, model) -> bool | str:
        return True if model is None else check_model_name(model_value(model))

    @classmethod
    def fingerprint_inputs(cls, model, **inputs) -> str:
        return file_stamp(None if model is None else model_value(model))


class BiRefNetOtherPackLoadModel(_Named):
    """AutoDownloadBiRefNetModel and LoadRembgByBiRefNetModel of ComfyUI_BiRefNet_ll, the loader of -ZHO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "BiRefNetOtherPackLoadModel",
            "the loaders of ComfyUI_BiRefNet_ll and ComfyUI-BiRefNet-ZHO",
            inputs=[
                _model_input(),
                io.Combo.Input("device", options=["AUTO", "CPU"], default="AUTO", optional=True),
                io.Combo.Input("dtype", options=["auto", "float32", "float16"], default="auto", optional=True),
            ],
            outputs=[
                BiRefNetModelType.Output("birefnet_model", display_name="model"),
                BackgroundRemovalType.Output("bg_model", display_name="bg_model"),
            ],
        )

    @classmethod
    @checked
    def execute(cls, model, device="AUTO", dtype="auto") -> io.NodeOutput:
        handle = _load(model, device, dtype)
        return io.NodeOutput(handle, handle)


def _ll_size() -> list:
    return [
        io.Int.Input("width", default=1024, min=0, max=16384),
        io.Int.Input("height", default=1024, min=0, max=16384),
        io.Combo.Input("upscale_method", options=UPSCALE_METHODS, default="bilinear"),
    ]


def _ll_colors() -> list:
    return [
        io.Int.Input("blur_size", default=90, min=1, max=255),
        io.Int.Input("blur_size_two", default=6, min=1, max=255),
        io.Boolean.Input("fill_color", default=False),
        io.Int.Input("color", default=0, min=0, max=0xFFFFFF),
    ]


def _ll_masks(model: ModelHandle, images, width: int, height: int, threshold: float):
    expect(model, ModelHandle, "model", "AutoDownloadBiRefNetModel or Load BiRefNet Model")
    masks = model.segment(images, (max(width, 32), max(height, 32)))
    return masks.where(masks > threshold, 0)


def _ll_cut_out(node, images, masks, fill_color: bool, color: int) -> io.NodeOutput:
    return _cut_out(node, images, masks, "color" if fill_color else "rgba", "blur_fusion", f"#{color:06x}")


class BiRefNetOtherPackMask(io.ComfyNode):
    """GetMaskByBiRefNet of ComfyUI_BiRefNet_ll."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        threshold = io.Float.Input("mask_threshold", default=0.0, min=0.0, max=1.0, step=0.004)
        return _schema(
            "BiRefNetOtherPackMask",
            "GetMaskByBiRefNet",
            inputs=[BiRefNetModelType.Input("model"), io.Image.Input("images"), *_ll_size(), threshold],
            outputs=[io.Mask.Output("mask")],
        )

    @classmethod
    @checked
    def execute(cls, model, images, width, height, upscale_method, mask_threshold) -> io.NodeOutput:
        return io.NodeOutput(_ll_masks(model, images, width, height, mask_threshold))


class BiRefNetOtherPackCutout(io.ComfyNode):
    """RembgByBiRefNetAdvanced and RembgByBiRefNet of ComfyUI_BiRefNet_ll."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        threshold = io.Float.Input("mask_threshold", default=0.0, min=0.0, max=1.0, step=0.001)
        inputs = [BiRefNetModelType.Input("model"), io.Image.Input("images"), *_ll_size(), *_ll_colors(), threshold]
        return _schema("BiRefNetOtherPackCutout", "RembgByBiRefNetAdvanced", inputs, _picture_and_mask())

    @classmethod
    @checked
    def execute(
        cls, model, images, width, height, upscale_method, blur_size, blur_size_two, fill_color, color, mask_threshold
    ) -> io.NodeOutput:
        masks = _ll_masks(model, images, width, height, mask_threshold)
        return _ll_cut_out(cls, images, masks, fill_color, color)


class BiRefNetOtherPackForeground(io.ComfyNode):
    """BlurFusionForegroundEstimation of ComfyUI_BiRefNet_ll."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Image.Input("images"), io.Mask.Input("masks"), *_ll_colors()]
        return _schema("BiRefNetOtherPackForeground", "BlurFusionForegroundEstimation", inputs, _picture_and_mask())

    @classmethod
    @checked
    def execute(cls, images, masks, blur_size, blur_size_two, fill_color, color) -> io.NodeOutput:
        return _ll_cut_out(cls, images, masks, fill_color, color)


class BiRefNetOtherPackZHO(io.ComfyNode):
    """BiRefNet_Zho of ComfyUI-BiRefNet-ZHO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [BiRefNetModelType.Input("birefnetmodel"), io.Image.Input("image")]
        return _schema("BiRefNetOtherPackZHO", "BiRefNet of ComfyUI-BiRefNet-ZHO", inputs, _picture_and_mask())

    @classmethod
    @checked
    def execute(cls, birefnetmodel, image) -> io.NodeOutput:
        expect(birefnetmodel, ModelHandle, "birefnetmodel", "BiRefNet_ModelLoader_Zho or Load BiRefNet Model")
        return _cut_out(cls, image, _stretched(birefnetmodel.segment(image, 1024)), "premultiplied", None)


class BiRefNetOtherPackHugo(_Named):
    """BiRefNet_Hugo of ComfyUI-BiRefNet-Hugo."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        colors = ["transparency", "green", "white", "red", "yellow", "blue", "black"]
        dtypes = ["auto", "fp16", "bf16", "fp32"]
        return _schema(
            "BiRefNetOtherPackHugo",
            "BiRefNet of ComfyUI-BiRefNet-Hugo",
            inputs=[
                _model_input(),
                io.Image.Input("image"),
                io.Combo.Input("background_color_name", options=colors, default="transparency"),
                io.String.Input("background_color_code", default="#00FF00"),
                io.Boolean.Input("background_color_mode", default=True, optional=True),
                io.Combo.Input("device", options=["auto", "cpu"], default="auto", optional=True),
                io.Combo.Input("dtype", options=dtypes, default="auto", optional=True),
            ],
            outputs=_picture_and_mask(),
        )

    @classmethod
    def validate_inputs(cls, model, background_color_name, device="auto", dtype="auto") -> bool | str:
        return super().validate_inputs(model)  # the others have had more values than are listed

    @classmethod
    @checked
    def execute(
        cls, model, image, background_color_name, background_color_code,
        background_color_mode=True, device="auto", dtype="auto",
    ) -> io.NodeOutput:  # fmt: skip
        color = background_color_name if background_color_mode else f"#{background_color_code.lstrip('#')}"
        transparent = color == "transparency"
        if not transparent:
            _color(color)  # told before the work
        masks = _stretched(_load(model, device, dtype).segment(image, 1024))
        if transparent:
            return _cut_out(cls, image, masks, "premultiplied", None)
        return _cut_out(cls, image, masks, "color", None, color)


class BiRefNetOtherPackRMBG(_Named):
    """BiRefNetRMBG of ComfyUI-RMBG."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "BiRefNetOtherPackRMBG",
            "BiRefNet (RMBG)",
            inputs=[
                io.Image.Input("image"),
                _model_input(),
                io.Int.Input("mask_blur", default=0, min=0, max=64, optional=True),
                io.Int.Input("mask_offset", default=0, min=-20, max=20, optional=True),
                io.Boolean.Input("invert_output", default=False, optional=True),
                io.Boolean.Input("refine_foreground", default=False, optional=True),
                io.Combo.Input("background", options=["Alpha", "Color"], default="Alpha", optional=True),
                io.String.Input("background_color", default="#222222", optional=True),
            ],
            outputs=[
                io.Image.Output("cutout", display_name="IMAGE"),
                io.Mask.Output("alpha", display_name="MASK"),
                io.Image.Output("mask_image", display_name="MASK_IMAGE"),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, image, model, mask_blur=0, mask_offset=0, invert_output=False, refine_foreground=False,
        background="Alpha", background_color="#222222",
    ) -> io.NodeOutput:  # fmt: skip
        output = pick({"Alpha": "rgba", "Color": "color"}, background, "background")
        _color(background_color)  # told before the work
        masks = core(".masks")
        options = masks.RefineOptions(feather=mask_blur, grow=mask_offset, invert=invert_output)

        def refine(mask):
            return masks.refine_mask(mask, options, progress=progress_bar())

        mask = computed(cls, refine, _load(model).segment(image))
        colors = "blur_fusion" if refine_foreground else None
        cutout, alpha = _cut_out(cls, image, mask, output, colors, background_color).result
        return io.NodeOutput(cutout, alpha, alpha[..., None].expand(-1, -1, -1, 3))


NODES: list[type[io.ComfyNode]] = [
    BiRefNetOtherPackLoadModel,
    BiRefNetOtherPackMask,
    BiRefNetOtherPackCutout,
    BiRefNetOtherPackForeground,
    BiRefNetOtherPackZHO,
    BiRefNetOtherPackHugo,
    BiRefNetOtherPackRMBG,
]
