"""Colour profiles (ICC) of images: what numbers are in sRGB. By Pillow's colour engine, which some builds lack."""

from __future__ import annotations

import contextlib
import io
from functools import lru_cache

import numpy as np
from PIL import Image

_FARTHEST_GREY = 40  # of 255, from sRGB; those of gamma 1.8 (ProPhoto) are 20 off, those of linear light 73
_FARTHEST_COLOUR = 4  # of 255; those of sRGB's own profiles by several makers are up to 2 off, Display P3's 50 and more
_MOST_PROFILE = 4 << 20  # bytes; real ones have up to about 2 MB


def profile_of(image: Image.Image) -> bytes:
    """The profile in an image's file; empty where it has none, or a damaged one."""
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and len(profile) <= _MOST_PROFILE else b""


def space_of(profile: bytes) -> bytes:
    """Which values a profile describes: b"RGB ", b"GRAY", b"CMYK", ...; empty of no profile."""
    return profile[16:20]


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An image in sRGB, with its alpha channel.

    Args:
        image: Of 8 bits a channel.
        profile: What its colours are in; empty for LAB.

    Raises:
        Exception: Of many kinds: there is no colour engine, or the profile is damaged or of other values.
    """
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colours = image if alpha is None else image.convert(image.mode[:-1])
    converted = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    if converted is None:
        raise ValueError("not converted")
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


@lru_cache(maxsize=4)
def is_far_from_srgb(profile: bytes) -> bool:
    """Whether the greys of a profile of RGB are others than in photographs: linear light, or HDR (PQ)."""
    greys = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    return _largest_change(greys, profile) > _FARTHEST_GREY


@lru_cache(maxsize=4)
def differs_from_srgb(profile: bytes) -> bool:
    """Whether colours of a profile of RGB look otherwise if they are taken for sRGB, as those of Display P3 do."""
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    return space_of(profile) == b"RGB " and _largest_change(cube, profile) > _FARTHEST_COLOUR


def _largest_change(colours: np.ndarray, profile: bytes) -> int:
    """Of H, W, 3 uint8 when they become sRGB; 0 where that cannot be done."""
    with contextlib.suppress(Exception):
        seen = np.asarray(to_srgb(Image.fromarray(colours), profile), dtype=np.int16)
        return int(np.abs(seen - colours).max())
    return 0
