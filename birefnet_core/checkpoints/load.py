"""Weights -> network, and network -> file.

Reading goes one way: file -> tensors by name -> published names -> configuration -> our names, with the
patch convolutions brought into the network's order -> network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..config import BiRefNetConfig, PatchOrder
from ..errors import CheckpointError, ConfigError
from ..network import BiRefNet
from . import detect, keymap
from .io import read_file, write_safetensors
from .patch_order import PatchOrderEvidence, change_patch_order, read_patch_order

logger = logging.getLogger(__name__)

FORMAT = "birefnet_core/1"  # layout of the metadata below
DEFAULT_TRAINING_SIZE = (1024, 1024)

# Buffers that follow from the architecture, or only count; some converters leave them out.
_DERIVED = ("relative_position_index", "num_batches_tracked")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """Where a network's weights came from, and what belongs to them.

    Attributes:
        name: Catalogue name, or the file's name.
        path: The file; None for a state dict.
        training_size: Width, height the network was trained at, in pixels.
        patch_order: The order the file was read in.
        patch_order_source: "metadata", "weights", "catalogue", "user" or "default".
        patch_order_evidence: What the weights say about it; None where nobody asked them.
        licence: Licence of the weights, where known.
        provenance: What the file says of its own making.
    """

    name: str = ""
    path: Path | None = None
    training_size: tuple[int, int] = DEFAULT_TRAINING_SIZE
    patch_order: PatchOrder = PatchOrder.CHANNELS_FIRST
    patch_order_source: str = "default"
    patch_order_evidence: PatchOrderEvidence | None = None
    licence: str = ""
    provenance: str = ""


def model_from_state_dict(
    state_dict: Mapping[str, Tensor],
    *,
    patch_order: PatchOrder | str = "auto",
    config: BiRefNetConfig | None = None,
    dtype: torch.dtype | None = None,
) -> BiRefNet:
    """Builds the network a state dict belongs to.

    Args:
        state_dict: Published names or our own, with or without wrapper prefixes. Tensors are copied.
        patch_order: The order the published names' patch convolutions are in; "auto" asks the weights,
            and takes today's order where they do not tell. Our own names are always in today's order.
        config: The architecture; None detects it.
        dtype: Floating-point type of the network; None keeps that of the weights.

    Returns:
        The network on the CPU, in eval mode.

    Raises:
        CheckpointError: Not a BiRefNet, or not a whole one; the message says what differs.
        ConfigError: An unknown patch order.
    """
    return build(state_dict, patch_order=patch_order, config=config, dtype=dtype)


def load_file(
    path: str | os.PathLike[str],
    *,
    patch_order: PatchOrder | str = "auto",
    expected_order: PatchOrder | None = None,
    dtype: torch.dtype | None = torch.float32,
    info: CheckpointInfo | None = None,
) -> BiRefNet:
    """Builds the network of a checkpoint file.

    Args:
        path: A .safetensors, .pth or .pt file.
        patch_order: See ``model_from_state_dict``; "auto" trusts the file's metadata, then the weights,
            then ``expected_order``.
        expected_order: What the catalogue says.
        dtype: Floating-point type of the network; None keeps that of the file.
        info: What the catalogue says of the file.

    Raises:
        CheckpointError: See ``model_from_state_dict`` and ``io.read_file``.
    """
    file = read_file(path)
    info = dataclasses.replace(info or CheckpointInfo(name=file.path.stem), path=file.path)
    try:
        metadata = _parse_metadata(file.metadata)
        if metadata:
            info = dataclasses.replace(info, **metadata["info"])
            if patch_order == "auto" and metadata["config"]:
                patch_order = metadata["config"].patch_order
                info = dataclasses.replace(info, patch_order_source="metadata")
        return build(
            file.tensors,
            patch_order=patch_order,
            expected_order=expected_order,
            config=metadata["config"] if metadata else None,
            dtype=dtype,
            info=info,
        )
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def build(
    tensors: Mapping[str, Tensor],
    *,
    patch_order: PatchOrder | str = "auto",
    expected_order: PatchOrder | None = None,
    config: BiRefNetConfig | None = None,
    dtype: torch.dtype | None = None,
    info: CheckpointInfo | None = None,
) -> BiRefNet:
    """Copies tensors into a new network. See ``model_from_state_dict``."""
    _check_tensors(tensors)
    tensors = detect.strip_wrappers(tensors)
    info = info or CheckpointInfo(name="state dict")
    if detect.has_own_names(tensors):
        if patch_order not in ("auto", PatchOrder.CHANNELS_FIRST):
            raise ConfigError("weights under our own names are always channels_first: use patch_order='auto'.")
        patch_order = PatchOrder.CHANNELS_FIRST
        tensors = _own_to_published(tensors)
    config = config or detect.detect_config(tensors)
    order, info = _decide_order(tensors, patch_order, expected_order, info)
    config = config.replace(patch_order=order)

    renamed, unexpected = keymap.from_published(tensors, config)
    weights = {ours: tensors[published] for published, ours in renamed.items()}
    for name in weights:
        if name.endswith("inward.conv_in.weight"):
            weights[name] = change_patch_order(weights[name], order, PatchOrder.CHANNELS_FIRST)
    with without_initialisation():
        model = BiRefNet(config)
    _fill(model, weights, unexpected, dtype)
    model.checkpoint = info
    return model.eval()


def _check_tensors(tensors: Mapping[str, Tensor]) -> None:
    if not isinstance(tensors, Mapping) or not tensors:
        raise CheckpointError(f"expected a state dict (names with tensors), found an empty or other {type(tensors)}.")
    wrong = next((name for name, value in tensors.items() if not isinstance(value, Tensor)), None)
    if wrong is not None:
        raise CheckpointError(f"expected a state dict (names with tensors), found {wrong!r}: {type(tensors[wrong])}.")


def _own_to_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    family, block = detect.own_name_family(tensors), detect.own_name_block(tensors)
    table = keymap.key_table(family, block)
    names, unknown = keymap.translate_all(tensors, table)
    if unknown:
        raise CheckpointError(_difference([], unknown, {}))
    return {names[name]: tensor for name, tensor in tensors.items()}


def _decide_order(
    tensors: Mapping[str, Tensor],
    wanted: PatchOrder | str,
    expected: PatchOrder | None,
    info: CheckpointInfo,
) -> tuple[PatchOrder, CheckpointInfo]:
    """Which order the published names' patch convolutions are in, and how that is known."""
    if wanted != "auto":
        try:
            order = PatchOrder(wanted)
        except ValueError:
            known = ", ".join(repr(o.value) for o in PatchOrder)
            raise ConfigError(f"patch_order={wanted!r} is not known; choose 'auto' or one of {known}.") from None
        source = info.patch_order_source if info.patch_order_source == "metadata" else "user"
        return order, dataclasses.replace(info, patch_order=order, patch_order_source=source)
    patches = [t for n, t in tensors.items() if n.startswith("decoder.ipt_blk") and n.endswith(".conv1.weight")]
    evidence = read_patch_order(patches)
    fallback, source = (expected, "catalogue") if expected else (PatchOrder.CHANNELS_FIRST, "default")
    order = evidence.order or fallback
    if evidence.order:
        source = "weights"
        if expected and expected is not order:
            logger.warning("%s: the catalogue expects %s, the weights say %s", info.name, expected.value, evidence)
    elif patches:
        logger.info("%s: patch order %s (%s); %s", info.name, order.value, source, evidence)
    return order, dataclasses.replace(
        info, patch_order=order, patch_order_source=source, patch_order_evidence=evidence
    )


