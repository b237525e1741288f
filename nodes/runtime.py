"""The only bridge to ComfyUI: model folders, memory management, device and dtype, progress, cancelling.

ComfyUI's names that the nodes need come through here, too. The core's heavy parts (the network with timm and
torchvision) are imported at the first use, so that ComfyUI starts without them.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import ComfyExtension, io, ui
from comfy_execution.graph_utils import GraphBuilder
from torch import Tensor

from ..birefnet_core import CheckpointError, ConfigError, ImageError, PatchOrder, checkpoints
from ..birefnet_core.checkpoints import CatalogueEntry, present_locally
from ..birefnet_core.checkpoints.io import PICKLED, SAFETENSORS
from ..birefnet_core.devices import DTYPES

if TYPE_CHECKING:
    from ..birefnet_core import BiRefNet
    from ..birefnet_core.inference.segmenter import Size

__all__ = ["ComfyExtension", "GraphBuilder", "io", "ui"]

logger = logging.getLogger(__name__)

BiRefNetModelType = io.Custom("BIREFNET_MODEL")
BackgroundRemovalType = io.Custom("BACKGROUND_REMOVAL")  # what ComfyUI's own Remove Background node takes
BoundingBoxType = io.Custom("BOUNDING_BOX")

MODEL_FOLDER = "birefnet"  # models/birefnet, our own
ADAPTER_FOLDER = "adapters"  # models/birefnet/adapters
NO_ADAPTER = "none"
SHARED_FOLDER = "background_removal"  # models/background_removal, ComfyUI's own BiRefNet nodes read it too
DEFAULT_MODEL = "BiRefNet"
PATCH_ORDERS = ["auto", *(order.value for order in PatchOrder)]

PACK = Path(__file__).resolve().parents[1]
MOST_FRAMES_AT_ONCE = 8  # beyond this a GPU gains nothing
PREVIEWS = 4  # pictures of a batch that a node shows
WHOLE_MODEL = 1e32  # bytes, what ComfyUI gives a model that is to be loaded completely
ROOM_FOR_WORK = 8  # refining and colour estimation work in so many times the memory of what they are given

# What ComfyUI before 0.4 refuses.
ADVANCED = {"advanced": True} if "advanced" in inspect.signature(io.Int.Input.__init__).parameters else {}
_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**options: Any) -> io.Schema:
    """An io.Schema of our category, without the options that this version of ComfyUI does not know."""
    return io.Schema(category="BiRefNet", **{k: v for k, v in options.items() if k in _SCHEMA_FIELDS})


def core(part: str) -> ModuleType:
    """A part of the core, such as ".masks", imported at its first use.

    Raises:
        ImportError: A package the core needs is not installed; says how to install it.
    """
    try:
        return import_module(f"..birefnet_core{part}", __package__)
    except ImportError as error:
        raise ImportError(
            f"The BiRefNet nodes need the Python package {error.name!r}, which cannot be imported ({error}). Install "
            f"what they need into ComfyUI's Python, then start ComfyUI again: "
            f'"{sys.executable}" -m pip install -r "{PACK / "requirements.txt"}"',
            name=error.name,
        ) from error


def defaults(node: type[io.ComfyNode], *given: str) -> dict[str, Any]:
    """The default values of a node's inputs, but for those given."""
    inputs = node.define_schema().inputs
    return {i.id: i.default for i in inputs if getattr(i, "default", None) is not None and i.id not in given}


def pick(options: dict[str, Any], value: str, name: str) -> Any:
    """What an option stands for; older versions of ComfyUI pass on any value."""
    if value not in options:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(options)}.")
    return options[value]


# Model folders


def register_model_folders() -> None:
    """Tells ComfyUI about models/birefnet; folders named in extra_model_paths.yaml are kept."""
    for name in (MODEL_FOLDER, SHARED_FOLDER):
        folder = os.path.join(folder_paths.models_dir, name)
        folder_paths.add_model_folder_path(name, folder)
        paths, endings = folder_paths.folder_names_and_paths[name]
        # A folder that ComfyUI does not know by itself starts without file endings, and would list everything.
        folder_paths.folder_names_and_paths[name] = (paths, endings or set(SAFETENSORS + PICKLED))
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            logger.warning("BiRefNet: %s cannot be created (%s); published checkpoints need it", folder, error)


def model_folders() -> list[Path]:
    """Every folder in which weights may lie, our own first."""
    return [Path(p) for name in (MODEL_FOLDER, SHARED_FOLDER) for p in folder_paths.get_folder_paths(name)]


def catalogue() -> dict[str, CatalogueEntry]:
    """The published checkpoints by name."""
    return {entry.name: entry for entry in checkpoints() if entry.loadable}


def model_names() -> list[str]:
    """What the load node offers: the catalogue, then the files in the model folders.

    Files that were downloaded under a catalogue name, ``<name>/<file>``, are not offered twice.
    """
    names = catalogue()
    files = {f for name in (MODEL_FOLDER, SHARED_FOLDER) for f in folder_paths.get_filename_list(name)}
    return [*names, *sorted(f for f in files if Path(f).parts[0] not in (*names, ADAPTER_FOLDER))]


