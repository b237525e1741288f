"""The device of a name, and the precision it gets with dtype="auto"."""

import pytest
import torch

from birefnet_core import devices
from birefnet_core.errors import MemoryLimitError
from birefnet_core.out_of_memory import OutOfMemoryError
from birefnet_core.training.model_setup import amp_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("tiles", "expected"), [(False, torch.float32), (True, torch.bfloat16)])
def test_a_cpu_gets_bfloat16_with_amx_tiles(tiles, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles, raising=False)
    assert devices.choose_dtype("auto", CPU) == expected


def test_a_torch_that_cannot_name_the_cpus_capabilities_gives_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert devices.choose_dtype("auto", CPU) == torch.float32


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), torch.float32), ((7, 0), torch.float16), ((7, 5), torch.float16), ((12, 0), torch.float16)],
)
def test_a_cuda_device_gets_float16_with_tensor_cores(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.choose_dtype("auto", CUDA) == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_training_takes_bfloat16_where_it_is_not_emulated(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert amp_dtype("auto", CUDA) == expected
    assert amp_dtype("auto", CPU) is None


@pytest.mark.parametrize("supported", [False, True])
def test_a_caller_may_decide_about_float16(supported, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0) if not supported else (6, 1))
    found = devices.choose_dtype("auto", CUDA, supports_float16=lambda device: supported)
    assert found == (torch.float16 if supported else torch.float32)
    assert devices.choose_dtype("fp32", CUDA, supports_float16=lambda device: True) == torch.float32


@pytest.mark.parametrize("name", ["mps", "xpu"])
def test_other_devices_get_float32(name):
    assert devices.choose_dtype("auto", torch.device(name)) == torch.float32


@pytest.mark.parametrize("name", ["fp8", "half", torch.int8, torch.float64])
def test_other_dtypes_are_refused(name):
    from birefnet_core import ConfigError

    with pytest.raises(ConfigError, match="dtype"):
        devices.choose_dtype(name, CPU)


@pytest.mark.parametrize("name", ["meta", "hpu", "privateuseone:0", "CPU", "", None, ["cpu"]])
def test_devices_that_are_none_or_not_here_are_refused(name):
    from birefnet_core import ConfigError

    with pytest.raises(ConfigError, match="cannot be used here"):
        devices.choose_device(name)


def test_a_device_without_memory_is_told_as_that(monkeypatch):
    def full(*args, **kwargs):
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(MemoryLimitError, match=r"device 'cuda:0' has no memory left \(CUDA out of.*use 'cpu'"):
        devices.choose_device("cuda:0")
