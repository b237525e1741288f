"""Examples that work on images."""

from .parts import FOLDER, SECOND, START, THIRD, Example, apply, image, load, node, save, segment

FORM = (("model", "model"), ("apply", "output"), ("apply", "color"), ("apply", "crop"))
POINT = '[{"x": 160, "y": 160}]'

IMAGES = (
    Example(
        "Remove Background in One Node (BiRefNet)",
        (
            {"image": image()},
            {"cutout": node("BiRefNetRemoveBackground", image=("image", 0), model="demo")},
            {"save": save("cutout", "cutout")},
        ),
        shown="save",
        note="Image in, transparent cut-out out.",
    ),
    Example(
        "Cut Out to Transparent PNG (BiRefNet)",
        (START, {"segment": segment()}, {"apply": apply()}, {"save": save("apply", "cutout")}),
        shown="apply",
        note="The usual chain: load, segment, apply alpha.",
    ),
    Example(
        "App - Cut Out an Image (BiRefNet)",
        (START, {"segment": segment()}, {"apply": apply()}, {"save": save("apply", "cutout", "Cut-out")}),
        shown="apply",
        app=(("image", "image"), *FORM),
        note="Opens as an app: choose an image and press Run.",
    ),
    Example(
        "App - Cut Out a Folder (BiRefNet)",
        (
            {"image": node("LoadImageDataSetFromFolder", folder=FOLDER), "model": load()},
            {"segment": segment()},
            {"apply": apply()},
            {"save": save("apply", "folder/cutout", "Cut-outs")},
        ),
        shown="apply",
        app=(("image", "folder"), *FORM),
        note="Opens as an app: every image of a folder is cut out. The list has the folders within ComfyUI's input "
        "folder; put yours there. **birefnet_examples** comes with the pack.",
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
            {
                "background": node("ImageStitch", image1=("sky", 0), image2=("ground", 0), direction="down"),
                "blur": node("ImageBlur", image=("background", 0), blur_radius=31, sigma=10.0),
            },
            {"apply": apply(output="over background", background=("blur", 0))},
            {"save": save("apply", "new_background")},
        ),
        shown="apply",
        group=("A background of two colors", ("sky", "ground", "background", "blur")),
        note="The subject over another background. Yours: connect **Load Image** to *background* of Apply Alpha.",
    ),
    Example(
        "Blur Background (BiRefNet)",
        (
            START,
            {"segment": segment()},
            {
                "around": node(
                    "BiRefNetRefineMask",
                    "Mask of the background",
                    mask=("segment", 0),
                    threshold="0.1",
                    grow=6,
                    invert=True,
                ),
                "fill": apply("Background without the subject", mask="around"),
            },
            {
                "colors": node("SplitImageWithAlpha", "Without transparency", image=("fill", 0)),
                "blur": node("ImageBlur", image=("colors", 0), blur_radius=25, sigma=9.0),
            },
            {"apply": apply(output="over background", background=("blur", 0))},
            {"save": save("apply", "blurred_background")},
        ),
        shown="apply",
        group=("The background alone, blurred", ("around", "fill", "colors", "blur")),
        note="The subject stays sharp over a blurred copy of its own image, as a lens with a wide aperture shows it. "
        "Before the blur the background's colors are spread to where the subject is, so that no halo of the subject's "
        "own colors stands around it.",
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
        "results"
        " there. For hair choose **BiRefNet_HR-matting** in place of **demo** (444 MB, downloaded once).",
        on_demo="",
    ),
    Example(
        "Box around the Subject (BiRefNet)",
        (
            {"image": image(SECOND), "model": load()},
            {
                "box": node(
                    "BiRefNetBoxSubject", image=("image", 0), region={"x": 20, "y": 10, "width": 280, "height": 310}
                )
            },
            {"segment": segment(box=("box", 0))},
            {"apply": apply(crop=True)},
            {"save": save("apply", "box")},
        ),
        shown="apply",
        note="Only what is in the box is segmented: drag it on the image (Nodes 2.0; run once for the image to "
        "show), or"
        " type its numbers.",
    ),
    Example(
        "Point at the Subject (BiRefNet)",
        (
            {"image": image(SECOND), "model": load()},
            {
                "where": node("PrimitiveStringMultiline", "Points, if none is painted", value=POINT),
                "points": node("BiRefNetPointAtSubject", image=("image", 0), coordinates=("where", 0)),
            },
            {"segment": segment(points=("points", 0), size="native")},
            {"apply": apply()},
            {"save": save("apply", "chosen")},
        ),
        shown="apply",
        note="Of two subjects the one with a mark stays. Paint a dab "
        "on the one you mean (Nodes 2.0; run once for the image to show) and empty the list of points, or type "
        "points in pixels.",
    ),
    Example(
        "Clean Up a Mask (BiRefNet)",
        (
            START,
            {"segment": segment(), "before": node("MaskPreview", "Mask before", mask=("segment", 0))},
            {
                "refine": node(
                    "BiRefNetRefineMask",
                    mask=("segment", 0),
                    image=("segment", 1),
                    black_point=0.1,
                    white_point=0.9,
                    keep_largest=True,
                    max_hole_area=400,
                    grow=1,
                )
            },
            {
                "trimap": node("BiRefNetTrimap", mask=("refine", 0)),
                "apply": apply(mask="refine"),
            },
            {
                "save": save("apply", "refined"),
                "shown": node("MaskPreview", "A matting node takes the place of this", mask=("trimap", 0)),
            },
        ),
        shown="apply",
        note="Haze is cut off, small parts go, holes are filled. The trimap, with grey where the edge is not sure, is "
        "for matting nodes.",
    ),
    Example(
        "Crop, Edit and Stitch Back (BiRefNet)",
        (
            {"image": image(THIRD), "model": load()},
            {"segment": segment()},
            {"crop": node("BiRefNetCropAroundSubject", image=("segment", 1), mask=("segment", 0), padding=0.05)},
            {"edit": node("ImageInvert", "Your own work takes the place of this", image=("crop", 0))},
            {"stitch": node("BiRefNetStitchBack", stitch=("crop", 2), image=("edit", 0), mask=("crop", 1), blend=2)},
            {"save": save("stitch", "stitched")},
        ),
        shown="stitch",
        note="Only the part around the subject is worked on, at full resolution, and put back where the mask is. "
        "*Invert"
        " Image* stands for your own work: an inpainting model, an upscaler, a color correction.",
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
                "scores": node("PreviewAny", "Scores", source=("compare", 0)),
                "errors": node("PreviewImage", "Where they differ", images=("compare", 1)),
                "second": node("MaskPreview", "Mask of the second", mask=("segment_other", 0)),
            },
        ),
        shown="errors",
        note="Two masks of one image, where they differ (vermilion, blue) and by how much. Both loaders hold **demo**, "
        "the second mask with *flip*: choose your own file of models/birefnet, such as best.safetensors of a "
        "fine-tuning, in one.",
        on_demo="",
    ),
)
