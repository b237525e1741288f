"""The network as an ONNX file, for runtimes without PyTorch."""

from __future__ import annotations

import copy
import errno
import importlib.util
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoint_info import LARGEST_SIDE
from .checks import check_switch, is_whole
from .errors import CheckpointError, ConfigError
from .files import atomic_path, check_writable, free_space, make_parent, path_of, stream_conflict
from .inference.transforms import IMAGENET_MEAN, IMAGENET_STD
from .network import BiRefNet, fuse_for_inference
from .network.birefnet import check_network
from .out_of_memory import out_of_memory_as
from .text import first_line

_TORCH = "2.7"  # those before it have no such exporter, or write files that onnxruntime refuses
LARGEST = 1536 * 2**20  # bytes of weights; of more, torch writes them to a second file, which would keep a part's name
TOLERANCE = 1e-3  # of the exported masks against the network's
EXPORTER = ("torch", "onnx", "onnxscript", "onnx_ir", "copyreg")  # packages whose warnings are about themselves


class MaskNetwork(nn.Module):
    """Image in [0, 1] -> mask: normalisation, network and sigmoid in one graph, in float32.

    Args:
        model: The network; unchanged.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: BiRefNet) -> None:
        super().__init__()
        in_float32 = all(parameter.dtype == torch.float32 for parameter in model.parameters())
        self.network = fuse_for_inference(model if in_float32 else copy.deepcopy(model).float())
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """B, 3, H, W in [0, 1] -> B, 1, H, W in [0, 1]."""
        return torch.sigmoid(self.network((image - self.mean) / self.std).logits)


def check_place(path: str | Path) -> None:
    """Finds out, without a network, whether an ONNX file can be made here and written to a path; makes its folder.

    Raises:
        ConfigError: Packages for exporting are missing or too old, or the name does not fit.
        CheckpointError: No file can be written there.
    """
    path = path_of(path, "path")
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"exporting needs {' and '.join(missing)}: pip install {' '.join(missing)} onnxruntime")
    if torch.__version__ < _TORCH:
        raise ConfigError(f"exporting needs torch {_TORCH} or newer; found torch {torch.__version__}.")
    if path.suffix.lower() != ".onnx":
        raise ConfigError(f"{path}: an ONNX file ends in .onnx.")
    if os.path.isdir(path):
        raise CheckpointError(f"{path}: is a folder, expected the name of a file.")
    if (conflict := stream_conflict(path)) is not None:
        raise CheckpointError(f"{conflict}.")
    with _not_written(path):
        make_parent(path)
        check_writable(path)


@contextmanager
def _not_written(path: Path) -> Iterator[None]:
    """Errors of the system as a CheckpointError that names the file."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: not written ({error.strerror or first_line(error)}).") from error


def export_onnx(
    model: BiRefNet,
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    dynamic_batch: bool = False,
    overwrite: bool = True,
) -> Path:
    """Writes an ONNX file: input ``image`` B, 3, H, W in [0, 1], output ``mask`` B, 1, H, W.

    Args:
        model: The network, on the CPU; unchanged.
        path: A file ending in .onnx; its folder is made if need be.
        size: Width, height of the input, multiples of 32; None for the checkpoint's training size.
        dynamic_batch: Leave the number of images open; otherwise it is 1.
        overwrite: Whether to replace a file that is there by the time it is written.

    Returns:
        The path.

    Raises:
        ConfigError: Packages for exporting are missing or too old, the name or size does not fit, the network is too
            large, or what is given is of another kind.
        CheckpointError: The file cannot be written, which is found before exporting as far as it can be known.
        MemoryLimitError: Memory does not suffice for the size.
    """
    check_network(model)
    path = path_of(path, "path")
    for name, switch in (("dynamic_batch", dynamic_batch), ("overwrite", overwrite)):
        check_switch(name, switch)
    if size is not None and not (isinstance(size, Sequence) and len(size) == 2 and all(map(is_whole, size))):
        raise ConfigError(f"size={size!r}: expected (width, height) in whole pixels, or None.")
    check_place(path)
    width, height = size or (model.checkpoint.training_size if model.checkpoint else (1024, 1024))
    if not all(model.min_side <= side <= LARGEST_SIDE and side % 32 == 0 for side in (width, height)):
        sides = f"{model.min_side} to {LARGEST_SIDE}"
        raise ConfigError(f"size {width} x {height}: sides must be multiples of 32, from {sides}.")
    network = MaskNetwork(model).eval()
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    if weights > LARGEST:
        raise ConfigError(
            f"the network has {weights / 1e9:.1f} GB of weights in float32, an ONNX file holds {LARGEST / 1e9:.1f} GB: "
            "export one with a smaller encoder."
        )
    with _not_written(path):
        free = free_space(path.parent)
        if free is not None and free < weights:
            sizes = f"{weights / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free"
            raise OSError(errno.ENOSPC, f"the disk is full: {sizes}; free some space, or give another folder")
    shapes = {"image": {0: torch.export.Dim("batch")}} if dynamic_batch else None
    with (
        warnings.catch_warnings(),
        out_of_memory_as(
            lambda reason: f"too little memory to export at {width} x {height} pixels ({reason}). Give a smaller size."
        ),
    ):
        example = torch.rand(2 if dynamic_batch else 1, 3, height, width)
        for package in EXPORTER:
            warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")
        program = torch.onnx.export(
            network, (example,), dynamo=True, verbose=False,
            input_names=["image"], output_names=["mask"], dynamic_shapes=shapes,
        )  # fmt: skip
    assert program is not None  # only the older exporter gives none
    with _not_written(path), atomic_path(path, replace=overwrite) as part:
        program.save(part)
    return path


def check_onnx(model: BiRefNet, path: str | Path) -> float:
    """Largest difference between the masks of an ONNX file and of the network, on one random image.

    Raises:
        ConfigError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError("checking needs onnxruntime: pip install onnxruntime") from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shape = [side if isinstance(side, int) else 1 for side in session.get_inputs()[0].shape]
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    (found,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        expected = MaskNetwork(model)(image).numpy()
    return float(np.abs(found - expected).max())
