"""What a run tells: while it goes on, and at its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import Tensor


class VideoProgress(NamedTuple):
    """After a frame.

    Attributes:
        done: Frames that are through.
        total: Frames in all by what the clip declares, which may be wrong; None where it says nothing.
        frames_per_second: Since the first frame.
        seconds_left: By the two above; None without a total.
        image: H, W, 3 in [0, 1] in SDR colours: the frame, for a preview.
        mask: H, W in [0, 1].
    """

    done: int
    total: int | None
    frames_per_second: float
    seconds_left: float | None
    image: Tensor
    mask: Tensor


@dataclass(kw_only=True)
class VideoReport:
    """What came out.

    Attributes:
        outputs: Files and folders that were written.
        frames: Frames in each.
        seconds: From the first frame to the last.
        damage: What was wrong with the clip, where it ended early and the frames before were kept.
        cancelled: Whether it was cancelled, and the frames until then were kept.
        notes: What is not as in the clip, such as subtitles a file cannot hold.
        stages: Seconds each stage worked; decoding and encoding overlap with the others.
    """

    outputs: list[Path] = field(default_factory=list)
    frames: int = 0
    seconds: float = 0.0
    damage: str | None = None
    cancelled: bool = False
    notes: list[str] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def frames_per_second(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0

    def note(self, text: str) -> None:
        """Adds a note once."""
        if text not in self.notes:
            self.notes.append(text)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - start
