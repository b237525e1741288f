"""torch.compile is an option, never a risk."""

import warnings

import pytest
import torch

import birefnet_core as bc
from birefnet_core.inference.compiling import CompiledNetwork
from birefnet_core.inference.out_of_memory import OutOfMemoryError


@pytest.fixture(scope="module")
def prepared(filled):
    return bc.prepare(bc.model_from_state_dict(filled("pvt_v2_b0")))


def test_a_failure_is_told_once_and_the_network_runs_as_it_is(prepared, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", lambda network, **_: broken)
    compiled = CompiledNetwork(prepared)
    x = torch.randn(1, 3, 64, 64)
    with pytest.warns(RuntimeWarning, match="no compiler here"):
        first = compiled(x).logits
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(compiled(x).logits, first)
    assert torch.equal(first, prepared(x).logits)


def test_an_exception_that_is_no_compilers_ends_the_run(prepared, monkeypatch):
    """ComfyUI 0.3.64 cancels with a plain Exception of its own; its flag is down once that is raised."""

    class Cancelled(Exception):
        pass

    def cancelled(*_, **__):
        raise Cancelled

    monkeypatch.setattr(torch, "compile", lambda network, **_: cancelled)
    compiled = CompiledNetwork(prepared)
    for _ in range(2):
        with warnings.catch_warnings(), pytest.raises(Cancelled):
            warnings.simplefilter("error")
            compiled(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("error", [OutOfMemoryError("no room"), RuntimeError("MPS backend out of memory")])
def test_too_little_memory_is_no_failure_to_compile(prepared, error, monkeypatch):
    def full(*_):
        raise error

    monkeypatch.setattr(torch, "compile", lambda network, **_: full)
    compiled = CompiledNetwork(prepared)
    for _ in range(2):
        with warnings.catch_warnings(), pytest.raises(type(error), match=str(error)):
            warnings.simplefilter("error")
            compiled(torch.randn(1, 3, 64, 64))


def test_the_segmenter_compiles_once_and_only_when_asked(prepared, monkeypatch):
    made = []
    monkeypatch.setattr(torch, "compile", lambda network, **_: made.append(network) or network)
    images = torch.rand(2, 40, 40, 3)
    expected = bc.Segmenter(prepared)(images, 64)
    assert not made
    segment = bc.Segmenter(prepared, compile=True)
    assert torch.equal(segment(images, 64), expected)
    assert torch.equal(segment(images, 64), expected)
    assert made == [prepared]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["pvt_v2_b0", "swin_v1_t"])
def test_compiled_masks_are_the_same_and_equal_sizes_compile_once(variant, filled):
    prepared = bc.prepare(bc.model_from_state_dict(filled(variant)))
    compiled = CompiledNetwork(prepared)
    torch._dynamo.utils.counters.clear()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for seed in range(3):
            x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
            torch.testing.assert_close(compiled(x).logits, prepared(x).logits, atol=1e-3, rtol=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