def adapter_names() -> list[str]:
    """What the load node offers as adapters: none, then the files in the models' subfolder for them."""
    files = folder_paths.get_filename_list(MODEL_FOLDER)
    return [NO_ADAPTER, *sorted(f for f in files if Path(f).parts[0] == ADAPTER_FOLDER)]


def model_labels() -> dict[str, str]:
    """What to show for each catalogue name: purpose, size, licence unless MIT, whether it is on this disk."""
    labels = {}
    for name, entry in catalogue().items():
        path = present_locally(entry, model_folders())
        size = path.stat().st_size if path else entry.size_bytes
        known = entry.purpose, f"{size / 1e6:.0f} MB" if size else "", "" if entry.licence == "MIT" else entry.licence
        labels[name] = f"{'✓ ' if path else ''}{name} ({', '.join(filter(None, known))})"
    return labels


def model_input() -> io.Combo.Input:
    """The list of models. The values are names that never change; what is known of them is in labels beside."""
    labels = model_labels()
    made = io.Combo.Input(
        "model",
        options=model_names(),
        default=DEFAULT_MODEL,
        tooltip="Published checkpoints by name (✓: on this disk, others are downloaded once), then your own files in "
        "models/birefnet and models/background_removal.\n" + "\n".join(labels.values()),
    )
    made.extra_dict = {"birefnet_labels": labels}  # ComfyUI before 0.4 has no argument of that name
    return made


def check_model_name(name: str | None) -> bool | str:
    """True, or what is wrong with a name that should be one of ``model_names``.

    Before a run ComfyUI gives None for a name that another node makes; it is checked again when it is loaded.
    """
    if name is None or name in catalogue() or find_file(name):
        return True
    return (
        f"There is no model {name!r}: it is neither a published checkpoint nor a file in models/{MODEL_FOLDER} or "
        f"models/{SHARED_FOLDER}. Put the file there, or choose another model."
    )


def find_file(name: str) -> str | None:
    """The file in a model folder that a name stands for."""
    for folder in (MODEL_FOLDER, SHARED_FOLDER):
        path = folder_paths.get_full_path(folder, name)
        if path is not None:
            return path
    return None


def file_stamp(name: str | None) -> str:
    """Changes when the file behind a name of ``model_names`` does; None is a name that another node makes."""
    if name is None:
        return ""
    entry = catalogue().get(name)
    path = find_file(name) or (entry and present_locally(entry, model_folders()))
    return f"{path} {os.stat(path).st_mtime_ns}" if path else name


# Models


