"""Models under ComfyUI's memory management: loading, moving, unloading, and one cache."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as mm
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..birefnet_core import CheckpointError
from ..birefnet_core.devices import choose_dtype
from .comfy_compat import core
from .model_folders import (
    MODEL_FOLDER,
    NO_ADAPTER,
    check_model_name,
    file_stamp,
    find_adapter,
    model_folders,
    source_of,
)
from .tensors import progress_bar

if TYPE_CHECKING:
    from ..birefnet_core import BiRefNet, Segmenter
    from ..birefnet_core.inference.segmenter import Size

logger = logging.getLogger(__name__)

MOST_FRAMES_AT_ONCE = 8  # beyond this a GPU gains nothing
WHOLE_MODEL = 1e32  # bytes, what ComfyUI gives a model that is to be loaded completely


class ModelHandle:
    """A loaded BiRefNet under ComfyUI's memory management; travels as BIREFNET_MODEL.

    ComfyUI holds its models by weak references, so this handle keeps one alive. Node results keep the handle; the one
    used last is also kept until ComfyUI unloads it, for graphs whose results do not outlive a run.

    Args:
        model: The network.
        device: Where it runs.
        compile: Whether it runs through torch.compile. Cancelling then takes effect after the current image: hooks
            inside the network would break the compiled graph.
    """

    def __init__(self, model: BiRefNet, device: torch.device, compile: bool = False) -> None:
        offload = mm.unet_offload_device() if device != torch.device("cpu") else device
        self._segmenter = core(".inference").Segmenter(model.to(offload), compile=compile, device=device)
        self.model = self._segmenter.model
        self.device = device
        if not compile:
            _end_within_an_image_if_cancelled(self.model)
        self._segmenter.wait_until_ready()
        # Not CoreModelPatcher: from 0.25 on that may stream weights into layers of ComfyUI's own classes only.
        self.patcher = _Patcher(self, load_device=device, offload_device=offload)

    def segment(self, images: Tensor, size: Size = None, *, frames_per_step: int = 0, **options: Any) -> Tensor:
        """Segments images on the handle's device.

        Args:
            images: B, H, W, C, as ComfyUI has them.
            size: See ``Segmenter.network_size``.
            frames_per_step: Images at a time; 0 takes as many as fit well.
            options: Passed on to the Segmenter.

        Returns:
            Masks B, H, W float32 on ComfyUI's intermediate device.
        """
        if not isinstance(images, Tensor) or images.ndim != 4:
            core(".image_ops").validate_images(images, channels=(1, 3, 4))  # says what is wrong
        frames, height, width = images.shape[:3]
        segmenter = self.loaded_segmenter(height, width, size, frames=frames, frames_per_step=frames_per_step)
        return segmenter(images, size, progress=progress_bar(), **options).to(mm.intermediate_device())

    def loaded_segmenter(
        self,
        height: int,
        width: int,
        size: Size = None,
        *,
        frames: int = MOST_FRAMES_AT_ONCE,
        frames_per_step: int = 0,
    ) -> Segmenter:
        """The Segmenter, with the network loaded on the device by ComfyUI.

        Args:
            height: Of the images.
            width: Of the images.
            size: See ``Segmenter.network_size``.
            frames: Images there are, at most.
            frames_per_step: Images at a time; 0 takes as many as fit well.
        """
        segmenter = self._segmenter
        one = segmenter.memory_required(*segmenter.network_size(size, height, width), device=self.device)
        mm.load_models_gpu([self.patcher], memory_required=one * max(1, frames_per_step), force_full_load=True)
        segmenter.batch_size = frames_per_step or self._frames_that_fit(one, frames)
        return segmenter

    def encode_image(self, image: Tensor, image_size: int | None = None) -> Tensor:
        """The method ComfyUI's own Remove Background node calls: images -> masks, with this checkpoint's
        preprocessing."""
        return self.segment(image, image_size).to(getattr(mm, "intermediate_dtype", lambda: torch.float32)())

    def release(self) -> None:
        """Frees what the handle keeps on the device beside the weights: CUDA graphs."""
        self._segmenter.release()

    def _frames_that_fit(self, one: int, frames: int) -> int:
        if self.device.type == "cpu":
            return 1
        return int(max(1, min(frames, MOST_FRAMES_AT_ONCE, mm.get_free_memory(self.device) // 2 // one)))


class _Patcher(ModelPatcher):
    """Loads in one piece, and drops the handle when ComfyUI unloads the model, as by "Unload models".

    Args:
        handle: The handle that owns it.
        options: Of ModelPatcher.
    """

    def __init__(self, handle: ModelHandle, **options: Any) -> None:
        super().__init__(handle.model, **options)
        self._release = weakref.WeakMethod(handle.release)

    def partially_load(self, device_to: torch.device, extra_memory: float = 0, **options: Any) -> Any:
        # Plain layers cannot fetch their weights when they run: under --novram all of them would stay behind.
        return super().partially_load(device_to, WHOLE_MODEL, **options)

    def partially_unload(self, *args: Any, **options: Any) -> Any:
        self._free_graphs()  # ComfyUI counts their memory as free, and no other model could have it
        return super().partially_unload(*args, **options)

    def detach(self, unpatch_all: bool = True) -> Any:
        if unpatch_all:
            self._free_graphs()
        if unpatch_all and _latest and _latest[0].patcher is self:  # else it is about to be loaded again
            _latest.clear()
        return super().detach(unpatch_all)

    def _free_graphs(self) -> None:
        if (release := self._release()) is not None:
            release()


def _end_within_an_image_if_cancelled(model: torch.nn.Module) -> None:
    """Checks ComfyUI's interrupt flag before each block of the encoder and each stage and branch of the decoder."""

    def check(module: torch.nn.Module, inputs: tuple) -> None:
        mm.throw_exception_if_processing_interrupted()

    for parent in model.modules():
        if isinstance(parent, torch.nn.ModuleList):
            for module in parent:
                module.register_forward_pre_hook(check)


