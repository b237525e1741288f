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
from birefnet_core.checkpoints import build
from birefnet_core.inference import image_inputs
from birefnet_core.losses import HybridLoss, loss_preset
from birefnet_core.masks import morphology
from birefnet_core.masks.guided_filter import guided_filter
from birefnet_core.masks.temporal import smooth_over_time
from birefnet_core.network.cast import cast_for_inference
from birefnet_core.ops.deform_conv import use_backend

FAMILIES = ["swin_v1_t", "pvt_v2_b0", "dino_v3_s", "resnet50"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
BACKENDS = ["torchvision", "gather", "embedding_bag"]
SMALL = {"reconstruction_block": "residual", "image_pyramid": "none"}  # little beside the encoder
PRESETS = ("dis5k", "general", "matting")
# Each operation costs the same, however small its tensors: by default, each encoder with little beside it, and the
# whole decoder with each backend behind the encoder of fewest operations. If slow, whole networks in every way.
FUSED = [
    *(("resnet10", {}, dtype, backend) for dtype, backend in zip(DTYPES, BACKENDS, strict=True)),
    ("swin_v1_t", SMALL, torch.bfloat16, "auto"),
    ("pvt_v2_b0", SMALL, torch.float16, "auto"),
    ("dino_v3_s", SMALL, torch.bfloat16, "auto"),
    ("resnet50", SMALL, torch.float32, "auto"),
    *(
        pytest.param(backbone, {}, dtype, backend, marks=pytest.mark.slow)
        for backbone in FAMILIES
        for dtype in DTYPES
        for backend in BACKENDS
    ),
]

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
pytestmark = [
    # torch 2.4 ends the whole process where there is no GPU; this is the oldest torch that is known not to.
    pytest.mark.skipif(TORCH < (2, 14), reason="needs fake tensors of a GPU on a machine without one"),
    pytest.mark.filterwarnings("ignore:Accessing the data pointer", "ignore:CUDA is not available"),
]


@pytest.fixture(scope="module")
def mode():
    return FakeTensorMode()


@pytest.fixture(scope="module")
def made():
    """What several tests use, once one of them has made it."""
    return {}


@pytest.fixture
def gpu(mode, monkeypatch):
    """Makes empty tensors of a GPU, and brings networks to it."""

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
    model = build.empty_network(bc.BiRefNetConfig(backbone=backbone, **options))  # its numbers do not matter
    return cast_for_inference(model.eval().requires_grad_(False), dtype)


@pytest.mark.parametrize(("backbone", "options", "dtype", "backend"), FUSED)
def test_the_fused_network_stays_on_its_device(backbone, options, dtype, backend, request):
    model = network(backbone, dtype, **options)
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
def test_masks_come_back_to_the_device_of_the_images(options, device, made, request, monkeypatch):
    monkeypatch.setattr(image_inputs, "validate_images", lambda images, channels: None)
    model = None if made else network("resnet10", **SMALL)  # before the fixture makes every tensor a fake one
    gpu = request.getfixturevalue("gpu")
    if not made:
        made["segmenter"] = bc.Segmenter(gpu.bring(model), batch_size=2, cuda_graphs=False)
    found = made["segmenter"](gpu.empty(3, 90, 120, 3, device=device), 64, **options)
    assert found.shape == (3, 90, 120) and found.device.type == device


@pytest.mark.parametrize(
    ("backbone", "options", "presets"),
    [
        ("resnet10", {}, PRESETS),
        *((backbone, SMALL, PRESETS[:1]) for backbone in FAMILIES[:3]),
        *(pytest.param(backbone, {}, PRESETS, marks=pytest.mark.slow) for backbone in FAMILIES[:3]),
    ],
)
def test_training_computes_its_loss_on_the_device(backbone, options, presets, request):
    model = network(backbone, **options).train().requires_grad_(True)
    gpu = request.getfixturevalue("gpu")
    output = gpu.bring(model)(gpu.empty(2, 3, 64, 64))
    for preset in presets:
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
