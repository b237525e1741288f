"""GIF's 256 colours: a palette for each frame, one of them transparent."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from .pyav import av

TRANSPARENT_BELOW = 128  # GIF has no partial transparency: alpha under a half is transparent


class Palette:
    """FFmpeg's palettegen and paletteuse, frame by frame."""

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._graph: Any = None

    def map(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """RGB or RGBA to pal8; None flushes."""
        if self._graph is None:
            if frame is None:
                return
            self._graph = self._build(frame)
        self._graph.push(frame)
        while True:
            try:
                yield self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return

    def _build(self, frame: av.VideoFrame) -> Any:
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._time_base
        )
        split = graph.add("split")
        generate = graph.add("palettegen", "stats_mode=single:reserve_transparent=1")
        use = graph.add("paletteuse", f"new=1:dither=sierra2_4a:alpha_threshold={TRANSPARENT_BELOW}")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(generate, 1, 0)
        generate.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        return graph