_loaded: weakref.WeakValueDictionary[tuple, ModelHandle] = weakref.WeakValueDictionary()
_latest: deque[ModelHandle] = deque(maxlen=1)


def load(
    name: str, dtype: str, device: str, patch_order: str, adapter: str = NO_ADAPTER, compile: bool = False
) -> ModelHandle:
    """Loads a model, or returns the one that is already loaded from the same file with the same options.

    Raises:
        CheckpointError: No such model, or one that cannot be fetched or read.
    """
    problem = "model is empty (None), expected the name of a model." if name is None else check_model_name(name)
    if problem is not True:
        raise CheckpointError(problem)
    adapter_file = find_adapter(adapter)
    target = torch.device("cpu") if device == "cpu" else mm.get_torch_device()
    precision = choose_dtype(dtype, target, supports_float16=mm.should_use_fp16)
    options = str(target), precision, patch_order, file_stamp(adapter), compile
    stamp = file_stamp(name)
    handle = _loaded.get((stamp, *options))
    if handle is None:
        model = core(".checkpoints.load").load_model(
            source_of(name) or name,
            dtype=precision,
            fine_dtype=torch.float16 if target.type == "cuda" else torch.float32,
            patch_order=patch_order,
            adapter=adapter_file,
            folders=model_folders(),
            download_dir=Path(folder_paths.get_folder_paths(MODEL_FOLDER)[0]),
            progress=progress_bar(),
            fused=True,
        )
        if stamp == name:  # a download has just put the file there; else it may have been replaced meanwhile
            stamp = file_stamp(name)
        handle = _loaded[(stamp, *options)] = ModelHandle(model, target, compile)
        info = model.checkpoint
        logger.info("BiRefNet %r%s on %s in %s; patch order %s (%s)", name, f" ({info.revision})" * bool(info.revision),
                    target, precision, info.patch_order.value, info.patch_order_source)  # fmt: skip
    _latest.append(handle)
    return handle
