"""State dict -> network.

Names are translated into our own first; the configuration is read from them, patch convolutions are brought into the
network's order, and the tensors put into a network that was made without memory behind its weights.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..checkpoint_info import CheckpointInfo
from ..checks import check_switch
from ..config import BiRefNetConfig, PatchOrder
from ..errors import CheckpointError, ConfigError
from ..network import BiRefNet, fuse_for_inference
from ..network.cast import cast_for_inference, state_dtypes
from ..network.encoders.swin import relative_position_index
from ..text import enumerate_names, printable
from . import detect, keymap
from .copying import copy_weights
from .file_data import FileData
from .fit_float16 import (
    combine_scales,
    fit_float16,
    float16_scales,
    names_of_scaled,
    norm_pairs,
    refuse_too_large,
    scale_convolutions,
    undo_float16,
)
from .patch_order import change_patch_order, read_patch_order
from .values import VARIANCE, check_tensors, check_types, refuse_values, refuse_zeros

logger = logging.getLogger(__name__)

_PATCH_CONVOLUTION = "inward.conv_in.weight"
_POSITIONS = "relative_position_index"
# What functions as timm's trunc_normal_ are made of.
_INIT = frozenset(
    getattr(Tensor, name) for name in ("uniform_", "normal_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_")
)


def model_from_state_dict(
    state_dict: Mapping[str, Tensor],
    *,
    patch_order: PatchOrder | str = "auto",
    expected_order: PatchOrder | None = None,
    config: BiRefNetConfig | None = None,
    dtype: torch.dtype | None = None,
    fine_dtype: torch.dtype = torch.float32,
    info: CheckpointInfo | None = None,
    scales: Mapping[str, Tensor] | None = None,
    files: Sequence[FileData] = (),
    fused: bool = False,
) -> BiRefNet:
    """Builds the network a state dict belongs to.

    Args:
        state_dict: Published names or our own, with or without wrapper prefixes. Tensors are copied.
        patch_order: The order the patch convolutions of published names are in; "auto" reads it from the weights.
            Our own names are always in today's order.
        expected_order: The order for "auto" where the weights do not tell; None for today's.
        config: The architecture; None detects it.
        dtype: Floating-point type of the network; None keeps that of the weights.
        fine_dtype: Of what bfloat16 would change too much, see ``cast_for_inference``; float16 for a GPU.
        info: What is known of the weights.
        scales: By what weights (published names) were multiplied to fit into float16, see ``BiRefNet.scales``; it is
            taken back.
        files: That the tensors are to be read from, see ``io.open_file``; checksums are compared as far as possible.
        fused: Whether to fuse the network, for inference only. ``fuse_for_inference`` would fold norms into weights
            that are rounded to ``dtype`` already, and round the result again; here norms are folded first.

    Returns:
        The network on the CPU, in eval mode.

    Raises:
        CheckpointError: Not a BiRefNet, or an incomplete one; the message says what differs.
        ConfigError: An unknown patch order, or no switch.
    """
    check_switch("fused", fused)
    _check_state_dict(state_dict)
    names = detect.strip_wrappers(state_dict)  # name -> name in the state dict
    if detect.has_own_names(names):
        if patch_order not in ("auto", PatchOrder.CHANNELS_FIRST):
            raise ConfigError("weights under our own names are always channels_first: use patch_order='auto'.")
        patch_order = PatchOrder.CHANNELS_FIRST
    else:
        ours, _ = keymap.from_published(names, config)
        names = {ours.get(name, name): original for name, original in names.items()}
    weights = {name: state_dict[original] for name, original in names.items()}
    # Types first: quantized weights have other shapes, too, and their scales beside them.
    known = {name: value for name, value in weights.items() if detect.has_own_names([name]) and ".weight." not in name}
    check_types({names[name]: value for name, value in known.items()})
    if config is None:
        config = detect.detect_config(weights)
    else:
        _check_config(config, weights)
    model = empty_network(config)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    _complete(expected, weights)
    _check_fit(expected, weights)
    check_types({names.get(name, name): value for name, value in weights.items()})
    if dtype is None:
        dtype = next(w.dtype for n, w in weights.items() if w.is_floating_point() and n.endswith(".weight"))
    copies = _copy(model, weights, names, dtype, fine_dtype, scales or {}, files, fused)
    _check_positions(copies)
    patches = {name: value for name, value in copies.items() if name.endswith(_PATCH_CONVOLUTION)}
    info = _decide_order(patches.values(), patch_order, expected_order, info or CheckpointInfo(name="state dict"))
    for name, value in patches.items():
        copies[name] = change_patch_order(value, info.patch_order, PatchOrder.CHANNELS_FIRST)
    model.config = config.replace(patch_order=info.patch_order)
    model.checkpoint = info
    _fill(model, copies)
    if fused:
        model = fuse_for_inference(model)
    return cast_for_inference(model, dtype, fine_dtype=fine_dtype).eval()


def empty_network(config: BiRefNetConfig) -> BiRefNet:
    """A network on the meta device."""
    with torch.device("meta"), _WithoutInit():
        return BiRefNet(config)


class _WithoutInit(TorchFunctionMode):
    """Leaves out what modules compute as their first values: on the meta device there are none to compute."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _INIT or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _check_state_dict(tensors: Mapping[str, Tensor]) -> None:
    if not isinstance(tensors, Mapping) or not tensors:
        raise CheckpointError(f"expected a state dict (names with tensors), found an empty or other {type(tensors)}.")
    wrong = next((n for n, v in tensors.items() if not (isinstance(n, str) and isinstance(v, Tensor))), None)
    if wrong is not None:
        raise CheckpointError(f"expected a state dict (names with tensors), found {wrong!r}: {type(tensors[wrong])}.")
    check_tensors(tensors)


