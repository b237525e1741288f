"""A CUDA device computes what the CPU does."""

import pytest
import torch
from torch import nn

import birefnet_core as bc
from birefnet_core.losses import HybridLoss, loss_preset
from birefnet_core.ops import deform_backends
from birefnet_core.ops.deform_conv import use_backend
from tests.emulated_cuda import side

pytestmark = pytest.mark.gpu

VARIANTS = ["swin_v1_t", "pvt_v2_b0"]


def images(batch=1, height=256, width=320):
    height, width = side(height, 64), side(width, 96)
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backend", deform_backends.BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_backend_computes_the_logits_of_the_cpu(variant, backend, filled, cuda):
    reason = deform_backends.unavailable(backend, cuda, torch.float32)
    if reason is not None:
        pytest.skip(reason)
    network, x = bc.Segmenter(bc.model_from_state_dict(filled(variant))).model, images(2)
    with torch.inference_mode():
        expected = network(x).logits
        with use_backend(backend):
            found = network.to(cuda)(x.to(cuda)).logits.cpu()
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_keeps_masks(variant, dtype, filled, frames):
    expected = bc.Segmenter(bc.model_from_state_dict(filled(variant)))(frames[:2], side(512, 128))
    found = bc.Segmenter(bc.model_from_state_dict(filled(variant), dtype=dtype).to("cuda"))(frames[:2], side(512, 128))
    assert (found - expected).abs().max() < 0.02
    assert (found - expected).abs().mean() < (1e-3 if dtype == torch.float16 else 2e-3)


@pytest.mark.parametrize("options", [{"batch_size": 3}, {"lean": True}, {"flip": True}, {"tiled": True}])
def test_options_give_the_masks_of_the_cpu(options, filled, frames):
    of_call = {name: options.pop(name) for name in ("flip", "tiled") if name in options}
    expected = bc.Segmenter(bc.model_from_state_dict(filled("pvt_v2_b0")))(frames, 96, **of_call)
    segment = bc.Segmenter(bc.model_from_state_dict(filled("pvt_v2_b0")).to("cuda"), **options)
    for device in ("cpu", "cuda"):
        found = segment(frames.to(device), 96, **of_call)
        assert found.device.type == device
        torch.testing.assert_close(found.cpu(), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_step_has_the_gradients_of_the_cpu(variant, filled):
    x, masks = images(2, 128, 160), (images(2, 128, 160)[:, :1] > 0).float()
    gradients, totals = [], []
    for device in ("cpu", "cuda"):
        model = bc.model_from_state_dict(filled(variant)).train().requires_grad_(True)
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.Dropout)) or type(module).__name__ == "DropPath":
                module.eval()
        model.to(device)
        loss = HybridLoss(loss_preset("dis5k"))(model(x.to(device)), masks.to(device)).total
        loss.backward()
        totals.append(loss.item())
        gradients.append({name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None})
    assert totals[1] == pytest.approx(totals[0], rel=1e-4)
    assert gradients[0].keys() == gradients[1].keys()
    largest = max(gradient.norm() for gradient in gradients[0].values())
    for name, expected in gradients[0].items():
        off = (gradients[1][name] - expected).norm()
        assert off <= 2e-3 * expected.norm() + 1e-6 * largest, name
