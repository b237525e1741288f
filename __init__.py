"""BiRefNet for ComfyUI: the door ComfyUI knocks on.

Nothing is imported until ComfyUI asks for the nodes, so that the folder can also be opened by
test runners and editors that have no ComfyUI.
"""

WEB_DIRECTORY = "./web"  # labels of the model list, and the help pages


async def comfy_entrypoint():
    """Returns the pack's ComfyExtension (V3 nodes)."""
    from .nodes import BiRefNetExtension

    return BiRefNetExtension()