def _check_config(config: BiRefNetConfig, weights: Mapping[str, Tensor]) -> None:
    """Compares a configuration with the weights in what decides the size of the network, before it is built."""
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    for option, found in (
        ("backbone", detect.detect_backbone(shapes)),
        ("num_classes", detect.count_classes(shapes)),
    ):
        if getattr(config, option) != found:
            raise CheckpointError(
                f"the configuration says {option}={getattr(config, option)!r}, and the weights are those of {found!r}. "
                "The file's metadata are damaged or of another file."
            )


def _decide_order(
    patches: Collection[Tensor],
    wanted: PatchOrder | str,
    expected: PatchOrder | None,
    info: CheckpointInfo,
) -> CheckpointInfo:
    """Which order the patch convolutions are in, and how that is known."""
    if wanted != "auto":
        try:
            order = PatchOrder(wanted)
        except ValueError:
            known = ", ".join(repr(o.value) for o in PatchOrder)
            raise ConfigError(f"patch_order={wanted!r} is not known; choose 'auto' or one of {known}.") from None
        source = info.patch_order_source if info.patch_order_source == "metadata" else "user"
        return dataclasses.replace(info, patch_order=order, patch_order_source=source)
    evidence = read_patch_order(patches)
    order, source = (expected, "catalogue") if expected else (PatchOrder.CHANNELS_FIRST, "default")
    if evidence.order:
        order, source = evidence.order, "weights"
        if expected and expected is not order:
            name = printable(info.name)
            logger.warning("%s: the catalogue expects %s, the weights say %s", name, expected.value, evidence)
    elif patches:
        logger.info("%s: patch order %s (%s); %s", printable(info.name), order.value, source, evidence)
    return dataclasses.replace(info, patch_order=order, patch_order_source=source, patch_order_evidence=evidence)


def _complete(expected: Mapping[str, tuple[int, ...]], weights: dict[str, Tensor]) -> None:
    """Adds what follows from the architecture, which some converters leave out."""
    for name, shape in expected.items():
        if name not in weights and name.endswith(_POSITIONS):
            weights[name] = relative_position_index(math.isqrt(shape[0]))
        elif name not in weights and name.endswith("num_batches_tracked"):
            weights[name] = torch.zeros(shape, dtype=torch.int64, device="cpu")


def _check_positions(copies: Mapping[str, Tensor]) -> None:
    """Refuses positions that a window does not have."""
    for name, value in copies.items():
        if name.endswith(_POSITIONS):
            index = relative_position_index(math.isqrt(value.shape[0]))
            if not torch.equal(value.to(index), index):
                raise CheckpointError(f"{name} is damaged, it holds other positions than a window has.")


def _read(weights: Mapping[str, Tensor], names: Iterable[str], files: Sequence[FileData]) -> dict[str, Tensor]:
    """Some of the weights as they are, but in memory: the values of others may not be looked at, see ``open_file``."""
    wanted = {name: weights[name] for name in names if name in weights}
    if not files:
        return wanted
    return copy_weights(wanted, {name: value.dtype for name, value in wanted.items()}, files)[0]


