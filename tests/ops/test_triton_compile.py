"""The Triton kernels compiled for several cards, none of which is needed: errors, shared memory, spilled registers."""

import re
import subprocess
from pathlib import Path

import pytest
import torch

from birefnet_core.ops import deform_backends
from birefnet_core.ops.deform_backends.epilogue import Epilogue
from birefnet_core.ops.deform_sampling import Geometry

triton = pytest.importorskip("triton", minversion="3.3")
backends = pytest.importorskip("triton.backends.compiler")
launch = deform_backends.load("triton").launch

# Bytes of shared memory that a program can have.
SHARED_MEMORY = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 120: 99 * 1024}
TYPES = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}


def compile_for(capability, kernel, tensors, arguments):
    """Compiles as a launch with these arguments would."""
    values = dict(zip(kernel.arg_names, tensors, strict=False))
    values |= {name: value for name, value in arguments.items() if name in kernel.arg_names}
    options = {name: value for name, value in arguments.items() if name not in kernel.arg_names}
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value, special = values[parameter.name], not parameter.do_not_specialize
        if isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
            attributes[(index,)] = [["tt.divisibility", 16]]
        elif parameter.is_constexpr or (value == 1 and special):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        else:
            signature[parameter.name] = "i32"
            if value % 16 == 0 and special:
                attributes[(index,)] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=backends.GPUTarget("cuda", capability, 32), options=options)


def spilled_bytes(compiled, folder):
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        return 0
    (folder / "kernel.cubin").write_bytes(compiled.asm["cubin"])
    usage = subprocess.run([tool, "-res-usage", folder / "kernel.cubin"], capture_output=True, text=True).stdout
    return int(re.search(r"STACK:(\d+)", usage)[1])


@pytest.fixture
def launches(monkeypatch):
    """What would be launched, with tensors that have no memory."""
    made = []
    monkeypatch.setattr(launch, "_launch", lambda kernel, grid, *tensors, **rest: made.append((kernel, tensors, rest)))
    monkeypatch.setattr(launch, "_float32_precision", lambda device: "tf32x3")
    return made


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("capability", SHARED_MEMORY)
def test_kernels_fit_cards(capability, dtype, launches, tmp_path):
    def map_of(channels, side):
        return torch.empty(1, channels, side, side, dtype=dtype, device="meta").to(memory_format=torch.channels_last)

    def matrix(*shape):
        return torch.empty(shape, dtype=dtype, device="meta")

    geometry = Geometry(padding=(3, 3))
    weight, epilogue = matrix(256, 64, 7, 7), Epilogue(matrix(256), "relu", matrix(64, 256))
    for side in (256, 32):
        x, predicted = map_of(64, side), map_of(147, side)
        places = (x, predicted[:, :98], weight, predicted[:, 98:], geometry)
        launch.convolve(map_of(64, side), *places, epilogue._replace(into=map_of(64, side)))
        launch.convolve(map_of(256, side), *places, Epilogue())
        launch.backward_samples(map_of(256, side), *places)
        launch.backward_weight(map_of(256, side), *places)
    for kernel, tensors, arguments in launches:
        compiled = compile_for(capability, kernel, tensors, arguments)
        assert compiled.metadata.shared <= SHARED_MEMORY[capability]
        assert spilled_bytes(compiled, tmp_path) <= 512  # a few registers, not a whole tile
