"""Small workflows in API format, shared by the tests."""

from pathlib import Path

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "cat.jpg"
LOAD = {"dtype": "auto", "device": "auto", "patch_order": "auto"}
SEGMENT = {"size": "auto (training size)", "width": 1024, "height": 1024}
APPLY = {
    "output": "RGBA", "colors": "multilevel", "color": "#ffffff", "background_fit": "fill", "crop": False, "padding": 16
}  # fmt: skip


def node(kind, **values):
    return {"class_type": kind, "inputs": values}


def segment(model="small.safetensors", image="example.png", **options):
    """Image 1, model 2, mask and image 3."""
    return {
        "1": node("LoadImage", image=image),
        "2": node("BiRefNetLoadModel", model=model, **LOAD),
        "3": node("BiRefNetSegment", model=["2", 0], image=["1", 0], **{**SEGMENT, **options}),
    }


def saved(source, kind="image", name="9"):
    """Saves an image or a mask as node 9."""
    if kind == "image":
        return {name: node("SaveImage", images=source, filename_prefix="test")}
    between = f"{name}0"
    return {between: node("MaskToImage", mask=source), **saved([between, 0], name=name)}


def error_of(comfyui, workflow):
    """What the red box of the node that failed says, and which node that is."""
    entry = comfyui.wait(comfyui.submit(workflow))
    return dict(entry["status"]["messages"])["execution_error"]
