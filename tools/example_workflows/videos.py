"""Examples that work on video."""

from typing import Any

from .parts import Example, Node, apply, image, load, node, segment

CLIP_NODES = {
    "image": image(),
    "frames": node("RepeatImageBatch", image=("image", 0), amount=12),
    "clip": node("CreateVideo", images=("frames", 0), fps=12.0),
}
CLIP_GROUP = ("A clip of one image", tuple(CLIP_NODES))
CLIP_NOTE = "The clip is one image, shown for a second: connect **Load Video** in its place. "


def clip_node(output: str, prefix: str, **inputs: Any) -> Node:
    return node(
        "BiRefNetSegmentVideo", model=("model", 0), video=("clip", 0), output=output, filename_prefix=prefix, **inputs
    )


VIDEOS = (
    Example(
        "Video to Transparent WebM (BiRefNet)",
        (CLIP_NODES, {"model": load()}, {"video": clip_node("WebM with alpha", "video/cutout", smoothing=2)}),
        shown="video",
        group=CLIP_GROUP,
        note=CLIP_NOTE + "WebM with alpha (VP9) plays in browsers and is small.",
    ),
    Example(
        "Video to ProRes 4444 (BiRefNet)",
        (CLIP_NODES, {"model": load()}, {"video": clip_node("ProRes with alpha", "video/cutout", smoothing=2)}),
        shown="video",
        group=CLIP_GROUP,
        note=CLIP_NOTE
        + "ProRes 4444 with alpha (MOV) is for editing programs, and large. Browsers do not play it; the file is in "
        "output/video.",
    ),
    Example(
        "Video over Another Clip (BiRefNet)",
        (
            CLIP_NODES,
            {
                "model": load(),
                "day": node("EmptyImage", "First half", width=640, height=640, batch_size=6, color=0x7FB3E6),
                "dusk": node("EmptyImage", "Second half", width=640, height=640, batch_size=6, color=0xE08E5A),
            },
            {
                "scenes": node("BatchImagesNode", **{"images.image0": ("day", 0), "images.image1": ("dusk", 0)}),
                "background": node("CreateVideo", "The clip behind: or Load Video", images=("scenes", 0), fps=12.0),
            },
            {"video": clip_node("over background", "video/over", background_video=("background", 0))},
        ),
        shown="video",
        group=CLIP_GROUP,
        note=CLIP_NOTE + "The same for the clip behind, *background_video*; it begins again when it ends first.",
    ),
    Example(
        "Video over a Color (BiRefNet)",
        (
            CLIP_NODES,
            {"model": load()},
            {"video": clip_node("over color", "", color="#00b140")},
            {
                "save": node("SaveVideo", video=("video", 0), filename_prefix="video/over_a_color"),
                "save_mask": node("SaveVideo", "Save the mask", video=("video", 1), filename_prefix="video/mask"),
            },
        ),
        shown="save",
        group=CLIP_GROUP,
        note=CLIP_NOTE + "An empty *filename_prefix* hands the clips on, here to **Save Video**.",
    ),
    Example(
        "Video Frame by Frame (BiRefNet)",
        (
            CLIP_NODES,
            {"model": load(), "parts": node("GetVideoComponents", video=("clip", 0))},
            {
                "segment": segment(image="parts"),
                "refine": node("BiRefNetRefineMask", mask=("segment", 0), image=("segment", 1), temporal_radius=2),
            },
            {"apply": apply(mask="refine", output="over color", color="#00b140")},
            {
                "result": node("CreateVideo", images=("apply", 0), audio=("parts", 1), fps=("parts", 2)),
                "save": node("SaveVideo", video=("result", 0), filename_prefix="video/frames"),
            },
        ),
        shown="apply",
        group=CLIP_GROUP,
        note=CLIP_NOTE
        + "All frames are in memory here, for other image nodes between; the video nodes hold a few only.",
    ),
)
