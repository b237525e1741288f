"""The precision a device gets by itself."""

import pytest
import torch

from birefnet_core import devices

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("tiles", "speedup", "expected"),
    [(False, 9, torch.float32), (True, 1, torch.float32), (True, 2, torch.bfloat16)],
)
def test_cpu_gets_bfloat16_only_with_matrix_instructions_that_are_faster(tiles, speedup, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles, raising=False)
    monkeypatch.setattr(devices, "_product_seconds", lambda dtype: 1 if dtype == torch.float32 else 1 / speedup)
    devices.bfloat16_is_faster_on_cpu.cache_clear()
    try:
        assert devices.choose_dtype("auto", CPU) == expected
    finally:
        devices.bfloat16_is_faster_on_cpu.cache_clear()


def test_other_devices_get_what_suits_them():
    assert devices.choose_dtype("auto", CUDA) == torch.float16
    assert devices.choose_dtype("auto", torch.device("mps")) == torch.float32


def test_timing_a_product_takes_no_time_to_speak_of():
    assert 0 < devices._product_seconds(torch.float32) < 1
