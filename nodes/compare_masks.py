"""BiRefNetCompareMasks: masks against ground truths -> scores and a picture."""

from __future__ import annotations

from .comfy_compat import core, io, preview, schema, ui
from .inputs import checked
from .tensors import computed, progress_bar

SCORES = {
    "Sm": "S-measure: structure. Higher is better.",
    "maxF": "F-measure at its best threshold. Higher is better.",
    "wF": "Weighted F-measure. Higher is better.",
    "meanE": "E-measure, mean over thresholds. Higher is better.",
    "MAE": "Mean absolute error. Lower is better.",
    "BIoU": "Boundary IoU. Higher is better.",
    "SAD": "Sum of absolute differences in thousands, for mattes. Lower is better.",
    "haze": "Mean of the mask over the true background, where MAE hides it. Lower is better.",
    "hazeArea": "Share of the true background under a faint veil (0 to 0.1). Lower is better.",
    "Grad": "Gradient error in thousands: how well edges match. Lower is better.",
}


class BiRefNetCompareMasks(io.ComfyNode):
    """Scores masks by the measures of the paper."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetCompareMasks",
            display_name="BiRefNet Compare Masks",
            description="Scores a mask against a ground truth by the measures of the paper, and paints the errors: "
            "vermilion is subject in the mask only, blue is subject in the ground truth only.",
            is_output_node=True,
            inputs=[
                io.Mask.Input("mask", tooltip="What is to be scored. Resized to the ground truth if sizes differ."),
                io.Mask.Input("ground_truth", tooltip="What it should be. One may go with many masks."),
            ],
            outputs=[
                io.String.Output("scores", tooltip="All scores as text, means over the batch."),
                io.Image.Output("errors", tooltip="White: both, black: neither, vermilion: false, blue: missed."),
                *(io.Float.Output(key, tooltip=tooltip) for key, tooltip in SCORES.items()),
            ],
        )

    @classmethod
    @checked
    def execute(cls, mask, ground_truth) -> io.NodeOutput:
        errors = computed(cls, core(".masks").compare_masks, mask, ground_truth)
        scores = core(".metrics").score_masks(mask, ground_truth, list(SCORES), progress_bar())
        text = "\n".join(f"{key} {value:.4f}" for key, value in scores.items())
        shown = {**preview(errors, cls).as_dict(), **ui.PreviewText(text).as_dict()}
        return io.NodeOutput(text, errors, *scores.values(), ui=shown)
