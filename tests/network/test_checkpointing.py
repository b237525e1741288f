"""Activation checkpointing changes memory and no number."""

import pytest
import torch
from torch import nn

import birefnet_core as bc
from birefnet_core.network import checkpointing


def step(model):
    """Gradients and statistics after one step in train mode, dropout included."""
    torch.manual_seed(0)
    output = model.train()(torch.randn(2, 3, 64, 64).double())
    parts = [output.logits, *output.intermediate, *output.gradient.predictions, *output.gradient.labels]
    parts += [] if output.classes is None else [output.classes]
    sum(part.square().mean() for part in parts).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return gradients, {name: b.clone() for name, b in model.named_buffers()}


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("pvt_v2_b0", {"reconstruction_block": "residual", "image_pyramid": "none"}),
        ("efficientnet_lite0", {"reconstruction_block": "residual", "image_pyramid": "none"}),
        ("resnet10", {"num_classes": 3}),
        ("resnet10", {"batch_norm": False, "image_pyramid": "add", "reconstruction_block": "aspp"}),
        *(pytest.param(backbone, {}, marks=pytest.mark.slow) for backbone in ("pvt_v2_b0", "dino_v3_s", "swin_v1_t")),
    ],
)
def test_checkpointing_changes_no_number(backbone, options):
    """Sums are in another order, which float64 shows as nothing."""
    torch.manual_seed(1)
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone=backbone, **options)).double()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    plain = step(model)
    model.load_state_dict(state)
    model.zero_grad()
    model.set_grad_checkpointing()
    for before, after in zip(plain, step(model), strict=True):
        assert before.keys() == after.keys()
        for name, value in before.items():
            torch.testing.assert_close(after[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_checkpointing_keeps_less_and_can_be_switched_off():
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b0")).train()

    def kept():
        seen = {}

        def pack(tensor):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(2, 3, 128, 128))
        return sum(seen.values())

    everything = kept()
    model.set_grad_checkpointing()
    assert kept() < everything / 3
    model.set_grad_checkpointing(False)
    assert kept() > everything * 0.9


def test_a_second_backward_pass_counts_the_batch_once_too():
    norm = nn.BatchNorm2d(3).train()
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    y = checkpointing.checkpoint(norm, norm, x).square().sum()
    y.backward(retain_graph=True)
    y.backward()
    assert norm.num_batches_tracked == 1


def test_without_gradients_nothing_is_recomputed(monkeypatch):
    monkeypatch.setattr(checkpointing, "torch_checkpoint", None)
    layer = nn.Linear(2, 2).requires_grad_(False)
    assert not checkpointing.checkpoint(layer, layer, torch.randn(1, 2)).requires_grad
    with torch.no_grad():
        layer.requires_grad_(True)
        checkpointing.checkpoint(layer, layer, torch.randn(1, 2))
