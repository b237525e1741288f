"""BiRefNetLoadModel: a name -> a model."""

from __future__ import annotations

from ..birefnet_core import PatchOrder
from ..birefnet_core.devices import DTYPES
from .comfy_compat import ADVANCED, BackgroundRemovalType, BiRefNetModelType, io, pick, schema
from .inputs import checked
from .model_folders import NO_ADAPTER, adapter_names, check_model_name, file_stamp, model_input
from .model_handle import load

DEVICES = ["auto", "cpu"]
PRECISIONS = ["auto", *DTYPES]
PATCH_ORDERS = ["auto", *(order.value for order in PatchOrder)]


class BiRefNetLoadModel(io.ComfyNode):
    """Loads a BiRefNet from the catalogue (downloading it once) or from the model folders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetLoadModel",
            display_name="Load BiRefNet Model",
            description="Loads a BiRefNet checkpoint. Published ones are downloaded to models/birefnet once.",
            inputs=[
                model_input(),
                io.Combo.Input(
                    "dtype",
                    options=PRECISIONS,
                    default="auto",
                    tooltip="Precision. auto: fp16 on NVIDIA and AMD GPUs, bf16 on CPUs with AMX, fp32 elsewhere.",
                ),
                io.Combo.Input(
                    "device",
                    options=DEVICES,
                    default="auto",
                    tooltip="auto: where ComfyUI runs its models. cpu: leave the GPU to others.",
                ),
                io.Combo.Input(
                    "patch_order",
                    options=PATCH_ORDERS,
                    default="auto",
                    tooltip="How the checkpoint's image patches are stacked. auto reads it from the weights; change it "
                    "only if fine detail looks wrong.",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "adapter",
                    options=adapter_names(),
                    default=NO_ADAPTER,
                    optional=True,
                    tooltip="A low-rank adapter of your own (train/finetune.py --train lora) to merge into the "
                    "model it was trained on. Files in models/birefnet/adapters.",
                ),
                io.Boolean.Input(
                    "compile",
                    default=False,
                    optional=True,
                    tooltip="Runs the network through torch.compile: about a minute for the first image of each size. "
                    "Later ones are not faster on a CPU; on your GPU, try. Without a compiler it runs as it is. "
                    "Cancelling takes effect after an image.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                BiRefNetModelType.Output("birefnet_model", display_name="model", tooltip="To BiRefNet Segment."),
                BackgroundRemovalType.Output(
                    "bg_model",
                    display_name="bg_model",
                    tooltip="The same model for ComfyUI's own Remove Background node.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None) -> bool | str:
        return check_model_name(model)

    @classmethod
    def fingerprint_inputs(cls, model: str | None, adapter: str | None = NO_ADAPTER, **options) -> str:
        return f"{file_stamp(model)} {file_stamp(adapter)} {options}"

    @classmethod
    @checked
    def execute(
        cls, model: str, dtype: str, device: str, patch_order: str, adapter=NO_ADAPTER, compile=False
    ) -> io.NodeOutput:
        for name, value, known in (
            ("dtype", dtype, PRECISIONS), ("device", device, DEVICES), ("patch_order", patch_order, PATCH_ORDERS)
        ):  # fmt: skip
            pick(dict.fromkeys(known), value, name)  # over a link ComfyUI passes any value
        handle = load(model, dtype, device, patch_order, adapter, compile)
        return io.NodeOutput(handle, handle)
