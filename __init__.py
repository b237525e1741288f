"""BiRefNet for ComfyUI: the ComfyUI entry point.

Nodes are imported in `comfy_entrypoint`, so that test runners and editors without ComfyUI can import the folder.
"""

WEB_DIRECTORY = "./web"  # labels of the model list, and the help pages


async def comfy_entrypoint():
    """Returns the pack's ComfyExtension (V3 nodes)."""
    from .nodes import BiRefNetExtension

    return BiRefNetExtension()
