"""What the example workflows are: their nodes in columns, with the values and links that differ from the defaults.

`tools/refresh_examples.py` makes the files of `example_workflows/` from this list. ComfyUI's Templates dialog shows and
searches the file's name only, so the name is the title. Its search finds a word only near the beginning of a title:
"BiRefNet" within the first 33 characters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FOLDER = "birefnet_examples"  # within ComfyUI's input folder: see nodes/example_inputs.py
EXAMPLE, SECOND = f"{FOLDER}/dancer.jpg", f"{FOLDER}/composite_face.jpg"
NEEDS_MODEL = {"CheckpointLoaderSimple"}  # nodes that load what neither ComfyUI nor this pack brings
ON_DEMO = (
    "**demo** comes with the pack. It is small: for your own photographs choose **BiRefNet** in its place, which is "
    "downloaded once (444 MB)."
)


@dataclass(frozen=True)
class Node:
    """A node of an example.

    Args:
        kind: Its id in ComfyUI.
        inputs: Values by name of the input; a link is a tuple of the other node's key and the number of its output.
        title: Shown in place of its display name.
        models: Files it needs, which ComfyUI offers to download.
    """

    kind: str
    inputs: dict[str, Any]
    title: str = ""
    models: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Example:
    """A workflow.

    Args:
        name: Title and file name.
        columns: Nodes by key, from left to right.
        shown: The node whose output its thumbnail shows beside the image.
        note: Markdown; the first node.
        app: Inputs (node key, widget) of App mode; empty: a graph.
        group: A title and the keys of the nodes it stands around.
    """

    name: str
    columns: tuple[dict[str, Node], ...]
    shown: str
    note: str
    app: tuple[tuple[str, str], ...] = ()
    group: tuple[str, tuple[str, ...]] = ("", ())
    file: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", f"{self.name}.json")

    @property
    def nodes(self) -> dict[str, Node]:
        return {key: node for column in self.columns for key, node in column.items()}

    @property
    def runs_at_once(self) -> bool:
        """Whether a fresh ComfyUI has all it needs."""
        return not any(node.kind in NEEDS_MODEL for node in self.nodes.values())


def node(kind: str, title: str = "", models: tuple[dict[str, str], ...] = (), **inputs: Any) -> Node:
    return Node(kind, inputs, title, models)


def load(title: str = "") -> Node:
    return node("BiRefNetLoadModel", title, model="demo")


def image(name: str = EXAMPLE) -> Node:
    return node("LoadImage", image=name)


def segment(title: str = "", image: str = "image", model: str = "model", **inputs: Any) -> Node:
    return node("BiRefNetSegment", title, model=(model, 0), image=(image, 0), **inputs)


def apply(title: str = "", image: tuple[str, int] = ("segment", 1), mask: str = "segment", **inputs: Any) -> Node:
    return node("BiRefNetApplyAlpha", title, image=image, mask=(mask, 0), **inputs)


def save(source: str, prefix: str, title: str = "") -> Node:
    return node("SaveImage", title, images=(source, 0), filename_prefix=prefix)


START = {"image": image(), "model": load()}
CLIP_NODES = {
    "image": image(),
    "frames": node("RepeatImageBatch", image=("image", 0), amount=12),
    "clip": node("CreateVideo", images=("frames", 0), fps=12.0),
}
CLIP_GROUP = ("A clip made of the image: Load Video takes its place", tuple(CLIP_NODES))
CLIP_NOTE = "The clip is one image, shown for a second, so that the example runs at once. Yours: connect **Load Video** to *video*. "


def clip_node(output: str, prefix: str, **inputs: Any) -> Node:
    return node(
        "BiRefNetSegmentVideo", model=("model", 0), video=("clip", 0), output=output, filename_prefix=prefix, **inputs
    )


EXAMPLES = (
    Example(
        "Remove Background in One Node (BiRefNet)",
        (
            {"image": image()},
            {"cutout": node("BiRefNetRemoveBackground", image=("image", 0), model="demo")},
            {"save": save("cutout", "cutout")},
        ),
        shown="cutout",
        note="Image in, transparent cut-out out. " + ON_DEMO,
    ),
    Example(
        "Cut Out to Transparent PNG (BiRefNet)",
        (START, {"segment": segment()}, {"apply": apply()}, {"save": save("apply", "cutout")}),
        shown="apply",
        note="The usual chain: load, segment, apply alpha. " + ON_DEMO,
    ),
    Example(
        "App - Cut Out an Image (BiRefNet)",
        (START, {"segment": segment()}, {"apply": apply()}, {"save": save("apply", "cutout", "Cut-out")}),
        shown="apply",
        app=(
            ("image", "image"), ("model", "model"), ("apply", "output"), ("apply", "color"), ("apply", "crop"),
        ),
        note="Opens as an app: choose an image and press Run. " + ON_DEMO,
    ),  # fmt: skip
    Example(
        "App - Cut Out a Folder (BiRefNet)",
        (
            {"image": node("LoadImageDataSetFromFolder", folder=FOLDER), "model": load()},
            {"segment": segment()},
            {"apply": apply()},
            {"save": save("apply", "folder/cutout", "Cut-outs")},
        ),
        shown="apply",
        app=(("image", "folder"), ("model", "model"), ("apply", "output"), ("apply", "color"), ("apply", "crop")),
        note="Opens as an app: every image of a folder is cut out. The list has the folders within ComfyUI's `input` "
        "folder; put yours there. `birefnet_examples` comes with the pack. " + ON_DEMO,
    ),
    Example(
        "Replace Background (BiRefNet)",
        (
            START,
            {"segment": segment()},
            {
                "sky": node("EmptyImage", "Upper color", width=64, height=64, color=0x3F6FB5),
                "ground": node("EmptyImage", "Lower color", width=64, height=64, color=0xF2C48D),
            },
            {"background": node("ImageStitch", image1=("sky", 0), image2=("ground", 0), direction="down")},
            {
                "blur": node("ImageBlur", image=("background", 0), blur_radius=31, sigma=10.0),
                "apply": apply(output="over background", background=("blur", 0)),
            },
            {"save": save("apply", "new_background")},
        ),
        shown="apply",
        group=("A background of two colors: Load Image takes its place", ("sky", "ground", "background", "blur")),
        note="The subject over another background. Yours: connect **Load Image** to *background* of Apply Alpha. "
        + ON_DEMO,
    ),
    Example(
        "Blur Background (BiRefNet)",
        (
            START,
            {"segment": segment(), "blur": node("ImageBlur", image=("image", 0), blur_radius=25, sigma=9.0)},
            {"apply": apply(output="over background", background=("blur", 0))},
            {"save": save("apply", "blurred_background")},
        ),
        shown="apply",
        note="The subject stays sharp over a blurred copy of its own image, as a lens with a wide aperture shows it. "
        + ON_DEMO,
    ),
    Example(
        "Hair and Soft Edges (BiRefNet)",
        (
            START,
            {"segment": segment(), "mask": node("MaskPreview", mask=("segment", 0))},
            {
                "apply": apply("Colors estimated", output="over color", color="#2d6cdf"),
                "plain": apply("Colors left as they are", output="over color", color="#2d6cdf", colors="off"),
            },
            {
                "save": save("apply", "colors_estimated", "Colors estimated"),
                "save_plain": save("plain", "colors_left", "Colors left as they are"),
            },
        ),
        shown="apply",
        note="*colors* of Apply Alpha takes the old background out of hair and other soft edges: compare the two "
        "results there. For hair choose **BiRefNet_HR-matting** in place of **demo** (444 MB, downloaded once).",
    ),
    Example(
        "Box around the Subject (BiRefNet)",
        (
            START,
            {
                "box": node(
                    "BiRefNetBoxSubject", image=("image", 0), region={"x": 80, "y": 0, "width": 200, "height": 400}
                )
            },
            {"segment": segment(box=("box", 0))},
            {"apply": apply(crop=True)},
            {"save": save("apply", "box")},
        ),
        shown="apply",
        note="Only what is in the box is segmented: drag it on the image (Nodes 2.0; run once for the image to show), "
        "or type its numbers. " + ON_DEMO,
    ),
    Example(
        "Point at the Subject (BiRefNet)",
        (
            {
                "one": image(),
                "other": image(SECOND),
                "image": node("ImageStitch", image1=("one", 0), image2=("other", 0), direction="right"),
            },
            {
                "model": load(),
                "where": node("PrimitiveStringMultiline", "Points, if nothing is painted", value='[{"x": 190, "y": 200}]'),
                "points": node("BiRefNetPointAtSubject", image=("image", 0), coordinates=("where", 0)),
            },
            {"segment": segment(points=("points", 0))},
            {"apply": apply()},
            {"save": save("apply", "chosen")},
        ),
        shown="apply",
        group=("An image with two subjects: Load Image takes its place", ("one", "other", "image")),
        note="Of two subjects the one with a mark stays. Paint a dab on the one you mean (Nodes 2.0; run once for the "
        "image to show) and empty the list of points, or type points in pixels. " + ON_DEMO,
    ),
    Example(
        "Clean Up a Mask (BiRefNet)",
        (
            START,
            {"segment": segment(), "before": node("MaskPreview", "Mask before", mask=("segment", 0))},
            {
                "refine": node(
                    "BiRefNetRefineMask", mask=("segment", 0), image=("segment", 1), black_point=0.1, white_point=0.9,
                    keep_largest=True, max_hole_area=400, grow=1,
                )
            },
            {
                "trimap": node("BiRefNetTrimap", mask=("refine", 0)),
                "apply": apply(mask="refine"),
            },
            {"save": save("apply", "refined")},
        ),
        shown="apply",
        note="Haze is cut off, small parts go, holes are filled. The trimap, with grey where the edge is not sure, is "
        "for matting nodes. " + ON_DEMO,
    ),  # fmt: skip
    Example(
        "Crop, Edit and Stitch Back (BiRefNet)",
        (
            START,
            {"segment": segment()},
            {"crop": node("BiRefNetCropAroundSubject", image=("segment", 1), mask=("segment", 0), padding=0.05)},
            {"edit": node("ImageInvert", "Your own work takes the place of this", image=("crop", 0))},
            {"stitch": node("BiRefNetStitchBack", stitch=("crop", 2), image=("edit", 0), mask=("crop", 1), blend=2)},
            {"save": save("stitch", "stitched")},
        ),
        shown="stitch",
        note="Only the part around the subject is worked on, at full resolution, and put back where the mask is. *Invert "
        "Image* stands for your own work: an inpainting model, an upscaler, a color correction. " + ON_DEMO,
    ),
    Example(
        "Compare Two Checkpoints (BiRefNet)",
        (
            {"image": image(), "model": load("First checkpoint"), "other": load("Second checkpoint")},
            {
                "segment": segment("Segment with the first"),
                "segment_other": segment("Segment with the second", model="other", flip=True),
            },
            {
                "compare": node("BiRefNetCompareMasks", mask=("segment", 0), ground_truth=("segment_other", 0)),
                "first": node("MaskPreview", "Mask of the first", mask=("segment", 0)),
            },
            {
                "errors": node("PreviewImage", "Where they differ", images=("compare", 1)),
                "second": node("MaskPreview", "Mask of the second", mask=("segment_other", 0)),
            },
        ),
        shown="errors",
        note="Two masks of one image and where they differ (vermilion, blue). Both loaders hold **demo**, the second mask "
        "with *flip*: choose your own file of `models/birefnet`, such as `best.safetensors` of a fine-tuning, in one.",
    ),
    Example(
        "SAM3 Text to Clean Mask (BiRefNet, needs SAM3)",
        (
            {
                "sam": node(
                    "CheckpointLoaderSimple",
                    "Load SAM3",
                    models=(
                        {
                            "name": "sam3.1_multiplex_fp16.safetensors",
                            "url": "https://huggingface.co/Comfy-Org/sam3.1/resolve/main/checkpoints/"
                            "sam3.1_multiplex_fp16.safetensors",
                            "directory": "checkpoints",
                        },
                    ),
                    ckpt_name="sam3.1_multiplex_fp16.safetensors",
                ),
                "image": image(),
            },
            {
                "text": node("CLIPTextEncode", "What to cut out", clip=("sam", 1), text="person"),
                "detect": node("SAM3_Detect", model=("sam", 0), image=("image", 0), conditioning=("text", 0)),
                "model": load(),
            },
            {
                "segment": segment("Edges by BiRefNet, around SAM3's mask", region=("detect", 0)),
                "rough": node("MaskPreview", "SAM3's mask", mask=("detect", 0)),
            },
            {"apply": apply()},
            {"save": save("apply", "sam3")},
        ),
        shown="apply",
        note="**Needs the model SAM3** (`sam3.1_multiplex_fp16.safetensors` in `models/checkpoints`) and a ComfyUI with "
        "the node *SAM3 Detect* (0.21 and newer). SAM3 finds what the text names, BiRefNet draws its edges: SAM3's mask "
        "is the *region*; its *bboxes* fit *box* as well. " + ON_DEMO,
    ),
    Example(
        "New Background by Diffusion (BiRefNet, needs an inpainting model)",
        (
            {
                "image": image(),
                "model": load(),
                "checkpoint": node("CheckpointLoaderSimple", ckpt_name="your_inpainting_model.safetensors"),
            },
            {
                "segment": segment(),
                "positive": node("CLIPTextEncode", clip=("checkpoint", 1), text="a sunlit garden, photograph"),
                "negative": node("CLIPTextEncode", clip=("checkpoint", 1), text="blurry, low quality"),
            },
            {
                "around": node("BiRefNetRefineMask", "Mask of the background", mask=("segment", 0), grow=4, invert=True),
                "latent": node(
                    "VAEEncodeForInpaint", pixels=("segment", 1), vae=("checkpoint", 2), mask=("around", 0), grow_mask_by=0
                ),
            },
            {
                "sample": node(
                    "KSampler", model=("checkpoint", 0), positive=("positive", 0), negative=("negative", 0),
                    latent_image=("latent", 0), seed=1, steps=25, cfg=7.0,
                ),
                "decode": node("VAEDecode", samples=("sample", 0), vae=("checkpoint", 2)),
            },
            {"apply": apply(output="over background", background=("decode", 0))},
            {"save": save("apply", "inpainted")},
        ),
        shown="apply",
        note="**Needs an inpainting checkpoint** in `models/checkpoints`: choose it in *Load Checkpoint*. What is around "
        "the subject is painted anew; the subject keeps its pixels. " + ON_DEMO,
    ),  # fmt: skip
    Example(
        "Video to Transparent WebM (BiRefNet)",
        (CLIP_NODES, {"model": load()}, {"video": clip_node("WebM with alpha", "video/cutout", smoothing=2)}),
        shown="video",
        group=CLIP_GROUP,
        note=CLIP_NOTE + "WebM with alpha (VP9) plays in browsers and is small. " + ON_DEMO,
    ),
    Example(
        "Video to ProRes 4444 (BiRefNet)",
        (CLIP_NODES, {"model": load()}, {"video": clip_node("ProRes with alpha", "video/cutout", smoothing=2)}),
        shown="video",
        group=CLIP_GROUP,
        note=CLIP_NOTE + "ProRes 4444 with alpha (MOV) is for editing programs, and large. Browsers do not play it; the "
        "file is in `output/video`. " + ON_DEMO,
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
                "scenes": node("ImageBatch", image1=("day", 0), image2=("dusk", 0)),
                "background": node("CreateVideo", "The clip behind: or Load Video", images=("scenes", 0), fps=12.0),
            },
            {"video": clip_node("over background", "video/over", background_video=("background", 0))},
        ),
        shown="video",
        group=CLIP_GROUP,
        note=CLIP_NOTE + "The same for the clip behind, *background_video*; it begins again when it ends first. " + ON_DEMO,
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
        note=CLIP_NOTE + "An empty *filename_prefix* hands the clips on, here to **Save Video**. " + ON_DEMO,
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
        note=CLIP_NOTE + "All frames are in memory here, for other image nodes between; the video nodes hold a few only. "
        + ON_DEMO,
    ),
)  # fmt: skip
