"""The checkpoints people use: one row each, with where it lies and how it wants to be fed.

Nothing here touches the network. The patch orders are inferred from release dates (published code changed the
order on 5 November 2024); None means that only the weights can tell.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from ..config import BACKBONES, PatchOrder
from ..errors import ConfigError

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")
GENERIC_FILE = "model.safetensors"  # what most repositories call their weights; says nothing about which they are
DTYPES = ("fp16", "fp32", None)
GENERATIONS = ("current", "march-2024")
REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
ASSETS = Path(__file__).resolve().parents[1] / "assets"  # files that come with this package

# Bytes of one published file of each kind; the others differ by less than 1 %.
_SWIN_L_FP16 = 444_473_596
_SWIN_L_FP32 = 884_878_856
_SWIN_T_FP32 = 177_634_392
_SWIN_T_FP16 = 89_000_000

_NEW = PatchOrder.CHANNELS_FIRST
_OLD = PatchOrder.COLUMNS_FIRST


@dataclasses.dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """One published checkpoint.

    Attributes:
        name: What users type; never removed or changed.
        repo: Hub repository, ``owner/name``; None for a file that comes with this package.
        file: Weight file in that repository; None where it is not known, then the repository is asked. Without a
            repository, a file in ``ASSETS``.
        backbone: One of ``config.BACKBONES``.
        training_size: Width and height in pixels the network was trained at, the best size to run it at.
        any_size: Trained at many sizes; ``training_size`` is then only the default.
        purpose: One word, such as "general", "matting" or "anime".
        description: One sentence for lists and tooltips.
        licence: As its repository states it.
        size_bytes: Approximate size of the file, or None.
        dtype: Of the weights in the file, "fp16", "fp32" or None where not known.
        patch_order: Layout of the patch convolutions (see PatchOrder), or None where only the weights can tell.
        gated: Downloading needs an account that has accepted the licence.
        mirrors: Repositories with the same weights.
        generation: "current", or "march-2024" for files of an older network without the coarsest patch
            injection, which no ``BiRefNetConfig`` describes.

    Raises:
        ConfigError: A value out of range.
    """

    name: str
    repo: str | None
    file: str | None = GENERIC_FILE
    backbone: str = "swin_v1_l"
    training_size: tuple[int, int] = (1024, 1024)
    any_size: bool = False
    purpose: str
    description: str
    licence: str = "MIT"
    size_bytes: int | None = None
    dtype: str | None = None
    patch_order: PatchOrder | None = None
    gated: bool = False
    mirrors: tuple[str, ...] = ()
    generation: str = "current"

    def __post_init__(self) -> None:
        for field, choices in (("backbone", BACKBONES), ("dtype", DTYPES), ("generation", GENERATIONS)):
            if getattr(self, field) not in choices:
                known = ", ".join(map(repr, choices))
                raise ConfigError(f"{self.name}: {field}={getattr(self, field)!r} is not known; choose one of {known}.")
        if self.repo is None and (self.file is None or self.mirrors):
            raise ConfigError(f"{self.name}: a file that comes with this package needs its name, and has no mirrors.")
        for repo in self.repos:
            if not REPO_ID.fullmatch(repo):
                raise ConfigError(f"{self.name}: repository {repo!r}; expected 'owner/name'.")
        if len(self.training_size) != 2 or any(side <= 0 or side % 32 for side in self.training_size):
            raise ConfigError(f"{self.name}: training_size={self.training_size}; expected (width, height), each 32n.")

    @property
    def repos(self) -> tuple[str, ...]:
        """The repository and its mirrors; none for a file that comes with this package."""
        return () if self.repo is None else (self.repo, *self.mirrors)

    @property
    def bundled(self) -> Path | None:
        """The file that comes with this package, or None for one that lies on the Hub."""
        return ASSETS / self.file if self.repo is None and self.file else None

    @property
    def loadable(self) -> bool:
        """Whether this package has the network these weights belong to."""
        return self.generation == "current"

    @property
    def distinctive_file(self) -> str | None:
        """The file's own name where it tells which checkpoint it is, else None."""
        name = self.file.rpartition("/")[2] if self.file else None
        return None if name == GENERIC_FILE else name


