"""Where the weights of a network came from: what a checkpoint's file, its name and its weights say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from .config import PatchOrder

DEFAULT_TRAINING_SIZE = (1024, 1024)  # width, height; of most published checkpoints
LARGEST_SIDE = 16384  # pixels; no file that says more was trained at that size


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchOrderEvidence:
    """What the weights say about their patch order.

    Attributes:
        order: The order they indicate; None where they are inconclusive.
        scores: For each order, the z-score of the mean cosine similarity of kernels that are neighbours in that order.
    """

    order: PatchOrder | None
    scores: Mapping[PatchOrder, float]

    def __str__(self) -> str:
        scores = ", ".join(f"{order.value} {score:+.1f}" for order, score in self.scores.items())
        verdict = self.order.value if self.order else "the weights do not tell"
        return f"{verdict} (similarity of neighbouring kernels, z-scores: {scores})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """Where a network's weights came from, and what is known of them.

    Attributes:
        name: Catalogue name, or the file's name.
        path: The file; None for a state dict.
        revision: Commit of the Hub's repository it was downloaded from, where known.
        training_size: Width, height the network was trained at, in pixels.
        patch_order: The order the file was read in.
        patch_order_source: "metadata", "weights", "catalogue", "user" or "default".
        patch_order_evidence: What the weights say about it; None where they were not needed.
        licence: Licence of the weights, where known.
        provenance: How it was trained, as stated in the file.
    """

    name: str = ""
    path: Path | None = None
    revision: str = ""
    training_size: tuple[int, int] = DEFAULT_TRAINING_SIZE
    patch_order: PatchOrder = PatchOrder.CHANNELS_FIRST
    patch_order_source: str = "default"
    patch_order_evidence: PatchOrderEvidence | None = None
    licence: str = ""
    provenance: str = ""


def training_size_to_text(width: int, height: int) -> str:
    """A training size as files hold it in their metadata."""
    return f"{int(width)}x{int(height)}"


def training_size_from_text(text: str) -> tuple[int, int]:
    """Width and height in pixels, the inverse of ``training_size_to_text``.

    Raises:
        ValueError: The text is none, or of sides that nothing is trained at.
    """
    width, height = (int(side) for side in text.split("x"))
    if not all(0 < side <= LARGEST_SIDE for side in (width, height)):
        raise ValueError(f"training_size {text}: expected width x height, each from 1 to {LARGEST_SIDE}")
    return width, height
