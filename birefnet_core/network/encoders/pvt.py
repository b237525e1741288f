"""PVTv2 (Wang et al., 2021, https://arxiv.org/abs/2106.13797), as timm builds it, with less memory in inference.

Shapes: B batch, H W map, C channels, M hidden channels (4 C or 8 C), h some rows of the map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.models.pvt_v2 import Block, MlpWithDepthwiseConv
from torch import Tensor, nn

from ...ops.execution import chunking, row_chunks
from .timm_encoders import build_from_timm

LEAST_ROWS = 8  # of a chunk, which computes one more row above and below


class ChunkedMlp(nn.Module):
    """The MLP of a block, which in inference works in chunks of rows of the map.

    Its hidden map is four or eight times as wide as its input and output.
    """

    def __init__(self, mlp: MlpWithDepthwiseConv) -> None:
        """Takes the parts of timm's module, under the same names."""
        super().__init__()
        assert isinstance(mlp.relu, nn.Identity) and mlp.drop.p == 0  # those of PVTv2-Li, and of no published network
        self.fc1, self.dwconv, self.act, self.fc2 = mlp.fc1, mlp.dwconv, mlp.act, mlp.fc2

    def forward(self, x: Tensor, feat_size: Sequence[int]) -> Tensor:
        """B, H*W, C and (H, W) -> B, H*W, C."""
        height, width = feat_size
        x = x.unflatten(1, (height, width))  # B H W C
        if not chunking(x, self.training):
            return self._rows(x, slice(0, height)).flatten(1, 2)
        out = torch.empty_like(x)
        elements = x.shape[0] * width * self.fc1.out_features
        for rows in row_chunks(height, elements, "map", x.device, minimum=LEAST_ROWS):
            out[:, rows] = self._rows(x, rows)
        return out.flatten(1, 2)

    def _rows(self, x: Tensor, rows: slice) -> Tensor:
        """Some rows of the output, B, h, W, C, from B, H, W, C."""
        above, below = max(0, rows.start - 1), min(rows.stop + 1, x.shape[1])  # for the 3 x 3 convolution
        y = self.fc1(x[:, above:below]).permute(0, 3, 1, 2)  # B M h+ W
        y = self.dwconv(y)[:, :, rows.start - above : rows.stop - above]
        return self.fc2(self.act(y.permute(0, 2, 3, 1)))


def build_pvt_v2(size: str) -> nn.Module:
    """The encoder "b0" to "b5": B, 3, H, W -> four maps."""
    encoder = build_from_timm(f"pvt_v2_{size}", drop_path_rate=0.1)
    for module in list(encoder.modules()):
        if isinstance(module, Block):
            module.add_module("mlp", ChunkedMlp(module.mlp))
    return encoder
