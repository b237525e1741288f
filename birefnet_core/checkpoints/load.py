"""Weights -> network.

Reading goes one way: file -> tensors by name -> published names -> configuration -> our names, with the
patch convolutions brought into the network's order -> network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..config import BiRefNetConfig, PatchOrder
from ..devices import choose_device, choose_dtype
from ..errors import CheckpointError, ConfigError
from ..network import BiRefNet
from ..network.cast import cast_for_inference, state_dtypes
from . import detect, keymap
from .adapter import merge_adapter
from .half import fit_float16
from .io import read_file
from .patch_order import PatchOrderEvidence, change_patch_order, read_patch_order
from .resolve import resolve

logger = logging.getLogger(__name__)

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


def load_model(
    source: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
    patch_order: PatchOrder | str = "auto",
    adapter: str | os.PathLike[str] | None = None,
    adapter_strength: float = 1.0,
    folders: Iterable[str | os.PathLike[str]] = (),
    cache_dir: str | os.PathLike[str] | None = None,
    download_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BiRefNet:
    """Finds a checkpoint, downloads it if this disk does not have it, and builds its network.

    Args:
        source: Catalogue name, Hub repository ``owner/name`` (with ``@revision`` if wanted), folder, or file.
        device: Where to put the network; "auto" chooses.
        dtype: Precision of the network, whatever that of the file; "auto" chooses by device.
        patch_order: See ``model_from_state_dict``; "auto" trusts the file's own metadata, then its weights,
            then the catalogue.
        adapter: File of a low-rank adapter to merge into the weights; None for none.
        adapter_strength: 1 for the whole of the adapter's change, 0 for none.
        folders: Where names are looked for before the Hub's cache.
        cache_dir: The Hub's cache; None for HF_HUB_CACHE, HF_HOME or the default.
        download_dir: Where downloads go instead of the Hub's cache.
        token: Access token of the Hub; None for HF_TOKEN.
        progress: Called while downloading with the bytes there are and will be.

    Returns:
        The network in eval mode; its ``checkpoint`` says where it came from.

    Raises:
        CheckpointError: Not found, not fetched, not read, or not a BiRefNet; the message says what to do.
        ConfigError: A device, dtype or patch order that does not exist here.
    """
    device = choose_device(device)
    dtype = choose_dtype(dtype, device)
    found = resolve(
        source, folders=folders, cache_dir=cache_dir, download_dir=download_dir, token=token, progress=progress
    )
    entry, info, expected = found.entry, None, None
    if entry is not None:
        info = CheckpointInfo(name=entry.name, training_size=entry.training_size, licence=entry.licence)
        expected = entry.patch_order
    model = load_file(found.path, patch_order=patch_order, expected_order=expected, dtype=dtype, info=info)
    if adapter is not None:
        merge_adapter(model, adapter, adapter_strength)
    return model.to(device)


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
    types = state_dtypes(model, dtype)
    if dtype == torch.float16:
        weights = fit_float16(weights)
    weights = {name: value.detach().to("cpu", types[name], copy=True) for name, value in weights.items()}
    model.load_state_dict(weights, assign=True)
    cast_for_inference(model, dtype)  # buffers that are in no file
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


def _parse_metadata(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What ``save.save_checkpoint`` wrote; None for files of other origin."""
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
