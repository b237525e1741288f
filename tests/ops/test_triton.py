"""The Triton deformable convolution: in Triton's interpreter, in a process of its own, and where it cannot be used."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from torch import library

from birefnet_core.ops import deform_backends
from birefnet_core.ops.deform_backends.epilogue import Epilogue
from birefnet_core.ops.deform_sampling import Geometry

triton = pytest.importorskip("triton")


@pytest.mark.parametrize("chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_cases_of_the_interpreter_pass(chosen):
    """Those of the attention inside windows too: most of a small case is to start the process."""
    cases = [Path(__file__).with_name(name) for name in ("interpreted_triton.py", "test_window_attention.py")]
    options = ["-p", "no:cacheprovider", "-p", "no:warnings", "-k", "interpreted", "-m", chosen]  # also a file's name
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *options, *map(str, cases)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    if "only 0-dimensional arrays can be converted" in done.stdout:  # Triton 3.6 with numpy 2.4
        pytest.skip(f"the interpreter of Triton {triton.__version__} fails with numpy {numpy.__version__}")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout


@pytest.mark.parametrize(
    "device, dtype, reason",
    [("cpu", torch.float32, "not for cpu"), ("mps", torch.float16, "not for mps"), ("cuda", torch.float64, "float64")],
)
def test_reasons_why_it_cannot_be_used(device, dtype, reason):
    assert reason in deform_backends.unavailable("triton", torch.device(device), dtype)


def test_an_old_card_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    unavailable = deform_backends.load("triton").unavailable.__wrapped__
    assert unavailable(torch.device("cuda", 0), torch.float16).endswith("this device has 7.5")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    assert unavailable(torch.device("cuda", 0), torch.float16) is None


@pytest.mark.skipif(not hasattr(library, "wrap_triton"), reason="needs torch 2.6")
def test_only_tracing_launches_through_torch_s_wrapper(monkeypatch):
    """Through the wrapper a launch takes half a millisecond, and leaves an entry in a table that only grows."""
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table
    from torch._subclasses.fake_tensor import FakeTensorMode

    launch, launched = deform_backends.load("triton").launch, []
    monkeypatch.setattr(launch.triton.runtime.JITFunction, "run", lambda self, *args, **options: launched.append(self))

    def run():
        x, weight = torch.zeros(1, 16, 4, 4), torch.zeros(16, 16, 1, 1)
        out, offset = torch.zeros(1, 16, 4, 4), torch.zeros(1, 2, 4, 4)
        launch.convolve(out, x, offset, weight, None, Geometry(), Epilogue())
        return len(kernel_side_table.constant_args)

    entries = len(kernel_side_table.constant_args)
    assert run() == entries and launched == [launch.kernels.forward]
    with FakeTensorMode():
        assert run() == entries + 1 and len(launched) == 1