def _copy(
    model: BiRefNet,
    weights: dict[str, Tensor],
    names: Mapping[str, str],
    dtype: torch.dtype,
    fine_dtype: torch.dtype,
    scales: Mapping[str, Tensor],
    files: Sequence[FileData],
    fused: bool,
) -> dict[str, Tensor]:
    """Copies of weights in the precision of a network, on the CPU.

    Args:
        model: The network, on the meta device; what weights were scaled by to fit into float16 is noted in it.
        weights: By our names.
        names: Those in the file, by ours.
        dtype: See ``model_from_state_dict``, as all others.
        fine_dtype: See there.
        scales: See there.
        files: See there.
        fused: See there; norms and the convolutions that they are to be folded into stay in float32.

    Raises:
        CheckpointError: Values that no network computes a mask with, or that do not fit into its precision.
    """
    if scales:
        ours, unknown = keymap.from_published(scales, model.config)
        known = {**ours, **dict(zip(unknown, unknown, strict=True))}
        by_name = {known[name]: scale for name, scale in scales.items()}
        weights |= _read(weights, names_of_scaled(model, by_name), files)
        weights, model.scales = undo_float16(model, weights, by_name)
    half = _needs_float16(dtype, fine_dtype)
    if half:
        weights |= _read(weights, [name for name in weights if name.endswith(VARIANCE)], files)
        more = float16_scales(model, weights)
        model.scales = combine_scales(model.scales, more)
        weights |= _read(weights, names_of_scaled(model, more), files)
        weights = scale_convolutions(model, weights, more)
    types = state_dtypes(model, dtype, fine_dtype=fine_dtype)
    if fused:
        to_fold = tuple(f"{name}." for pair in norm_pairs(model) for name in pair)
        for name, kind in types.items():
            if name.startswith(to_fold) and kind.is_floating_point:
                types[name] = torch.promote_types(kind, torch.float32)
    copies, magnitudes = copy_weights(weights, types, files)
    originals = {names.get(name, name): value for name, value in copies.items()}
    largest = {names.get(name, name): magnitudes[name] for name in weights}
    refuse_values(originals, largest)
    refuse_zeros(originals, largest)
    if half:
        refuse_too_large({name: magnitudes[name] for name, value in weights.items() if value.is_floating_point()})
    return copies


def _fill(model: BiRefNet, weights: Mapping[str, Tensor]) -> None:
    """Puts weights into a network on the meta device, the tensors themselves.

    What ``load_state_dict(assign=True)`` does, in a third of the time: that they fit has been checked.
    """
    for prefix, module in model.named_modules():
        start = f"{prefix}." if prefix else ""
        for name, _ in [*module.named_parameters(recurse=False)]:
            setattr(module, name, nn.Parameter(weights[start + name]))
        for name, _ in [*module.named_buffers(recurse=False)]:
            if start + name in weights:
                setattr(module, name, weights[start + name])
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):  # in no file: DINOv3's rotary frequencies
            module.to_empty(device="cpu", recurse=False)
            module.reset_parameters()  # type: ignore[operator]


def _needs_float16(dtype: torch.dtype, fine_dtype: torch.dtype) -> bool:
    return dtype == torch.float16 or (dtype == torch.bfloat16 and fine_dtype == torch.float16)


def convert(model: BiRefNet, dtype: torch.dtype, fine_dtype: torch.dtype) -> BiRefNet:
    """Gives a network in float32, in place, the precision in which ``model_from_state_dict`` would have made it.

    Raises:
        CheckpointError: It does not fit into float16.
    """
    if _needs_float16(dtype, fine_dtype):
        weights = model.state_dict()
        scales = float16_scales(model, weights)
        model.scales = combine_scales(model.scales, scales)
        model.load_state_dict(fit_float16(model, weights, scales))
    return cast_for_inference(model, dtype, fine_dtype=fine_dtype)


def _check_fit(expected: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor]) -> None:
    """Says how much differs, with the first few names of each kind.

    Raises:
        CheckpointError: Anything differs.
    """
    missing = [name for name in expected if name not in weights]
    extra = [name for name in weights if name not in expected]
    shapes = [
        f"{name}: {tuple(weights[name].shape)} for {shape}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    parts = []
    if missing:
        parts.append(f"{len(missing)} weights are missing ({enumerate_names(missing)})")
    if extra:
        parts.append(f"{len(extra)} are unknown ({enumerate_names(extra)})")
    if shapes:
        parts.append(f"{len(shapes)} have another shape ({enumerate_names(shapes)})")
    if parts:
        raise CheckpointError(
            f"the weights do not fit the network: {'; '.join(parts)}. The file may be incomplete, or of a variant this "
            "package does not know."
        )
