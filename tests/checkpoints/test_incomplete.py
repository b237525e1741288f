"""Files of the right length of which a part is zeros, as of a download that was given space for the whole."""

import pytest
import torch
from safetensors.torch import save_file

import birefnet_core as bc


@pytest.fixture
def state(filled):
    return filled("smallest")


def cut_off(path, first: float, last: float = 1.0):
    """Zeros in the place of some of a file's data, as of a download that was given space for the whole."""
    content = bytearray(path.read_bytes())
    data = 8 + int.from_bytes(content[:8], "little")
    start, end = (data + int((len(content) - data) * part) for part in (first, last))
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("dtype", "part"),
    [
        pytest.param(dtype, part, marks=() if dtype == torch.float32 or part[1] < 1 else pytest.mark.slow)
        for dtype in (torch.float32, torch.float16, torch.float64)
        for part in ((0.1, 1.0), (0.9, 1.0), (0.97, 1.0), (0.0, 0.5), (0.4, 0.8))
    ],
)
def test_weights_that_a_download_left_as_zeros_are_named(state, tmp_path, part, dtype):
    save_file({name: value.to(dtype) for name, value in state.items()}, tmp_path / "x.safetensors")
    with pytest.raises(
        bc.CheckpointError, match=r"x\.safetensors: .* weights are zero everywhere .* download it again"
    ):
        bc.load_model(cut_off(tmp_path / "x.safetensors", *part))


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_files_that_a_program_is_still_downloading_are_refused(state, tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    (save_file if ending == "safetensors" else torch.save)(state, path)
    control = tmp_path / f"x.{ending}.aria2"
    control.touch()
    with pytest.raises(bc.CheckpointError, match=rf"has not ended: x\.{ending}\.aria2 is beside it"):
        bc.load_file(path)
    control.unlink()
    bc.load_file(path)


def test_weights_that_may_be_zero_are_loaded(filled):
    state = filled("pvt_v2_b0")  # with deformable convolutions
    offsets = {n: torch.zeros_like(v) for n, v in state.items() if "offset_conv" in n or "modulator_conv" in n}
    head = {name: torch.zeros_like(value) for name, value in state.items() if ".conv_out1." in name}
    assert len(offsets) > 4 and len(head) == 2
    bc.model_from_state_dict({**state, **offsets, **head})
    bc.model_from_state_dict({name: torch.zeros_like(value) for name, value in state.items()})
