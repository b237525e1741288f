"""BiRefNetLoadModel: a name -> a model."""

from __future__ import annotations

from comfy_api.latest import io

from . import runtime


class BiRefNetLoadModel(io.ComfyNode):
    """Loads a BiRefNet from the catalogue (downloading it once) or from the model folders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BiRefNetLoadModel",
            display_name="Load BiRefNet Model",
            category="BiRefNet",
            description="Loads a BiRefNet checkpoint. Published ones are downloaded to models/birefnet once.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=runtime.model_names(),
                    default="BiRefNet",
                    tooltip="Published checkpoints by name, then your own files in models/birefnet and "
                    "models/background_removal. BiRefNet is the general one, BiRefNet_lite the fast one, "
                    "BiRefNet_HR for 2048 x 2048, the -matting ones for hair and glass.",
                ),
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
                ),
                io.Combo.Input(
                    "adapter",
                    options=runtime.adapter_names(),
                    default=runtime.NO_ADAPTER,
                    optional=True,
                    tooltip="A low-rank adapter of your own (train/finetune.py --train lora) to merge into the "
                    "model it was trained on. Files in models/birefnet/adapters.",
                ),
            ],
            outputs=[
                runtime.BiRefNetModelType.Output("birefnet_model", display_name="model", tooltip="To BiRefNet Segment.")
            ],
        )

    @classmethod
    def fingerprint_inputs(
        cls, model: str, dtype: str, device: str, patch_order: str, adapter: str = runtime.NO_ADAPTER
    ) -> str:
        return f"{runtime.file_stamp(model)} {dtype} {device} {patch_order} {runtime.file_stamp(adapter)}"

    @classmethod
    def execute(
        cls, model: str, dtype: str, device: str, patch_order: str, adapter: str = runtime.NO_ADAPTER
    ) -> io.NodeOutput:
        return io.NodeOutput(runtime.load(model, dtype, device, patch_order, adapter))