_ROWS: tuple[CatalogueEntry, ...] = (
    CatalogueEntry(
        name="BiRefNet",
        repo="ZhengPeng7/BiRefNet",
        purpose="general",
        description="The general checkpoint, for any kind of picture.",
        size_bytes=_SWIN_L_FP16,
        dtype="fp16",
        patch_order=_OLD,
    ),
    CatalogueEntry(
        name="BiRefNet_HR",
        repo="ZhengPeng7/BiRefNet_HR",
        training_size=(2048, 2048),
        purpose="general",
        description="General, trained at 2048 x 2048 for large pictures with fine structures.",
        size_bytes=_SWIN_L_FP16,
        dtype="fp16",
        patch_order=_NEW,
    ),
    CatalogueEntry(
        name="BiRefNet_HR-matting",
        repo="ZhengPeng7/BiRefNet_HR-matting",
        training_size=(2048, 2048),
        purpose="matting",
        description="Soft mattes (hair, fur, veils) of large pictures, trained at 2048 x 2048.",
        size_bytes=_SWIN_L_FP16,
        dtype="fp16",
        patch_order=_NEW,
    ),
    CatalogueEntry(
        name="BiRefNet_dynamic",
        repo="ZhengPeng7/BiRefNet_dynamic",
        any_size=True,
        purpose="general",
        description="General, trained at sizes from 256 to 2304 and steady at any of them.",
        size_bytes=_SWIN_L_FP16,
        dtype="fp16",
        patch_order=_NEW,
    ),
    CatalogueEntry(
        name="BiRefNet_dynamic-matting",
        repo="ZhengPeng7/BiRefNet_dynamic-matting",
        any_size=True,
        purpose="matting",
        description="Soft mattes at any size.",
        size_bytes=_SWIN_L_FP16,
        dtype="fp16",
        patch_order=_NEW,
    ),
    CatalogueEntry(
        name="BiRefNet_512x512",
        repo="ZhengPeng7/BiRefNet_512x512",
        training_size=(512, 512),
        purpose="fast",
        description="General, trained at 512 x 512: a quarter of the pixels, so faster and smaller in memory.",
        size_bytes=_SWIN_L_FP16,
        dtype="fp16",
        patch_order=_NEW,
    ),
    CatalogueEntry(
        name="BiRefNet_lite",
        repo="ZhengPeng7/BiRefNet_lite",
        backbone="swin_v1_t",
        purpose="general",
        description="General with the small encoder: a fifth of the weights, for small graphics cards and CPUs.",
        size_bytes=_SWIN_T_FP32,
        dtype="fp32",
        patch_order=_OLD,
    ),
    CatalogueEntry(
        name="BiRefNet_lite-2K",
        repo="ZhengPeng7/BiRefNet_lite-2K",
        backbone="swin_v1_t",
        training_size=(2560, 1440),
        purpose="general",
        description="The small encoder trained at 2560 x 1440, for wide pictures and video frames.",
        size_bytes=_SWIN_T_FP32,
        dtype="fp32",
        patch_order=_OLD,
    ),
    CatalogueEntry(
        name="BiRefNet_lite-matting",
        repo="ZhengPeng7/BiRefNet_lite-matting",
        backbone="swin_v1_t",
        purpose="matting",
        description="Soft mattes with the small encoder.",
        size_bytes=_SWIN_T_FP16,
        dtype="fp16",
        patch_order=_NEW,
    ),
    CatalogueEntry(
        name="BiRefNet-matting",
        repo="ZhengPeng7/BiRefNet-matting",
        purpose="matting",
        description="Soft mattes: hair, fur, veils.",
        size_bytes=_SWIN_L_FP32,
        dtype="fp32",
        patch_order=_OLD,
    ),
    CatalogueEntry(
        name="BiRefNet-portrait",
        repo="ZhengPeng7/BiRefNet-portrait",
        purpose="portrait",
        description="Mattes of people.",
        size_bytes=_SWIN_L_FP32,
        dtype="fp32",
        patch_order=_OLD,
    ),
    CatalogueEntry(
        name="BiRefNet-legacy",
        repo="ZhengPeng7/BiRefNet-legacy",
        purpose="legacy",
        description="The earlier general checkpoint, kept to reproduce older results.",
        size_bytes=_SWIN_L_FP32,
        dtype="fp32",
        patch_order=_OLD,
    ),
    CatalogueEntry(
        name="BiRefNet-DIS5K",
        repo="ZhengPeng7/BiRefNet-DIS5K",
        purpose="benchmark",
        description="Trained on DIS5K-TR alone, for the paper's dichotomous segmentation tables.",
        size_bytes=_SWIN_L_FP32,
        dtype="fp32",
        patch_order=_OLD,
    ),
    CatalogueEntry(
        name="BiRefNet-DIS5K-TR_TEs",
        repo="ZhengPeng7/BiRefNet-DIS5K-TR_TEs",
        purpose="benchmark",
        description="Trained on DIS5K including its test sets: fine for use, not for evaluation on DIS5K.",
        size_bytes=_SWIN_L_FP32,
        dtype="fp32",
        patch_order=_OLD,
    ),
    CatalogueEntry(
        name="BiRefNet-HRSOD",
        repo="ZhengPeng7/BiRefNet-HRSOD",
        purpose="benchmark",
        description="High-resolution salient object detection: the object that stands out.",
        size_bytes=_SWIN_L_FP32,
        dtype="fp32",
        patch_order=_OLD,
    ),
    CatalogueEntry(
        name="BiRefNet-COD",
        repo="ZhengPeng7/BiRefNet-COD",
        purpose="benchmark",
        description="Concealed object detection: camouflaged animals and the like.",
        size_bytes=_SWIN_L_FP32,
        dtype="fp32",
        patch_order=_OLD,
    ),
    CatalogueEntry(
        name="RMBG-2.0",
        repo="briaai/RMBG-2.0",
        purpose="general",
        description="Background removal by BRIA AI; commercial use needs an agreement with them.",
        licence="non-commercial",
        size_bytes=_SWIN_L_FP32,
        dtype="fp32",
        patch_order=_OLD,
        gated=True,
        mirrors=("1038lab/RMBG-2.0",),
    ),
    CatalogueEntry(
        name="toonout",
        repo="joelseytre/toonout",
        file="birefnet_finetuned_toonout.pth",
        purpose="anime",
        description="Fine-tuned on drawn characters and cartoons.",
        patch_order=_NEW,
    ),
    CatalogueEntry(
        name="lucida",
        repo="egeorcun/lucida",
        purpose="effects",
        description="Fine-tuned on glass, logos, lettering and glow.",
        size_bytes=_SWIN_L_FP32,
        dtype="fp32",
        patch_order=_NEW,
    ),
    CatalogueEntry(
        name="BiRefNet-ComfyOrg",
        repo="Comfy-Org/BiRefNet",
        file="background_removal/birefnet.safetensors",
        purpose="general",
        description="The general checkpoint as repackaged for ComfyUI's own nodes.",
        size_bytes=_SWIN_L_FP16,
        dtype="fp16",
    ),
    CatalogueEntry(
        name="lucida-ComfyOrg",
        repo="Comfy-Org/BiRefNet",
        file="background_removal/lucida.safetensors",
        purpose="effects",
        description="lucida as repackaged for ComfyUI's own nodes; may lag behind its author's file.",
        size_bytes=_SWIN_L_FP32,
        dtype="fp32",
    ),
    CatalogueEntry(
        name="BiRefNet-DIS_ep580",
        repo="ViperYX/BiRefNet",
        file="BiRefNet-DIS_ep580.pth",
        purpose="legacy",
        description="DIS5K weights of March 2024, for an older network; BiRefNet-DIS5K takes their place.",
        patch_order=_OLD,
        generation="march-2024",
    ),
    CatalogueEntry(
        name="BiRefNet-ep480",
        repo="ViperYX/BiRefNet",
        file="BiRefNet-ep480.pth",
        purpose="legacy",
        description="General weights of March 2024, for an older network; BiRefNet takes their place.",
        patch_order=_OLD,
        generation="march-2024",
    ),
    CatalogueEntry(
        name="demo",
        repo=None,
        file="demo.safetensors",
        backbone="resnet10",
        training_size=(192, 192),
        purpose="demo",
        description="Small, trained on synthetic composites, comes with this package: for trying it and for tests.",
        dtype="fp16",
        patch_order=_NEW,
    ),
)


def checkpoints() -> tuple[CatalogueEntry, ...]:
    """All known checkpoints, the most useful first."""
    return _ROWS
