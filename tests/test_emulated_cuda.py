"""The tests of a GPU, on an emulated one."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
pytestmark = pytest.mark.skipif(TORCH < (2, 14), reason="replaces parts of torch, as they are from 2.14 on")

# Of the network of fewest operations, in float32, which a CPU computes fastest.
QUICK = (
    "test_device or (logits_of_the_cpu and pvt_v2_b0 and (triton or torchvision)) or options0 or a_move_to_the_cpu or "
    "waits_for_the_device or too_little_memory_while or does_not_fit_is_an_error or "
    "(gradients_of_the_cpu and pvt_v2_b0)"
)
FILES = ["test_device.py", "test_exactness.py", "test_cuda_graph.py", "test_memory.py"]


@pytest.mark.parametrize(
    "chosen", [QUICK, pytest.param(f"not ({QUICK})", marks=pytest.mark.slow)], ids=["quick", "all"]
)
def test_tests_of_a_gpu_pass_on_an_emulated_one(chosen, tmp_path):
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-p", "tests.emulated_cuda", "-p", "no:cacheprovider", "-m", "gpu", "-q"]
    done = subprocess.run(
        [*command, "--basetemp", str(tmp_path / "tests"), "-k", chosen, *(f"tests/gpu/{file}" for file in FILES)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_what_prints_a_summary_of_the_memory_that_ran_out_runs():
    """As ComfyUI does: without one its worker ended, and its page waited."""
    script = """
        from tests import emulated_cuda
        emulated_cuda.start()
        import torch
        x = torch.ones(2**10, device="cuda")
        print(torch.cuda.memory.memory_summary())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("4096 bytes in use"), done.stderr[-2000:]
