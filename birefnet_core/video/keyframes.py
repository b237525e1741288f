"""The network on some frames only: masks of the frames between are fetched along the motion.

Shapes: H W frame.
"""

from __future__ import annotations

import collections
import dataclasses

import torch
from torch import Tensor

from ..errors import ConfigError
from ..image_ops import resize
from .motion import SIDE, Motion, SmallFrame, carry, motion_between, small_copy, trust
from .scene_cuts import is_cut

# What a frame may differ from the last keyframe, or it becomes one itself (benchmarks/video.md).
MOST_MOTION = 0.04  # of the longest side, for 95 % of the pixels
MOST_DOUBT = 0.06  # fraction of the pixels whose motion is not trusted
LEAST_TRUST = 1e-3  # where neither keyframe's motion is trusted, both count by their distance in time


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Frame:
    """A frame whose mask is still to come.

    Attributes:
        small: Small copy.
        step: Motion from the frame before; None at the start of a scene.
        is_key: Whether the network runs on it.
    """

    small: SmallFrame
    step: Motion | None
    is_key: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Key:
    """A keyframe and its mask 1, H, W."""

    frame: _Frame
    mask: Tensor


class Keyframes:
    """Decides which frames the network runs on, and makes the masks of the others.

    Every ``every``-th frame is a keyframe, and so is one that begins a scene, that has moved far from the last keyframe
    or shows much that cannot be found there. The mask of a frame between is the mean of the two keyframes' masks,
    fetched along the motion and weighted by its trust and the distance in time.

    For each frame in order call ``wants``, and with its mask, or None where the network did not run, ``push``. One
    thread may call ``wants`` some frames ahead of another that calls ``push``, so that frames can be segmented in
    batches. At most ``every`` small copies wait for a keyframe.

    Args:
        every: The network runs at least on every that many frames; 1 runs it on all.
        most_motion: Motion since the last keyframe that makes a new one, as a fraction of the longest side.
        most_doubt: Fraction of the pixels without a trusted motion that makes a new one.
        side: Longest side in pixels of the small copies.

    Attributes:
        frames: Frames asked about so far.
        runs: Keyframes among them.
    """

    def __init__(
        self, *, every: int = 1, most_motion: float = MOST_MOTION, most_doubt: float = MOST_DOUBT, side: int = SIDE
    ) -> None:
        if every < 1:
            raise ConfigError(f"every={every!r}: expected 1 (all frames) or more.")
        if side < 32:
            raise ConfigError(f"side={side!r}: expected at least 32 pixels.")
        self.every, self.most_motion, self.most_doubt, self.side = every, most_motion, most_doubt, side
        self.frames = self.runs = 0
        # State of ``wants``:
        self._last: SmallFrame | None = None
        self._last_key: SmallFrame | None = None
        self._since: list[Motion] = []  # from the last keyframe to the last frame, in one piece
        self._distance = 0
        # State of ``push``:
        self._asked: collections.deque[_Frame] = collections.deque()
        self._key: _Key | None = None
        self._between: list[_Frame] = []

    @torch.no_grad()
    def wants(self, frame: Tensor) -> bool:
        """Whether the network must run on the next frame, 3, h, w float in [0, 1]."""
        self.frames += 1
        if self.every == 1:
            self.runs += 1
            return True
        found = self._decide(small_copy(frame, self.side))
        self._asked.append(found)
        self.runs += found.is_key
        return found.is_key

    @torch.no_grad()
    def push(self, mask: Tensor | None) -> list[Tensor]:
        """Takes the mask of the next frame that was asked about.

        Args:
            mask: 1, H, W; None where ``wants`` said no.

        Returns:
            Masks 1, H, W that are finished, in order.

        Raises:
            ValueError: A mask is missing, or there is one that was not wanted.
        """
        if self.every == 1 and mask is not None:
            return [mask]
        if not self._asked or self._asked[0].is_key != (mask is not None):
            raise ValueError("push() takes a mask where wants() said True, and None where it said False, in order.")
        frame = self._asked.popleft()
        if mask is None:
            self._between.append(frame)
            return []
        key = _Key(frame=frame, mask=mask.float())
        masks = self._fill(key if frame.step is not None else None)
        self._key = key
        return [*masks, mask]

    @torch.no_grad()
    def flush(self) -> list[Tensor]:
        """The masks of the frames after the last keyframe."""
        return self._fill(None)

    def _decide(self, small: SmallFrame) -> _Frame:
        before, self._last = self._last, small
        step = None if before is None else motion_between(before, small)
        if before is not None and step is not None and is_cut(before, small, step):
            step = None
        if step is not None and self._last_key is not None:
            since = self._since[0].then(step) if self._since else step
            self._distance += 1
            if self._distance < self.every and self._is_near(self._last_key, small, since):
                self._since = [since]
                return _Frame(small=small, step=step, is_key=False)
        self._last_key, self._since, self._distance = small, [], 0
        return _Frame(small=small, step=step, is_key=True)

    def _is_near(self, key: SmallFrame, small: SmallFrame, motion: Motion) -> bool:
        size = motion.backward.norm(dim=1).flatten()
        if float(size.quantile(0.95)) > self.most_motion * max(small.grey.shape[-2:]):
            return False
        doubt = (trust(small, key, motion.reversed()) < 0.5).float().mean()
        return float(doubt) <= self.most_doubt

    def _fill(self, later: _Key | None) -> list[Tensor]:
        """Masks of the frames between the last keyframe and a later one, or none."""
        frames, self._between = self._between, []
        if not frames:
            return []
        assert self._key is not None  # the first frame of all is a keyframe
        parts = [self._carried(self._key, frames)]
        if later is not None:
            steps = [*frames[1:], later.frame]
            parts.append(self._carried(later, frames[::-1], [_step(f).reversed() for f in steps[::-1]])[::-1])
        masks = []
        for candidates in zip(*parts, strict=True):
            weights = sum(weight for _, weight in candidates)
            masks.append(sum(mask * weight for mask, weight in candidates) / weights)
        return masks

    @staticmethod
    def _carried(key: _Key, frames: list[_Frame], steps: list[Motion] | None = None) -> list[tuple[Tensor, Tensor]]:
        """For each frame, going away from the keyframe: the keyframe's mask and its weight, 1, H, W each."""
        steps = [_step(frame) for frame in frames] if steps is None else steps
        found, motion = [], None
        for n, (frame, step) in enumerate(zip(frames, steps, strict=True)):
            motion = step if motion is None else motion.then(step)
            weight = (trust(frame.small, key.frame.small, motion.reversed()) + LEAST_TRUST) / (n + 1)
            found.append((carry(key.mask, motion.backward), resize(weight, key.mask.shape[-2:])[0]))
        return found


def _step(frame: _Frame) -> Motion:
    assert frame.step is not None  # a frame that begins a scene is a keyframe, never between two
    return frame.step
