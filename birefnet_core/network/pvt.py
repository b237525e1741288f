"""PVTv2 (Wang et al., 2021, https://arxiv.org/abs/2106.13797), as timm builds it, with less memory in inference.

Shapes: B batch, H W map, C channels, M hidden channels (4 C or 8 C).
"""

from __future__ import annotations

from collections.abc import Sequence

import timm
import torch
from timm.models.pvt_v2 import Block, MlpWithDepthwiseConv
from torch import Tensor, nn

from .layers import inference_budget

LEAST_ROWS = 8  # of a strip, each of which computes a row more above and below


class StripedMlp(nn.Module):
    """The feed-forward layer of a block, which in inference works on some rows of the map at a time.

    Its hidden map is four or eight times as wide as the map it reads and gives, and needs a row above and below.
    """

    def __init__(self, mlp: MlpWithDepthwiseConv) -> None:
        """Takes the parts of timm's, which bear the same names here."""
        super().__init__()
        assert isinstance(mlp.relu, nn.Identity) and mlp.drop.p == 0  # those of PVTv2-Li, and of no published network
        self.fc1, self.dwconv, self.act, self.fc2 = mlp.fc1, mlp.dwconv, mlp.act, mlp.fc2

    def forward(self, x: Tensor, feat_size: Sequence[int]) -> Tensor:
        """B, H*W, C and (H, W) -> B, H*W, C."""
        height, width = feat_size
        rows = x.unflatten(1, (height, width))  # B H W C
        budget = inference_budget(x, self.training)
        if budget is None:
            return self._some(rows, 0, height).flatten(1, 2)
        step = max(LEAST_ROWS, budget // (len(x) * width * self.fc1.out_features))
        out = torch.empty_like(rows)
        for top in range(0, height, step):
            bottom = min(top + step, height)
            out[:, top:bottom] = self._some(rows, top, bottom)
        return out.flatten(1, 2)

    def _some(self, x: Tensor, top: int, bottom: int) -> Tensor:
        """Rows top to bottom of the result, B, h, W, C, from the whole of x."""
        above, below = max(0, top - 1), min(bottom + 1, x.shape[1])
        y = self.fc1(x[:, above:below]).permute(0, 3, 1, 2)  # B M h+ W
        y = self.dwconv(y)[:, :, top - above : bottom - above]  # the rows next to a cut saw zeros there
        return self.fc2(self.act(y.permute(0, 2, 3, 1)))


def build_pvt_v2(size: str) -> nn.Module:
    """The encoder "b0" to "b5": B, 3, H, W -> four maps."""
    encoder = timm.create_model(f"pvt_v2_{size}", features_only=True, pretrained=False, drop_path_rate=0.1)
    for module in list(encoder.modules()):
        if isinstance(module, Block):
            module.add_module("mlp", StripedMlp(module.mlp))
    return encoder
