"""Transfer functions: HDR colours to SDR for the network, SDR backgrounds to HDR, and linear light for EXR.

Colours are [..., 3] in [0, 1], coded as in the clip. PQ and HLG are those of ITU-R BT.2100; 1 in linear light is the
white of SDR, 203 cd/m2 (ITU-R BT.2408). Half precision is computed in float32, and comes back as that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .autocast import at_least_float32, without_autocast
from .errors import ConfigError

TRANSFERS = ("sdr", "pq", "hlg")
SDR_WHITE = 203.0
PQ_PEAK, HLG_PEAK = 10000.0, 1000.0
# BT.2100, table 4.
M1, M2 = 2610 / 16384, 2523 / 4096 * 128
C1, C2, C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# BT.2100, table 5.
A, B, C = 0.17883277, 0.28466892, 0.55991073
HLG_GAMMA = 1.2  # of a display of 1000 cd/m2
LUMA_2020 = (0.2627, 0.6780, 0.0593)
# To BT.709 in linear light, by FFmpeg's number of the primaries: BT.2020 (BT.2087), and P3 of displays.
TO_709 = {
    9: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    12: ((1.2249, -0.2249, 0.0), (-0.0421, 1.0421, 0.0), (-0.0196, -0.0786, 1.0982)),
}
KNEE = 0.8  # brighter is compressed instead of cut, so that highlights keep their shapes


@without_autocast
def to_sdr(colours: Tensor, transfer: str, primaries: int) -> Tensor:
    """HDR colours as a network trained on photographs knows them.

    Args:
        colours: [..., 3] in [0, 1].
        transfer: "pq" or "hlg"; "sdr" is left as it is.
        primaries: FFmpeg's number; those of ``TO_709`` are converted.

    Returns:
        [..., 3] in [0, 1], sRGB.

    Raises:
        ConfigError: Another transfer function, here and below.
    """
    wide = _checked(colours, transfer)
    if transfer == "sdr":
        return colours
    light = to_linear(wide, transfer)
    if primaries in TO_709:
        light = (light @ light.new_tensor(TO_709[primaries]).T).clamp_(min=0)
    peak = light.amax(-1, keepdim=True).clamp_(min=1e-6)
    over = (peak - KNEE).clamp_(min=0)
    mapped = peak.clamp(max=KNEE) + (1 - KNEE) * over / (over + 1 - KNEE)
    return srgb_from_linear(light * (mapped / peak))


@without_autocast
def from_sdr(colours: Tensor, transfer: str, primaries: int) -> Tensor:
    """sRGB colours in the coding of an HDR clip; the inverse of ``to_sdr`` below its knee."""
    wide = _checked(colours, transfer)
    if transfer == "sdr":
        return colours
    light = linear_from_srgb(wide)
    if primaries in TO_709:
        light = (light @ torch.linalg.inv(light.new_tensor(TO_709[primaries])).T).clamp_(min=0)
    light = light * SDR_WHITE
    if transfer == "pq":
        y = (light / PQ_PEAK).clamp_(0, 1).pow_(M1)
        return ((C1 + C2 * y) / (1 + C3 * y)).pow_(M2)
    luma = (light @ light.new_tensor(LUMA_2020)).unsqueeze(-1).clamp_(min=1e-6)
    scene = (light / HLG_PEAK * (luma / HLG_PEAK).pow(1 / HLG_GAMMA - 1)).clamp_(0, 1)
    high = A * torch.log((12 * scene - B).clamp_(min=1e-6)) + C
    return torch.where(scene <= 1 / 12, (3 * scene).sqrt(), high).clamp_(0, 1)


@without_autocast
def to_linear(colours: Tensor, transfer: str) -> Tensor:
    """Colours in linear light, where 1 is the white of SDR; the primaries stay."""
    colours = _checked(colours, transfer)
    if transfer == "sdr":
        return linear_from_srgb(colours)
    if transfer == "pq":
        y = colours.clamp(0, 1).pow_(1 / M2)
        light = ((y - C1).clamp_(min=0) / (C2 - C3 * y)).pow_(1 / M1) * PQ_PEAK
        return light / SDR_WHITE
    high = (((colours - C) / A).exp() + B) / 12
    scene = torch.where(colours <= 0.5, colours.square() / 3, high)
    luma = (scene @ scene.new_tensor(LUMA_2020)).unsqueeze(-1).clamp_(min=1e-6)
    return scene * luma.pow(HLG_GAMMA - 1) * (HLG_PEAK / SDR_WHITE)


def linear_from_srgb(colours: Tensor) -> Tensor:
    """IEC 61966-2-1."""
    return torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055).clamp(min=0).pow(2.4))


def srgb_from_linear(light: Tensor) -> Tensor:
    """IEC 61966-2-1; light above 1 is cut."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.pow(1 / 2.4) - 0.055)


def _checked(colours: Tensor, transfer: str) -> Tensor:
    """The colours in float32 at least: PQ spans more than half precision can hold."""
    if transfer not in TRANSFERS:
        raise ConfigError(f"transfer is {transfer!r}, expected one of {', '.join(TRANSFERS)}.")
    return at_least_float32(colours)
