"""A device that has too little memory for the weights."""

import pytest
import torch

import birefnet_core as bc
from birefnet_core.checkpoints import load


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, RuntimeError], ids=["cuda", "mps"])
def test_weights_that_do_not_fit_on_the_device_are_told(error, monkeypatch):
    to = bc.BiRefNet.to

    def no_memory(model, *args, **options):
        if args != (torch.device("cuda"),):
            return to(model, *args, **options)
        raise error("CUDA out of memory. Tried to allocate 2 bytes")

    monkeypatch.setattr(bc.BiRefNet, "to", no_memory)
    monkeypatch.setattr(load, "choose_device", torch.device)
    with pytest.raises(bc.MemoryLimitError, match=r"too little memory on cuda for the network's weights .*2 bytes"):
        bc.load_model("demo", device="cuda", dtype="fp32")
