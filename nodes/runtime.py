"""The only bridge to ComfyUI: model folders, memory management, device and dtype, progress, cancelling."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from pathlib import Path

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..birefnet_core import BiRefNet, PatchOrder, Segmenter, checkpoints, load_model, prepare
from ..birefnet_core.checkpoints.io import PICKLED, SAFETENSORS
from ..birefnet_core.devices import DTYPES
from ..birefnet_core.inference.segmenter import Size

logger = logging.getLogger(__name__)

BiRefNetModelType = io.Custom("BIREFNET_MODEL")

MODEL_FOLDER = "birefnet"  # models/birefnet, our own
ADAPTER_FOLDER = "adapters"  # models/birefnet/adapters
NO_ADAPTER = "none"
SHARED_FOLDER = "background_removal"  # models/background_removal, ComfyUI's own BiRefNet nodes read it too


def register_model_folders() -> None:
    """Tells ComfyUI about models/birefnet; folders named in extra_model_paths.yaml are kept."""
    for name in (MODEL_FOLDER, SHARED_FOLDER):
        folder = os.path.join(folder_paths.models_dir, name)
        folder_paths.add_model_folder_path(name, folder)
        paths, endings = folder_paths.folder_names_and_paths[name]
        # A folder that ComfyUI does not know by itself starts without file endings, and would list everything.
        folder_paths.folder_names_and_paths[name] = (paths, endings or set(SAFETENSORS + PICKLED))
        os.makedirs(folder, exist_ok=True)


def model_folders() -> list[Path]:
    """Every folder in which weights may lie, our own first."""
    return [Path(p) for name in (MODEL_FOLDER, SHARED_FOLDER) for p in folder_paths.get_folder_paths(name)]


def model_names() -> list[str]:
    """What the load node offers: the catalogue, then the files in the model folders."""
    catalogue = [entry.name for entry in checkpoints() if entry.loadable]
    files = [f for name in (MODEL_FOLDER, SHARED_FOLDER) for f in folder_paths.get_filename_list(name)]
    return catalogue + sorted(set(files) - set(catalogue) - set(adapter_names()))


def adapter_names() -> list[str]:
    """What the load node offers as adapters: none, then the files in the models' subfolder for them."""
    files = folder_paths.get_filename_list(MODEL_FOLDER)
    return [NO_ADAPTER, *sorted(f for f in files if Path(f).parts[0] == ADAPTER_FOLDER)]


def find_source(name: str) -> str:
    """A name of ``model_names`` -> the file it stands for, or the catalogue name itself."""
    for folder in (MODEL_FOLDER, SHARED_FOLDER):
        path = folder_paths.get_full_path(folder, name)
        if path is not None:
            return path
    return name


class ModelHandle:
    """A loaded BiRefNet under ComfyUI's memory management; what travels as BIREFNET_MODEL.

    ComfyUI holds its models weakly, so this handle is what keeps one alive.
    """

    def __init__(self, model: BiRefNet, device: torch.device) -> None:
        offload = mm.unet_offload_device() if device != torch.device("cpu") else device
        self.model = prepare(model).to(offload)
        self.segmenter = Segmenter(self.model)
        self.patcher = ModelPatcher(self.model, load_device=device, offload_device=offload)

    def segment(self, images: Tensor, size: Size = None) -> Tensor:
        """Images B, H, W, C -> masks B, H, W float32 on ComfyUI's intermediate device.

        Progress is shown for each image, and a cancelled run ends before the next one.
        """
        height, width = self.segmenter.network_size(size, *images.shape[1:3])
        # In one piece: weights left on the CPU by a partial load meet activations on the GPU.
        mm.load_models_gpu(
            [self.patcher], memory_required=self.segmenter.memory_required(height, width), force_full_load=True
        )
        return self.segmenter(images, size, progress=progress_bar()).to(mm.intermediate_device())

    def encode_image(self, image: Tensor, image_size: int | None = None) -> Tensor:
        """What ComfyUI's own RemoveBackground node calls: images -> masks, with this checkpoint's preprocessing."""
        return self.segment(image, image_size)


def progress_bar() -> Callable[[int, int], None]:
    """A callback that moves ComfyUI's progress bar, and raises when the user cancels."""
    bar: comfy.utils.ProgressBar | None = None

    def report(done: int, total: int) -> None:
        nonlocal bar
        mm.throw_exception_if_processing_interrupted()
        bar = bar or comfy.utils.ProgressBar(total)
        bar.update_absolute(done, total)

    return report


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; "auto" takes float16 where ComfyUI would, float32 elsewhere."""
    if name != "auto":
        return DTYPES[name]
    return torch.float16 if device.type == "cuda" and mm.should_use_fp16(device) else torch.float32


def file_stamp(name: str) -> str:
    """Changes when the file behind a name of ``model_names`` does."""
    source = find_source(name)
    return f"{source} {os.stat(source).st_mtime_ns}" if os.path.isfile(source) else source


_loaded: weakref.WeakValueDictionary[tuple, ModelHandle] = weakref.WeakValueDictionary()


def load(name: str, dtype: str, device: str, patch_order: str, adapter: str = NO_ADAPTER) -> ModelHandle:
    """Loads a model, or returns the one that is already loaded from the same file with the same options."""
    target = torch.device("cpu") if device == "cpu" else mm.get_torch_device()
    source = find_source(name)
    key = file_stamp(name), str(target), dtype, patch_order, file_stamp(adapter)
    handle = _loaded.get(key)
    if handle is None:
        model = load_model(
            source,
            dtype=choose_dtype(dtype, target),
            patch_order=patch_order,
            adapter=None if adapter == NO_ADAPTER else find_source(adapter),
            folders=model_folders(),
            download_dir=Path(folder_paths.get_folder_paths(MODEL_FOLDER)[0]),
            progress=progress_bar(),
        )
        handle = _loaded[key] = ModelHandle(model, target)
        logger.info("BiRefNet %s on %s in %s; patch order %s (%s)", name, target, choose_dtype(dtype, target),
                    model.checkpoint.patch_order.value, model.checkpoint.patch_order_source)  # fmt: skip
    return handle


PATCH_ORDERS = ["auto", *(order.value for order in PatchOrder)]