class _WithoutInitialisation(TorchFunctionMode):
    """Turns in-place operations on parameters, which is what initialisation consists of, into nothing."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        target = args[0] if args else (kwargs or {}).get("tensor")  # torch.nn.init passes it by name
        if name.endswith("_") and not name.endswith("__") and isinstance(target, nn.Parameter):
            return target
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def without_initialisation() -> Iterator[None]:
    """Modules made in this context have parameters of undefined values, at no cost.

    For networks whose weights all come from a file. Buffers, which may follow from the architecture
    rather than from a file, are computed as usual; that is why this is not torch's meta device.
    """
    with _WithoutInitialisation():
        yield


def _fill(model: BiRefNet, weights: dict[str, Tensor], unexpected: list[str], dtype: torch.dtype | None) -> None:
    """Puts weights in place, all or none."""
    expected = model.state_dict()
    for name, value in expected.items():
        if name not in weights and name.endswith(_DERIVED):
            weights[name] = value
    missing = [name for name in expected if name not in weights]
    shapes = {
        name: (tuple(weights[name].shape), tuple(value.shape))
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    }
    extra = unexpected + [name for name in weights if name not in expected]
    if missing or extra or shapes:
        raise CheckpointError(_difference(missing, extra, shapes))
    if dtype is None:
        dtype = next(w.dtype for n, w in weights.items() if w.is_floating_point() and n.endswith(".weight"))
    # Copied in any case: tensors of a file are views of the file, which may go away, and lie at odd addresses.
    types = {name: dtype if value.is_floating_point() else value.dtype for name, value in expected.items()}
    weights = {name: value.detach().to("cpu", types[name], copy=True) for name, value in weights.items()}
    model.load_state_dict(weights, assign=True)
    model.to(dtype)  # buffers that are in no file
    model.requires_grad_(True)


def _difference(missing: list[str], extra: list[str], shapes: Mapping[str, tuple]) -> str:
    """A short diagnosis: how much differs, and the first few names of each kind."""

    def some(names: list[str]) -> str:
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    parts = []
    if missing:
        parts.append(f"{len(missing)} weights are missing ({some(missing)})")
    if extra:
        parts.append(f"{len(extra)} are unknown ({some(extra)})")
    if shapes:
        details = [f"{name}: {found} for {wanted}" for name, (found, wanted) in shapes.items()]
        parts.append(f"{len(shapes)} have another shape ({some(details)})")
    return (
        f"the weights do not fit the network: {'; '.join(parts)}. The file may be incomplete, or of a variant this "
        "package does not know."
    )


def save_checkpoint(
    model: BiRefNet,
    path: str | os.PathLike[str],
    *,
    training_size: tuple[int, int] | None = None,
    licence: str | None = None,
    provenance: str | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Writes a network as a .safetensors file under the published names, for this package and every other.

    The patch convolutions are written in ``model.config.patch_order``. The metadata carries the
    configuration, training size, licence and provenance; what is not given is taken from the
    checkpoint the network came from. Loading the file back gives the same network bit for bit.

    Args:
        model: The network.
        path: A file ending in .safetensors; its folder is made if need be.
        training_size: Width, height in pixels.
        licence: Licence of the weights, such as "MIT".
        provenance: Where the weights come from, in words.
        dtype: Floating-point type in the file; None keeps the network's.

    Returns:
        The path.

    Raises:
        CheckpointError: It could not be written; nothing half-written stays behind.
    """
    config, info = model.config, model.checkpoint or CheckpointInfo()
    state = model.state_dict()
    names = keymap.to_published(state, config)
    tensors = {}
    for ours, published in names.items():
        tensor = state[ours].detach().cpu()
        if ours.endswith("inward.conv_in.weight"):
            tensor = change_patch_order(tensor, PatchOrder.CHANNELS_FIRST, config.patch_order)
        tensors[published] = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
    metadata = {
        "format": "pt",
        "birefnet_format": FORMAT,
        "birefnet_config": json.dumps(config.to_dict(), sort_keys=True),
        "training_size": "{}x{}".format(*(training_size or info.training_size)),
        "licence": licence if licence is not None else info.licence,
        "provenance": provenance if provenance is not None else info.provenance or info.name,
    }
    return write_safetensors(path, tensors, metadata)


def _parse_metadata(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What ``save_checkpoint`` wrote; None for files of other origin."""
    if "birefnet_config" not in metadata:
        return None
    try:
        config = BiRefNetConfig.from_dict(json.loads(metadata["birefnet_config"]))
        width, height = (int(side) for side in metadata["training_size"].split("x"))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"its metadata cannot be read ({error}).") from error
    return {
        "config": config,
        "info": {
            "training_size": (width, height),
            "licence": metadata.get("licence", ""),
            "provenance": metadata.get("provenance", ""),
        },
    }
