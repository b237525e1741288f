"""The written estimate of memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import birefnet_core as bc
from benchmarks import device_memory
from birefnet_core.config import BACKBONES
from birefnet_core.devices import DTYPES
from birefnet_core.inference.memory import memory_required

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20
LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident sizes are read from /proc")


def benchmark(name, *arguments, **environment):
    command = [sys.executable, f"benchmarks/{name}.py", *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_has_an_estimate(backbone, device):
    one = memory_required(backbone, 1024, 1024, device=device)
    assert 60 * MIB < one < 2000 * MIB
    for dtype in DTYPES.values():
        assert one / 2 <= memory_required(backbone, 1024, 1024, dtype, device=device) < 2 * one
    assert one < memory_required(backbone, 1024, 1024, batch_size=2, device=device) <= 2 * one
    assert one > memory_required(backbone, 512, 1024, device=device)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_without_triton_a_device_needs_no_less_memory(backbone):
    for dtype in DTYPES.values():
        for size in (256, 1024):
            fused, without = (
                memory_required(backbone, size, size, dtype, device="cuda", triton=triton) for triton in (True, False)
            )
            assert without >= fused and without > 130 * MIB


def test_the_segmenter_gives_the_estimate_of_its_network(filled):
    segment = bc.Segmenter(bc.model_from_state_dict(filled("pvt_v2_b0")), batch_size=4)
    assert segment.memory_required(512, 256) == memory_required("pvt_v2_b0", 512, 256)
    assert segment.memory_required(512, 256, torch.float16) == memory_required("pvt_v2_b0", 512, 256, torch.float16)
    three = memory_required("pvt_v2_b0", 512, 256, batch_size=3)
    assert segment.memory_required(512, 256, batch_size=3) == three > segment.memory_required(512, 256)
    segment.model.half()
    assert segment.memory_required(512, 256) == memory_required("pvt_v2_b0", 512, 256, torch.float16)


def test_a_segmenter_that_works_in_chunks_gives_their_estimate(filled):
    model = bc.model_from_state_dict(filled("pvt_v2_b0"))
    whole, auto, lean = (
        bc.Segmenter(model, lean=lean, cuda_graphs=False).memory_required(2048, 2048, torch.float16, "cuda")
        for lean in (False, "auto", True)
    )
    assert whole == auto > lean == memory_required("pvt_v2_b0", 2048, 2048, torch.float16, device="cuda", lean=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_cuda_a_graphs_buffers_are_counted(dtype, filled):
    model = bc.model_from_state_dict(filled("pvt_v2_b0"))
    with_graphs, without = (
        bc.Segmenter(model, cuda_graphs=graphs).memory_required(512, 256, dtype, "cuda", 2) for graphs in (True, False)
    )
    assert with_graphs - without == 2 * 512 * 256 * 4 * dtype.itemsize


def counted(backbone, *sizes, **how):
    """Precision, size, and the bytes that a GPU holds at most in a pass."""
    for name, dtype in DTYPES.items():
        network = device_memory.fused_network(backbone, dtype)
        for size in sizes:
            yield name, size, device_memory.count(network, size, size, **how)


@pytest.mark.parametrize(
    "backbone",
    ["swin_v1_t", "pvt_v2_b0",
     *(pytest.param(name, marks=pytest.mark.slow)
       for name in ("swin_v1_l", "dino_v3_s", "resnet50", "efficientnet_lite0"))],
)  # fmt: skip
def test_the_estimate_for_devices_is_within_15_percent_of_what_is_counted(backbone):
    for dtype, size, found in counted(backbone, 512, 1024):
        estimate = memory_required(backbone, size, size, DTYPES[dtype], device="cuda", triton=True)
        assert estimate == pytest.approx(found, rel=0.15), (dtype, size)


@pytest.mark.parametrize(
    "backbone",
    ["pvt_v2_b0", *(pytest.param(name, marks=pytest.mark.slow) for name in ("swin_v1_t", "swin_v1_l", "pvt_v2_b2"))],
)
def test_so_it_is_in_chunks(backbone):
    for dtype, size, found in counted(backbone, 512, 1024, 2048, lean=True):
        estimate = memory_required(backbone, size, size, DTYPES[dtype], device="cuda", triton=True, lean=True)
        assert estimate == pytest.approx(found, rel=0.15), (dtype, size)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["pvt_v2_b0", "swin_v1_t"])
def test_so_it_is_without_triton(backbone):
    for dtype, size, found in counted(backbone, 512, 1024, triton=False):
        estimate = memory_required(backbone, size, size, DTYPES[dtype], device="cuda", triton=False)
        assert estimate == pytest.approx(found, rel=0.2), (dtype, size)


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("size", [512, 1024, 2048])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("backbone", ["swin_v1_t", "swin_v1_l", "pvt_v2_b0"])
def test_the_estimate_is_within_a_fifth_of_what_is_measured(backbone, dtype, size):
    found = json.loads(benchmark("sizes", "--one", "pass", backbone, dtype, 1, size, MALLOC_MMAP_THRESHOLD_="65536"))
    assert found["estimate"] == pytest.approx(found["pass"], rel=0.2)


@LINUX
@pytest.mark.slow
def test_32_frames_of_720p_take_the_memory_of_one():
    table = benchmark("frames", "--frames", 32, "--size", 256, "--modes", "plain")
    one, many = (float(row.split("|")[6]) for row in table.splitlines()[2:])  # megabytes above inputs and outputs
    assert many < 1.1 * one
