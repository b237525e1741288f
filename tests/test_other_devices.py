"""Nothing is left behind on the CPU: every step on tensors of a GPU that only know their shape, dtype and device.

They have no numbers, so that what is computed is tested elsewhere; but an operation that mixes devices fails here as it
would on a GPU, and the choices that depend on the device are those of one.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import birefnet_core as bc
from birefnet_core import masks
from birefnet_core.inference import image_inputs
from birefnet_core.losses import HybridLoss, loss_preset
from birefnet_core.masks import morphology
from birefnet_core.masks.guided_filter import guided_filter
from birefnet_core.masks.temporal import smooth_over_time
from birefnet_core.network.cast import cast_for_inference
from birefnet_core.ops.deform_conv import use_backend

FAMILIES = ["swin_v1_t", "pvt_v2_b0", "dino_v3_s", "resnet50"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
pytestmark = [
    # torch 2.4 ends the whole process where there is no GPU; this is the oldest torch that is known not to.
    pytest.mark.skipif(TORCH < (2, 14), reason="needs fake tensors of a GPU on a machine without one"),
    pytest.mark.filterwarnings("ignore:Accessing the data pointer", "ignore:CUDA is not available"),
]


@pytest.fixture
def gpu(monkeypatch):
    """Makes empty tensors of a GPU, and brings networks to it."""
    mode = FakeTensorMode()

    def empty(*shape, dtype=torch.float32, device="cuda"):
        with mode:
            return torch.empty(shape, dtype=dtype, device=device)

    def bring(module):
        for part in module.modules():
            for name, tensor in part._parameters.items():
                if tensor is not None:
                    there = empty(*tensor.shape, dtype=tensor.dtype)
                    part._parameters[name] = nn.Parameter(there, requires_grad=tensor.requires_grad)
            for name, tensor in part._buffers.items():
                if tensor is not None:
                    part._buffers[name] = empty(*tensor.shape, dtype=tensor.dtype)
        return module

    # Checks of what images hold find numbers between 0 and 1, all finite.
    for name, value in {"__bool__": True, "item": 1, "__float__": 0.5}.items():
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, value=value: value)
    with mode:
        yield SimpleNamespace(empty=empty, bring=bring)


def network(backbone, dtype=torch.float32, **options):
    with torch.device("meta"):  # its numbers do not matter
        model = bc.BiRefNet(bc.BiRefNetConfig(backbone=backbone, **options)).eval().requires_grad_(False)
    return cast_for_inference(model, dtype)


@pytest.mark.parametrize(
    ("dtype", "backend"),
    [
        pytest.param(dtype, backend, marks=() if i == j else pytest.mark.slow)  # each of both once, all if slow
        for i, dtype in enumerate(DTYPES)
        for j, backend in enumerate(("torchvision", "gather", "embedding_bag"))
    ],
)
@pytest.mark.parametrize("backbone", FAMILIES)
def test_the_fused_network_stays_on_its_device(backbone, dtype, backend, request):
    model = network(backbone, dtype)
    gpu = request.getfixturevalue("gpu")
    fused = bc.fuse_for_inference(gpu.bring(model))
    assert {tensor.device.type for tensor in (*fused.parameters(), *fused.buffers())} == {"cuda"}
    x = gpu.empty(2, 3, 128, 192, dtype=next(fused.parameters()).dtype)
    with use_backend(backend):
        logits = fused(x).logits
    assert logits.shape == (2, 1, 128, 192) and logits.device.type == "cuda"
    assert logits.dtype == (torch.float16 if dtype == torch.float16 else torch.float32)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("options", [{}, {"flip": True}, {"region": (10, 10, 50, 50)}])
def test_masks_come_back_to_the_device_of_the_images(options, device, request, monkeypatch):
    monkeypatch.setattr(image_inputs, "validate_images", lambda images, channels: None)
    model = network("pvt_v2_b0", reconstruction_block="residual", image_pyramid="none")
    gpu = request.getfixturevalue("gpu")
    segment = bc.Segmenter(gpu.bring(model), batch_size=2, cuda_graphs=False)
    found = segment(gpu.empty(3, 90, 120, 3, device=device), 64, **options)
    assert found.shape == (3, 90, 120) and found.device.type == device


@pytest.mark.parametrize("backbone", FAMILIES[:3])
def test_training_computes_its_loss_on_the_device(backbone, request):
    model = network(backbone).train().requires_grad_(True)
    gpu = request.getfixturevalue("gpu")
    output = gpu.bring(model)(gpu.empty(2, 3, 64, 64))
    for preset in ("dis5k", "general", "matting"):
        loss = HybridLoss(loss_preset(preset))(output, gpu.empty(2, 1, 64, 64))
        assert loss.total.device.type == "cuda"


MASK_STEPS = {
    "grow": lambda images, alpha: morphology.grow(alpha, 5),
    "shrink": lambda images, alpha: morphology.grow(alpha, -5),
    "feather": lambda images, alpha: morphology.feather(alpha, 3.0),
    "smooth_edge": lambda images, alpha: morphology.smooth_edge(alpha, 3.0),
    "guided_filter": lambda images, alpha: guided_filter(alpha, images, 4, 1e-4),
    "smooth_over_time": lambda images, alpha: smooth_over_time(alpha, 1, images),
    "multilevel": lambda images, alpha: masks.estimate_foreground(images, alpha, "multilevel"),
    "blur_fusion": lambda images, alpha: masks.estimate_foreground(images, alpha, "blur_fusion"),
    "checkerboard": lambda images, alpha: masks.over_checkerboard(images, alpha),
    "color": lambda images, alpha: masks.over_color(images, alpha, "#ff0000"),
    "rgba": lambda images, alpha: masks.straight_rgba(images, alpha),
    "compare": lambda images, alpha: masks.compare_masks(alpha, alpha),
}


@pytest.mark.parametrize("name", MASK_STEPS)
def test_masks_are_worked_on_where_they_are(name, gpu):
    found = MASK_STEPS[name](gpu.empty(2, 64, 80, 3), gpu.empty(2, 64, 80))
    assert found.device.type == "cuda"
