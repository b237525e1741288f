"""BiRefNetSegmentVideo: a clip -> its subject as a clip, and its masks as another."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from .apply_alpha import COLOURS, FITS
from .comfy_compat import (
    ADVANCED,
    BiRefNetModelType,
    VideoFromFile,
    VideoInput,
    color_input,
    core,
    io,
    opaque,
    pick,
    schema,
)  # fmt: skip
from .inputs import checked, expect
from .model_handle import ModelHandle
from .segment import SIZES, flip_input, frames_per_step_input
from .tensors import FramesBar
from .video_files import Part, background_file, opened, result_files, temporary_folder

logger = logging.getLogger(__name__)

OVER_BACKGROUND = "over background"
OUTPUTS = {
    "WebM with alpha": ("cutout", ".webm"),
    "ProRes with alpha": ("cutout", ".mov"),
    "over color": ("composite", ".mp4"),
    OVER_BACKGROUND: ("composite", ".mp4"),
}
MASK_FILES = {"MP4": ".mp4", "lossless MKV": ".mkv"}


class BiRefNetSegmentVideo(io.ComfyNode):
    """Segments a clip frame by frame, in memory that does not grow with it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetSegmentVideo",
            display_name="BiRefNet Segment Video",
            description="A clip in; its subject with transparency or over another background out, and its mask as a "
            "clip. Frames go through one after the other, so a long clip needs no more memory than a short one.",
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=_inputs(),
            outputs=[
                io.Video.Output("cutout", display_name="video", tooltip="The clip as chosen, with the clip's sound."),
                io.Video.Output("mask", tooltip="White on the subject, grey at soft edges, without sound."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, model, video, output, color, background_fit, colors, smoothing, mask_file, size, filename_prefix,
        background=None, background_video=None, **options
    ) -> io.NodeOutput:  # fmt: skip
        expect(model, ModelHandle, "model", "Load BiRefNet Model")
        expect(video, VideoInput, "video", "Load Video")
        kind, suffix = pick(OUTPUTS, output, "output")
        mask_suffix = pick(MASK_FILES, mask_file, "mask_file")
        options |= {"size": pick(SIZES, size, "size"), "colors": pick(COLOURS, colors, "colors"), "radius": smoothing}
        cutout = {"kind": kind, "fit": pick(FITS, background_fit, "background_fit")}
        with (
            temporary_folder() as folder,
            opened(video) as part,
            result_files(filename_prefix, suffix, mask_suffix, part.size) as files,
        ):
            if output == OVER_BACKGROUND:
                color = background_file(background, background_video, folder)
            cutout |= {"path": files.video, "background": opaque(color) if kind == "composite" else None}
            _run(model, part, cutout, files.mask, FramesBar(cls), **options)
        return io.NodeOutput(*(VideoFromFile(str(path)) for path in (files.video, files.mask)), ui=files.preview)


def _run(
    handle: ModelHandle,
    part: Part,
    cutout: dict[str, Any],
    mask: Path,
    bar: FramesBar,
    *,
    size: Any,
    radius: int,
    frames_per_step: int = 0,
    **options: Any,
) -> None:
    """Writes a clip and its masks.

    Args:
        handle: The model.
        part: What is read.
        cutout: Arguments of the core's ``Output`` for the clip.
        mask: Path of the masks' clip.
        bar: Gets the progress.
        size: For the network.
        radius: Frames before and after that masks are averaged with.
        frames_per_step: Frames that go through the network together; 0 for as many as fit.
        options: Of the core's ``VideoOptions``.
    """
    video, masks = core(".video"), core(".masks")
    report = video.segment_video(
        handle.loaded_segmenter(*reversed(part.size), size, frames_per_step=frames_per_step),
        part.source,
        [video.Output(**cutout), video.Output(path=mask, kind="mask")],
        options=video.VideoOptions(
            size=size,
            refine=masks.RefineOptions(temporal_radius=radius),
            start_time=part.start_time,
            duration=part.duration,
            **options,
        ),
        progress=bar,
        cancelled=bar.cancelled,
    )
    done = f"{report.frames} frames, {report.frames_per_second:.1f} per second"
    lines = [done, *([report.damage] if report.damage else []), *report.notes]
    logger.log(logging.WARNING if report.damage else logging.INFO, "BiRefNet Segment Video: %s", "; ".join(lines))
    bar.finish("\n".join(lines))


def _inputs() -> list[Any]:
    return [
        BiRefNetModelType.Input("model", tooltip="From Load BiRefNet Model."),
        io.Video.Input("video", tooltip="From Load Video, or any video. A trim of ComfyUI's nodes is kept."),
        io.Combo.Input(
            "output",
            options=list(OUTPUTS),
            default=next(iter(OUTPUTS)),
            tooltip="WebM with alpha: VP9 for browsers, small. ProRes with alpha: MOV for editing, large. over color, "
            "over background: MP4 without transparency.",
        ),
        color_input("color", "#00b140", "For output over color. Over a link also as red,green,blue from 0 to 255."),
        io.Combo.Input(
            "background_fit",
            options=list(FITS),
            default="fill",
            tooltip="How a background of another shape is placed. fill: covers the frame. fit: shows all of it between "
            "bars. stretch: changes its proportions.",
        ),
        io.Combo.Input(
            "colors",
            options=list(COLOURS),
            default="multilevel",
            tooltip="How the subject's own colors are estimated. multilevel: best. blur fusion: as published with the "
            "network. off: the frames as they are, faster, with fringes of the old background.",
        ),
        io.Int.Input(
            "smoothing",
            default=0,
            min=0,
            max=8,
            tooltip="Against flicker: each mask is averaged with those of so many frames before and after, along the "
            "motion. 0: off; 1 to 3 are usual.",
        ),
        io.Combo.Input(
            "mask_file",
            options=list(MASK_FILES),
            default="MP4",
            tooltip="File of the mask. MP4: H.264, plays everywhere. lossless MKV: FFV1 with 16 bits of grey.",
        ),
        io.Combo.Input(
            "size",
            options=list(SIZES),
            default=next(iter(SIZES)),
            tooltip="Size frames are stretched to for the network. The training size is the safe choice; native suits "
            "the dynamic checkpoints.",
        ),
        io.String.Input(
            "filename_prefix",
            default="video/BiRefNet",
            tooltip="Files get this name and a number in ComfyUI's output folder. Empty: temporary files, for nodes "
            "that follow.",
        ),
        io.Boolean.Input(
            "tiled",
            default=False,
            optional=True,
            tooltip="For frames larger than the size: refines uncertain edges in tiles at full resolution. Takes up to "
            "one network pass more for every tile.",
            **ADVANCED,
        ),
        flip_input("frame"),
        io.Int.Input(
            "every",
            default=1,
            min=1,
            max=8,
            optional=True,
            tooltip="The network runs on one of so many frames, and on more where the clip moves; the masks between "
            "follow the motion. Faster and less exact. 1: on all.",
            **ADVANCED,
        ),
        frames_per_step_input("Frames"),
        io.Boolean.Input(
            "keep_partial",
            default=False,
            optional=True,
            tooltip="If the clip turns out to be damaged: keeps the frames before instead of ending with an error.",
            **ADVANCED,
        ),
        io.Image.Input("background", optional=True, tooltip="For output over background: one picture."),
        io.Video.Input(
            "background_video",
            optional=True,
            tooltip="For output over background: a clip, used if there is no picture. It begins again when it ends "
            "first.",
        ),
    ]
