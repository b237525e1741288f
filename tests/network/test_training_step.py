"""One training step against the recorded one: losses and the gradient of every parameter."""

import numpy as np
import pytest
import torch

from birefnet_core.checkpoints import keymap
from birefnet_core.inference.transforms import to_network_input
from birefnet_core.losses import HybridLoss, loss_preset


@pytest.mark.parametrize("variant", ["swin_v1_t", "pvt_v2_b0"])
def test_losses_and_gradients_equal_the_published_step(variant, published_training, reference):
    recorded = reference(f"train_step_{variant}_128x160")
    model = published_training(variant)
    x = to_network_input(torch.from_numpy(recorded.image_u8).float() / 255, 128, 160)
    output = model(x)
    for found, name in zip((*output.intermediate, output.logits), ("m4", "m3", "m2", "p1"), strict=True):
        expected = recorded.arrays[f"out_{name}"]
        assert np.abs(found.detach().numpy() - expected).max() <= 1e-4 * np.abs(expected).max()

    loss = HybridLoss(loss_preset("dis5k").from_published(batch_size=2))(output, torch.from_numpy(recorded.gt))
    assert loss.total.item() == pytest.approx(recorded.meta["loss_total"], rel=1e-5)
    assert loss.terms["gradient"].item() == pytest.approx(recorded.meta["loss_gdt"], rel=1e-5)

    loss.total.backward()
    names = keymap.to_published(dict(model.named_parameters()), model.config)
    gradients = {names[name]: parameter.grad for name, parameter in model.named_parameters()}
    assert sorted(gradients) == sorted(recorded.meta["parameter_names"])
    for name, norm in zip(recorded.meta["parameter_names"], recorded.grad_l2, strict=True):
        assert gradients[name].double().norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-9), name
    for key, expected in recorded.arrays.items():
        if key.startswith("grad::"):
            found = gradients[key.removeprefix("grad::")].numpy()
            assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max(), key
    model.zero_grad()  # others use the network too
