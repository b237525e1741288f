"""The silent trap: two patch orders that no name and no shape tells apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import birefnet_core as bc
from birefnet_core.checkpoints.io import read_file
from birefnet_core.checkpoints.patch_order import change_patch_order, read_patch_order
from birefnet_core.inference.transforms import to_network_input
from birefnet_core.network.inward_reference import image_patches

PHOTOS = sorted((Path(__file__).parents[1] / "fixtures" / "photos").glob("*.jpg"))
ORDERS = list(bc.PatchOrder)


def train_on_photographs(seed, steps=2):
    """A small network after a few steps towards the bright parts of four photographs."""
    torch.manual_seed(seed)
    photos = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in PHOTOS]) / 255
    x = to_network_input(photos, 64, 64)
    bright = (x.mean(dim=1, keepdim=True) > 0).float()
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b0", reconstruction_block="residual")).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(x).logits, bright).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize(("seed", "order"), list(enumerate(ORDERS)))
def test_auto_tells_the_orders_apart_after_a_few_steps_of_training(seed, order, tmp_path):
    """A network trained under an order is one trained under the other with its channels permuted."""
    model = train_on_photographs(seed)
    model.config = model.config.replace(patch_order=order)
    path = bc.save_checkpoint(model, tmp_path / "trained.safetensors")
    published = read_file(path).tensors  # no metadata: only the weights can tell
    again = bc.model_from_state_dict(published)
    assert again.config.patch_order is order
    assert again.checkpoint.patch_order_source == "weights"
    assert again.checkpoint.patch_order_evidence.order is order
    assert order.value in str(again.checkpoint.patch_order_evidence)
    found = again.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(found[name], value), name


def test_untrained_weights_do_not_tell(filled):
    model = bc.model_from_state_dict(filled("smallest"))
    assert model.checkpoint.patch_order_evidence.order is None
    assert model.checkpoint.patch_order_source == "default"
    assert "do not tell" in str(model.checkpoint.patch_order_evidence)


def test_the_user_overrides(filled):
    model = bc.model_from_state_dict(filled("smallest"), patch_order="columns_first")
    assert model.config.patch_order is bc.PatchOrder.COLUMNS_FIRST
    assert model.checkpoint.patch_order_source == "user"
    with pytest.raises(bc.ConfigError, match="rows_first"):
        bc.model_from_state_dict(filled("smallest"), patch_order="rows_first")


@pytest.mark.parametrize("grid", [1, 4, 8])
def test_changing_the_order_and_back_is_exact(grid):
    weight = torch.randn(5, 3 * grid**2, 3, 3)
    moved = change_patch_order(weight, *ORDERS)
    assert torch.equal(change_patch_order(moved, *ORDERS[::-1]), weight)


def test_orders_are_the_documented_ones():
    """Channel n = (c * g + i) * g + j in one order is channel n = (j * g + i) * 3 + c in the other."""
    grid = 4
    first = torch.arange(3 * grid**2, dtype=torch.float32).view(1, -1, 1, 1)
    columns = change_patch_order(first, bc.PatchOrder.CHANNELS_FIRST, bc.PatchOrder.COLUMNS_FIRST).flatten()
    for c in range(3):
        for i in range(grid):
            for j in range(grid):
                assert columns[(j * grid + i) * 3 + c] == (c * grid + i) * grid + j


def test_patches_are_connected_pieces_of_the_image():
    image = torch.randn(1, 3, 8, 12)
    patches = image_patches(image, 4, 6)  # a grid of 2 x 2
    for c in range(3):
        for i in range(2):
            for j in range(2):
                expected = image[0, c, 4 * i : 4 * i + 4, 6 * j : 6 * j + 6]
                assert torch.equal(patches[0, (c * 2 + i) * 2 + j], expected)


def test_a_grid_of_one_patch_says_nothing():
    assert read_patch_order([torch.randn(64, 3, 3, 3)]).order is None