class ModelHandle:
    """A loaded BiRefNet under ComfyUI's memory management; what travels as BIREFNET_MODEL.

    ComfyUI holds its models weakly, so this handle is what keeps one alive. Nodes' results keep the handle; the one
    used last is also kept until ComfyUI unloads it, for graphs whose results do not outlive a run.

    Args:
        model: The network.
        device: Where it runs.
        compile: Whether it runs through torch.compile. Cancelling then takes effect after the image at hand: a look
            at ComfyUI's flag before every layer would cut what is compiled into as many pieces.
    """

    def __init__(self, model: BiRefNet, device: torch.device, compile: bool = False) -> None:
        inference = core(".inference")
        offload = mm.unet_offload_device() if device != torch.device("cpu") else device
        self.model = core(".network").fuse_for_inference(model).to(offload)
        self.device = device
        self._segmenter = inference.Segmenter(self.model, compile=compile)
        if not compile:  # before every layer, so that a cancelled run ends within an image and not after it
            for module in self.model.modules():
                module.register_forward_pre_hook(_end_if_cancelled)
        # Not CoreModelPatcher: from 0.25 on that may stream weights into layers of ComfyUI's own making only.
        self.patcher = _Patcher(self.model, load_device=device, offload_device=offload)

    def segment(self, images: Tensor, size: Size = None, *, frames_per_step: int = 0, **options: Any) -> Tensor:
        """Images B, H, W, C -> masks B, H, W float32 on ComfyUI's intermediate device.

        Args:
            images: As ComfyUI has them.
            size: See ``Segmenter.network_size``.
            frames_per_step: Images at a time; 0 takes as many as fit well.
            options: Passed on to the Segmenter.
        """
        segmenter = self._segmenter
        segmenter.batch_size = 1
        height, width = segmenter.network_size(size, *images.shape[1:3])
        one = segmenter.memory_required(height, width, device=self.device)
        mm.load_models_gpu([self.patcher], memory_required=one * max(1, frames_per_step), force_full_load=True)
        segmenter.batch_size = frames_per_step or self._frames_that_fit(one, len(images))
        return segmenter(images, size, progress=progress_bar(), **options).to(mm.intermediate_device())

    def encode_image(self, image: Tensor, image_size: int | None = None) -> Tensor:
        """What ComfyUI's own Remove Background node calls: images -> masks, with this checkpoint's preprocessing."""
        return self.segment(image, image_size).to(getattr(mm, "intermediate_dtype", lambda: torch.float32)())

    def _frames_that_fit(self, one: int, frames: int) -> int:
        if self.device.type == "cpu":
            return 1
        return int(max(1, min(frames, MOST_FRAMES_AT_ONCE, mm.get_free_memory(self.device) // 2 // one)))


class _Patcher(ModelPatcher):
    """Loads in one piece, and lets go of the handle when ComfyUI unloads the model, as by "Unload models"."""

    def partially_load(self, device_to: torch.device, extra_memory: float = 0, **options: Any) -> Any:
        # Plain layers cannot fetch their weights when they run: under --novram all of them would stay behind.
        return super().partially_load(device_to, WHOLE_MODEL, **options)

    def detach(self, unpatch_all: bool = True) -> Any:
        if unpatch_all and _latest and _latest[0].patcher is self:  # else it is about to be loaded again
            _latest.clear()
        return super().detach(unpatch_all)


def _end_if_cancelled(module: torch.nn.Module, inputs: tuple) -> None:
    mm.throw_exception_if_processing_interrupted()


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
        return pick(DTYPES, name, "dtype")
    return torch.float16 if device.type == "cuda" and mm.should_use_fp16(device) else torch.float32


_loaded: weakref.WeakValueDictionary[tuple, ModelHandle] = weakref.WeakValueDictionary()
_latest: deque[ModelHandle] = deque(maxlen=1)


def load(
    name: str, dtype: str, device: str, patch_order: str, adapter: str = NO_ADAPTER, compile: bool = False
) -> ModelHandle:
    """Loads a model, or returns the one that is already loaded from the same file with the same options.

    Raises:
        CheckpointError: No such model, or one that cannot be fetched or read.
    """
    problem = check_model_name(name)
    if problem is not True:
        raise CheckpointError(problem)
    target = torch.device("cpu") if device == "cpu" else mm.get_torch_device()
    options = str(target), dtype, patch_order, file_stamp(adapter), compile
    handle = _loaded.get((file_stamp(name), *options))
    if handle is None:
        model = core(".checkpoints.load").load_model(
            find_file(name) or name,
            dtype=choose_dtype(dtype, target),
            patch_order=patch_order,
            adapter=None if adapter == NO_ADAPTER else find_file(adapter) or adapter,
            folders=model_folders(),
            download_dir=Path(folder_paths.get_folder_paths(MODEL_FOLDER)[0]),
            progress=progress_bar(),
        )
        # The stamp again: a download has just put the file there.
        handle = _loaded[(file_stamp(name), *options)] = ModelHandle(model, target, compile)
        logger.info("BiRefNet %s on %s in %s; patch order %s (%s)", name, target, choose_dtype(dtype, target),
                    model.checkpoint.patch_order.value, model.checkpoint.patch_order_source)  # fmt: skip
    _latest.append(handle)
    return handle


# Images and masks


def to_rgb(images: Tensor) -> Tensor:
    """Images with 1, 3 or 4 channels -> 3; alpha is dropped."""
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise ImageError(f"expected images B, H, W with 1, 3 or 4 channels, found shape {tuple(images.shape)}.")
    return images[..., :3].expand(-1, -1, -1, 3)


def for_work(*tensors: Tensor | None) -> list[Tensor | None]:
    """Tensors on the GPU if there is room to work on them there, else on the CPU."""
    needed = ROOM_FOR_WORK * sum(t.numel() * 4 for t in tensors if t is not None)
    device = mm.get_torch_device()
    if device.type != "cpu" and mm.get_free_memory(device) < needed:
        device = torch.device("cpu")
    return [t if t is None else t.to(device) for t in tensors]


def as_result(tensor: Tensor) -> Tensor:
    """A result where ComfyUI keeps results."""
    return tensor.to(mm.intermediate_device())


def region_of(mask: Tensor | None, boxes: Any) -> Any:
    """Where to look, as the Segmenter takes it: a mask, else boxes, else None.

    Args:
        mask: B, h, w, or None.
        boxes: What other nodes give: a box {"x", "y", "width", "height"} in pixels, one for each image, or for each
            image a list of boxes, which is looked at as a whole. Or None.

    Raises:
        ImageError: Boxes of another form.
    """
    if mask is not None or boxes is None or isinstance(boxes, dict):
        return boxes if mask is None else mask.float()
    try:
        return [box if isinstance(box, dict) else _around(box) for box in boxes]
    except (TypeError, KeyError, ValueError) as error:
        raise ImageError(f"box is {boxes!r}, expected x, y, width and height in pixels for each image.") from error


def _around(boxes: Sequence[dict]) -> dict[str, float]:
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    right, bottom = (max(box[a] + box[b] for box in boxes) for a, b in (("x", "width"), ("y", "height")))
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def preview(images: Tensor, node: type[io.ComfyNode]) -> Any:
    """Pictures shown in the node itself; the first few of a batch."""
    return ui.PreviewImage(images[:PREVIEWS].float(), cls=node)
