"""Weights that follow from their names and shapes alone, so that masks can be compared between machines and versions.

The rule is that of the recorded values in tests/fixtures: each entry is standard normal noise, seeded with the CRC-32
of its published name, and scaled so that activations, offsets and masks stay in a natural range.
"""

from __future__ import annotations

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MANIFESTS = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "manifests"

# Gain of convolutions and linear layers by the end of the name; the first that fits, otherwise 1.
GAINS = {
    "offset_conv.weight": 0.8,
    "modulator_conv.weight": 1.0,
    ".attn.sr.weight": 0.05,
    "conv_in.weight": 1.4,
    "regular_conv.weight": 1.4,
    "global_avg_pool.1.weight": 1.4,
    "dec_att.conv1.weight": 1.4,
    "conv_out1.0.weight": 2.5,
    **{f"patch_embed{stage}.proj.weight": 0.05 for stage in ("", 1, 2, 3, 4)},
    **{f"gdt_convs_{stage}.0.weight": 1.4 for stage in range(10)},
}
HEAD_BIAS = 6.0  # centres the logits of filled networks


def fill(name: str, shape: list[int]) -> Tensor:
    """The float32 weight of a published name."""
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    last = name.rpartition(".")[2]
    if last == "running_mean":
        value = 0.1 * noise
    elif last == "running_var":
        value = np.exp(0.2 * noise).clip(0.5, 2.0)
    elif last in ("relative_position_bias_table", "cls_token", "reg_token"):
        value = 0.5 * noise
    elif last in ("gamma_1", "gamma_2"):
        value = 0.5 + 0.1 * noise
    elif len(shape) > 1:
        gain = next((gain for end, gain in GAINS.items() if name.endswith(end)), 1.0)
        value = noise * (gain / np.sqrt(np.prod(shape[1:])))
    elif name.endswith(tuple(f"patch_embed{stage}.norm.weight" for stage in range(1, 5))):
        value = 0.1 * (1 + 0.1 * noise)
    elif last == "weight":
        value = 1 + 0.1 * noise
    else:
        value = 0.05 * noise + (HEAD_BIAS if name == "decoder.conv_out1.0.bias" else 0)
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def filled_state_dict(variant: str) -> dict[str, Tensor]:
    """A state dict under the published names, without the integer buffers that follow from the architecture.

    Args:
        variant: A file in tests/fixtures/manifests, such as swin_v1_l.
    """
    entries = json.loads((MANIFESTS / f"{variant}.json").read_text())["state_dict"]
    names = [(name, shape) for name, shape, dtype in entries if dtype == "float32"]
    with ThreadPoolExecutor() as pool:  # numpy draws without holding Python's lock
        values = pool.map(lambda entry: fill(*entry), names)
        return dict(zip((name for name, _ in names), values, strict=True))
