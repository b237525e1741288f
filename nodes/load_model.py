"""BiRefNetLoadModel: a name -> a model."""

from __future__ import annotations

from . import runtime
from .runtime import io


class BiRefNetLoadModel(io.ComfyNode):
    """Loads a BiRefNet from the catalogue (downloading it once) or from the model folders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return runtime.schema(
            node_id="BiRefNetLoadModel",
            display_name="Load BiRefNet Model",
            description="Loads a BiRefNet checkpoint. Published ones are downloaded to models/birefnet once.",
            search_aliases=["background removal model", "rmbg", "matting model", "remove background loader"],
            inputs=[
                runtime.model_input(),
                io.Combo.Input(
                    "dtype",
                    options=["auto", *runtime.DTYPES],
                    default="auto",
                    tooltip="Precision. auto: fp16 on CUDA, fp32 elsewhere.",
                ),
                io.Combo.Input(
                    "device",
                    options=["auto", "cpu"],
                    default="auto",
                    tooltip="auto: where ComfyUI runs its models. cpu: leave the GPU to others.",
                ),
                io.Combo.Input(
                    "patch_order",
                    options=runtime.PATCH_ORDERS,
                    default="auto",
                    tooltip="How the checkpoint's image patches are stacked. auto reads it from the weights; change it "
                    "only if fine detail looks wrong.",
                    **runtime.ADVANCED,
                ),
                io.Combo.Input(
                    "adapter",
                    options=runtime.adapter_names(),
                    default=runtime.NO_ADAPTER,
                    optional=True,
                    tooltip="A low-rank adapter of your own (train/finetune.py --train lora) to merge into the "
                    "model it was trained on. Files in models/birefnet/adapters.",
                ),
                io.Boolean.Input(
                    "compile",
                    default=False,
                    optional=True,
                    tooltip="Runs the network through torch.compile: minutes for the first image of each size, faster "
                    "after that. Without a compiler it runs as it is. Cancelling takes effect after an image.",
                    **runtime.ADVANCED,
                ),
            ],
            outputs=[
                runtime.BiRefNetModelType.Output(
                    "birefnet_model", display_name="model", tooltip="To BiRefNet Segment."
                ),
                runtime.BackgroundRemovalType.Output(
                    "bg_model",
                    display_name="bg_model",
                    tooltip="The same model for ComfyUI's own Remove Background node.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None) -> bool | str:
        return runtime.check_model_name(model)

    @classmethod
    def fingerprint_inputs(cls, model: str | None, adapter: str | None = runtime.NO_ADAPTER, **options) -> str:
        return f"{runtime.file_stamp(model)} {runtime.file_stamp(adapter)} {options}"

    @classmethod
    def execute(
        cls, model: str, dtype: str, device: str, patch_order: str, adapter=runtime.NO_ADAPTER, compile=False
    ) -> io.NodeOutput:
        handle = runtime.load(model, dtype, device, patch_order, adapter, compile)
        return io.NodeOutput(handle, handle)
