"""The written estimate of memory."""

import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import birefnet_core as bc
from birefnet_core.config import BACKBONES
from birefnet_core.inference.memory import memory_required

ROOT = Path(__file__).resolve().parents[2]

MEASURE = """
import sys, torch, birefnet_core as bc
from birefnet_core.checkpoints.load import without_initialisation
backbone, size = sys.argv[1], int(sys.argv[2])
def kib(field):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(field))
with without_initialisation():
    model = bc.BiRefNet(bc.BiRefNetConfig(backbone=backbone)).eval()
for parameter in model.parameters():
    parameter.data.fill_(0.01)
network = bc.prepare(model)
del model
with torch.inference_mode():
    network(torch.randn(1, 3, 128, 128))
    before = kib("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    network(torch.randn(1, 3, size, size))
print((kib("VmHWM") - before) * 1024)
"""


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_has_an_estimate(backbone):
    one = memory_required(backbone, 1024, 1024)
    assert 100e6 < one < 6e9
    assert memory_required(backbone, 1024, 1024, torch.float16) < one
    assert memory_required(backbone, 1024, 1024, torch.bfloat16) >= one
    assert one < memory_required(backbone, 1024, 1024, batch=2) <= 2 * one


def test_the_segmenter_gives_the_estimate_of_its_network(filled):
    segment = bc.Segmenter(bc.model_from_state_dict(filled("pvt_v2_b0")))
    assert segment.memory_required(512, 256) == memory_required("pvt_v2_b0", 512, 256)
    assert segment.memory_required(512, 256, torch.float16) == memory_required("pvt_v2_b0", 512, 256, torch.float16)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident sizes are read from Linux's /proc")
@pytest.mark.parametrize("size", [768, 1024])
@pytest.mark.parametrize("backbone", ["swin_v1_t", "swin_v1_l", "pvt_v2_b0"])
def test_the_estimate_is_within_a_fifth_of_what_is_measured(backbone, size):
    command = [sys.executable, "-c", MEASURE, backbone, str(size)]
    runs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(3)]
    measured = statistics.median(int(run.stdout) for run in runs)  # the allocator's mood moves one by a quarter
    assert memory_required(backbone, size, size) == pytest.approx(measured, rel=0.2)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident sizes are read from Linux's /proc")
def test_64_frames_of_720p_take_the_memory_of_a_few():
    command = [sys.executable, "benchmarks/frames.py", "--frames", "64", "--size", "64", "--modes", "plain"]
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    one, many = (float(row.split("|")[6]) for row in table.splitlines()[2:])  # megabytes above inputs and outputs
    assert many < one + 3 * 1280 * 720 * 3 * 4 / 2**20  # the allocator keeps a frame or two
