"""Compiled blocks give the same masks; where compiling fails, the network runs uncompiled."""

import inspect
import re
import warnings

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed, Unsupported
from torch._inductor.exc import InvalidCxxCompiler

import birefnet_core as bc
from birefnet_core.checkpoints import build
from birefnet_core.inference.compiled import CompiledNetwork, repeated_blocks
from birefnet_core.out_of_memory import OutOfMemoryError

BACKEND_FAILURE = (lambda: None, RuntimeError("no backend"), None)  # torch 2.4 takes no frame


class Cancelled(Exception):
    """ComfyUI 0.3.64 cancels with a plain Exception of its own."""


@pytest.fixture
def network(filled):
    return bc.Segmenter(bc.model_from_state_dict(filled("smallest"))).model


@pytest.fixture
def raise_in_block(network, monkeypatch):
    """Makes compiled blocks raise; uncompiled they work."""

    def set_up(error):
        def compile(module, **options):
            def call(*args, **kwargs):
                raise error

            module._compiled_call_impl = call

        monkeypatch.setattr(torch.nn.Module, "compile", compile)
        return CompiledNetwork(network)

    return set_up


@pytest.mark.parametrize(
    "error",
    [
        BackendCompilerFailed(*BACKEND_FAILURE[: len(inspect.signature(BackendCompilerFailed).parameters)]),
        Unsupported("call_function"),
        InvalidCxxCompiler(),
    ],
)
def test_a_compiler_error_gives_one_warning_and_the_network_runs_uncompiled(error, raise_in_block, network):
    compiled, x = raise_in_block(error), torch.randn(1, 3, 64, 64)
    with pytest.warns(RuntimeWarning, match=r"torch.compile failed \(.+\); running without it"):
        first = compiled(x).logits
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(compiled(x).logits, first)
        assert torch.equal(network(x).logits, first)


def test_a_platform_without_compiler_gives_one_warning_too(network, monkeypatch):
    def compile(module, **options):
        raise RuntimeError("torch.compile is not supported on Python 3.14+")

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    with pytest.warns(RuntimeWarning, match="not supported on Python"):
        compiled = CompiledNetwork(network)
    assert compiled(torch.randn(1, 3, 64, 64)).logits.shape == (1, 1, 64, 64)


@pytest.mark.parametrize(
    "error",
    [
        TypeError("forward() takes 2 positional arguments"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory"),
        Cancelled("cancelled"),
    ],
)
def test_other_errors_pass_through_and_the_network_stays_compiled(error, raise_in_block):
    compiled = raise_in_block(error)
    for _ in range(2):
        with warnings.catch_warnings(), pytest.raises(type(error), match=re.escape(str(error))):
            warnings.simplefilter("error")
            compiled(torch.randn(1, 3, 64, 64))


def test_the_segmenter_compiles_once_and_only_if_asked(filled, monkeypatch):
    made = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: made.append(module))
    images, model = torch.rand(2, 40, 40, 3), bc.model_from_state_dict(filled("smallest"))
    expected = bc.Segmenter(model)(images, 64)
    assert not made
    segment = bc.Segmenter(model, compile=True)
    assert torch.equal(segment(images, 64), expected)
    assert torch.equal(segment(images, 64), expected)
    assert made == list(repeated_blocks(segment.model.localization.encoder))


@pytest.mark.parametrize(
    ("backbone", "blocks"), [("swin_v1_l", 24), ("pvt_v2_b2", 16), ("dino_v3_s", 12), ("resnet50", 16)]
)
def test_the_encoders_blocks_are_compiled(backbone, blocks):
    network = build.empty_network(bc.BiRefNetConfig(backbone=backbone))
    assert len(list(repeated_blocks(network.localization.encoder))) == blocks


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["pvt_v2_b0", "swin_v1_t"])
def test_compiled_masks_are_the_same_and_equal_blocks_and_sizes_compile_once(variant, filled):
    model = bc.model_from_state_dict(filled(variant))
    plain = bc.Segmenter(model).model
    compiled = CompiledNetwork(bc.Segmenter(bc.model_from_state_dict(filled(variant))).model)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    graphs = []
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for seed in range(3):
            x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
            torch.testing.assert_close(compiled(x).logits, plain(x).logits, atol=1e-3, rtol=1e-3)
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] == graphs[2]
