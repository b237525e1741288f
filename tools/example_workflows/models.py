"""Examples that need a model which neither ComfyUI nor this pack brings."""

from .parts import Example, apply, image, load, node, save, segment

NEED_MODELS = (
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
        note="**Needs the model SAM3** (sam3.1_multiplex_fp16.safetensors in models/checkpoints) and a "
        "ComfyUI with "
        "the node *SAM3 Detect* (0.21 and newer). SAM3 finds what the text names, BiRefNet draws its edges: SAM3's "
        "mask is the *region*; its *bboxes* fit *box* as well.",
    ),
    Example(
        "New Background by Diffusion (BiRefNet, needs an inpainting model)",
        (
            {
                "image": image(),
                "model": load(),
                "checkpoint": node("CheckpointLoaderSimple", ckpt_name="your_model.safetensors"),
            },
            {
                "segment": segment(),
                "positive": node("CLIPTextEncode", clip=("checkpoint", 1), text="a sunlit garden, photograph"),
                "negative": node("CLIPTextEncode", clip=("checkpoint", 1), text="blurry, low quality"),
            },
            {
                "around": node(
                    "BiRefNetRefineMask", "Mask of the background", mask=("segment", 0), grow=4, invert=True
                ),
                "latent": node(
                    "VAEEncodeForInpaint",
                    pixels=("segment", 1),
                    vae=("checkpoint", 2),
                    mask=("around", 0),
                    grow_mask_by=0,
                ),
            },
            {
                "sample": node(
                    "KSampler",
                    model=("checkpoint", 0),
                    positive=("positive", 0),
                    negative=("negative", 0),
                    latent_image=("latent", 0),
                    seed=1,
                    steps=25,
                    cfg=7.0,
                ),
                "decode": node("VAEDecode", samples=("sample", 0), vae=("checkpoint", 2)),
            },
            {"apply": apply(output="over background", background=("decode", 0))},
            {"save": save("apply", "inpainted")},
        ),
        shown="apply",
        note="**Needs an inpainting checkpoint** in models/checkpoints: choose it in *Load Checkpoint*. What "
        "is around"
        " the subject is painted anew; the subject keeps its pixels.",
    ),
)
