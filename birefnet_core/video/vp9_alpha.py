"""The alpha of VP9, encoded apart from the colours and without loss.

WebM keeps alpha as a second VP9 frame beside each packet. FFmpeg's encoder makes both at the quality of the colours,
which changes hairs one pixel wide by up to 34/255. Lossless alpha makes a file with hair about twice as large at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np

from .pyav import av

_BLOCK_ADDITIONAL = 15  # FFmpeg's AV_PKT_DATA_MATROSKA_BLOCKADDITIONAL
_ALPHA_ID = (1).to_bytes(8, "big")  # BlockAddID of alpha
# Keyframes at fixed distances, so that both streams have them at the same frames and players can seek.
KEYFRAMES = {"g": "128", "keyint_min": "128"}

# Older PyAV cannot add data to a packet; there FFmpeg's encoder makes the alpha.
_SideData: Any = getattr(av.packet, "PacketSideData", None)
AVAILABLE = hasattr(_SideData, "update")


class AlphaEncoder:
    """Encodes alpha, and adds it to the packets of the colours.

    Args:
        width: Of the frames.
        height: Of the frames.
        time_base: Of their timestamps.
        options: Of the encoder of the colours.
        threads: For encoding.
    """

    def __init__(self, width: int, height: int, time_base: Fraction, options: dict[str, str], threads: int) -> None:
        context: Any = av.CodecContext.create("libvpx-vp9", "w")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base, context.bit_rate = time_base, 0
        context.thread_type, context.thread_count = "AUTO", threads
        context.options = {**{name: value for name, value in options.items() if name != "crf"}, "lossless": "1"}
        self._context = context
        self._colours, self._alphas = deque[Any](), deque[Any]()

    def encode(self, alpha: np.ndarray | None, pts: int, colours: Iterable[Any]) -> list[Any]:
        """Takes the alpha of a frame.

        Args:
            alpha: H, W bytes; None after the last frame.
            pts: The frame's time.
            colours: Packets of colours that are ready.

        Returns:
            Those packets whose alpha is ready, with it.
        """
        self._colours += colours
        self._alphas += self._context.encode(None if alpha is None else self._frame(alpha, pts))
        packets = []
        while self._colours and self._alphas:
            packet, data = self._colours.popleft(), _ALPHA_ID + bytes(self._alphas.popleft())
            side: Any = _SideData(_BLOCK_ADDITIONAL, len(data))
            side.update(data)
            packet.set_sidedata(side)
            packets.append(packet)
        return packets

    def _frame(self, alpha: np.ndarray, pts: int) -> av.VideoFrame:
        """Alpha as brightness, of all 256 levels."""
        frame = av.VideoFrame(self._context.width, self._context.height, "yuv420p")
        for number, plane in enumerate(frame.planes):
            lines = np.full((plane.height, plane.line_size), 128, np.uint8)
            if number == 0:
                lines[:, : plane.width] = alpha
            plane.update(lines.tobytes())
        frame.pts, frame.time_base = pts, self._context.time_base
        return frame
