"""Real CUDA graphs: captured, replayed, captured again, dropped, and never wrong."""

import logging
import os
import subprocess
import sys

import pytest
import torch

import birefnet_core as bc
from birefnet_core.inference import cuda_graph
from birefnet_core.inference.cuda_graph import CudaGraph, GraphedNetwork
from birefnet_core.out_of_memory import OutOfMemoryError
from tests.emulated_cuda import side

pytestmark = pytest.mark.gpu

SIZE, SMALLER, LARGER, LARGE = map(side, (256, 192, 320, 1024))


@pytest.fixture
def captured(monkeypatch):
    """Shapes of the inputs captured so far."""
    shapes, initialise = [], CudaGraph.__init__

    def spy(self, run, x, *shared):
        shapes.append(tuple(x.shape))
        initialise(self, run, x, *shared)

    monkeypatch.setattr(CudaGraph, "__init__", spy)
    return shapes


def eager(model, images, size=SIZE):
    return bc.Segmenter(model, cuda_graphs=False)(images, size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", ["pvt_v2_b0", "swin_v1_t"])
def test_replayed_masks_equal_eager_masks(variant, dtype, filled, frames, captured):
    model = bc.model_from_state_dict(filled(variant), dtype=dtype).to("cuda")
    expected = eager(model, frames)
    found = bc.Segmenter(model)(frames, SIZE)
    assert captured == [(1, 3, SIZE, SIZE)]
    torch.testing.assert_close(found, expected, atol=1e-5 if dtype == torch.float32 else 2e-3, rtol=0)


def test_two_shapes_and_a_smaller_last_batch_in_turn(small, frames, captured):
    model = small()
    segment = bc.Segmenter(model, batch_size=2)
    expected = {size: eager(model, frames, size) for size in (SIZE, SMALLER)}
    for _ in range(3):
        for size in (SIZE, SMALLER):
            torch.testing.assert_close(segment(frames, size), expected[size], atol=1e-4, rtol=0)
    assert sorted(captured) == sorted((batch, 3, size, size) for batch in (1, 2) for size in (SIZE, SMALLER))


def test_graphs_are_captured_again_after_a_move_to_the_cpu_and_back(small, frames, captured):
    segment = bc.Segmenter(small())
    expected = segment(frames, SIZE)
    segment.model.to("cpu")
    torch.cuda.empty_cache()
    kept = torch.rand(64, 1024, 1024, device="cuda")  # where the weights were
    torch.testing.assert_close(segment(frames[:1], SIZE), expected[:1], atol=1e-4, rtol=0)
    segment.model.to("cuda")
    torch.testing.assert_close(segment(frames, SIZE), expected, atol=1e-5, rtol=0)
    assert len(captured) == 2 and kept.min() >= 0


def test_graphs_are_captured_again_in_another_precision(small, frames, captured):
    segment = bc.Segmenter(small())
    expected = segment(frames, SIZE)
    segment.model.half()
    torch.testing.assert_close(segment(frames, SIZE), expected, atol=2e-2, rtol=0)
    assert len(captured) == 2


@pytest.mark.parametrize("assign", [False, True])
def test_new_weights_are_used(assign, small, frames):
    segment = bc.Segmenter(small())
    before = segment(frames, SIZE)
    state = segment.model.state_dict()
    state = {name: value + 1 if name == "reconstruction.head.bias" else value.clone() for name, value in state.items()}
    segment.model.load_state_dict(state, assign=assign)
    found = segment(frames, SIZE)
    assert found.mean() > before.mean() + 0.01
    torch.testing.assert_close(found, eager(segment.model, frames), atol=1e-5, rtol=0)


def test_release_returns_the_memory_and_later_passes_are_right(small, frames, captured):
    segment = bc.Segmenter(small(), cuda_graphs=True)
    expected = eager(segment.model, frames)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    segment(frames, LARGE)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() > before + 20e6 * (LARGE / 1024) ** 2  # the pool
    segment.release()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + 8e6
    for _ in range(2):
        torch.testing.assert_close(segment(frames, SIZE), expected, atol=1e-5, rtol=0)
    assert len(captured) == 2


def test_graphs_of_two_sizes_take_the_memory_of_the_larger(small, frames, real_cuda):
    segment = bc.Segmenter(small(), cuda_graphs=True, lean=False)
    kept = []
    for size in (LARGE, LARGE - 32):
        segment(frames, size)
        torch.cuda.empty_cache()
        kept.append(torch.cuda.memory_reserved())
    assert len(segment._network._graphs) == 2
    assert kept[1] - kept[0] < 64e6  # input and output, and no second pool


def test_dropping_the_segmenter_returns_the_memory(small, frames):
    model = bc.Segmenter(small()).model
    eager(model, frames)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    bc.Segmenter(model)(frames, 512)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + 8e6


def test_too_little_memory_while_capturing_runs_eagerly(small, frames, monkeypatch, caplog):
    segment = bc.Segmenter(small())
    expected = eager(segment.model, frames)
    forward, capturing = segment.model.forward, torch.cuda.is_current_stream_capturing

    def full(x):
        y = forward(x)
        if capturing():
            raise OutOfMemoryError("CUDA out of memory")
        return y

    monkeypatch.setattr(segment.model, "forward", full)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    with caplog.at_level(logging.WARNING, cuda_graph.__name__):
        torch.testing.assert_close(segment(frames, SIZE), expected, atol=1e-5, rtol=0)
    assert [record.getMessage() for record in caplog.records] == [
        f"too little memory for a CUDA graph of (1, 3, {SIZE}, {SIZE}): running without"
    ]
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + 8e6
    monkeypatch.undo()
    segment.release()
    torch.testing.assert_close(segment(frames, SIZE), expected, atol=1e-5, rtol=0)


def test_a_network_that_waits_for_the_device_runs_eagerly(small, frames, monkeypatch, caplog):
    segment = bc.Segmenter(small())
    expected = eager(segment.model, frames)
    forward = segment.model.forward

    def waits(x):
        assert x.sum().item() == x.sum().item()
        return forward(x)

    monkeypatch.setattr(segment.model, "forward", waits)
    stream = torch.cuda.current_stream()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    with caplog.at_level(logging.WARNING, cuda_graph.__name__):
        torch.testing.assert_close(segment(frames, SIZE), expected, atol=1e-5, rtol=0)
    assert len(caplog.records) == 1 and "could not be captured" in caplog.text
    # The device works as before, also for other graphs.
    assert torch.cuda.current_stream() == stream
    assert torch.rand(9, device="cuda").std() > 0
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + 8e6
    monkeypatch.undo()
    torch.testing.assert_close(bc.Segmenter(segment.model)(frames, SIZE), expected, atol=1e-5, rtol=0)


def test_a_run_is_cancelled_between_images_and_within_an_eager_one(small, frames):
    class Cancelled(Exception):
        pass

    def cancel_after(images):
        def progress(done, total):
            if done == images:
                raise Cancelled

        return progress

    segment = bc.Segmenter(small())
    expected = eager(segment.model, frames)
    for images in (1, 2, 3):  # before an eager pass, a capture and a replay
        with pytest.raises(Cancelled):
            segment(frames, SIZE, progress=cancel_after(images))
    torch.testing.assert_close(segment(frames, SIZE), expected, atol=1e-5, rtol=0)

    def cancel_where(capturing):
        def cancel(module, inputs):
            if torch.cuda.is_current_stream_capturing() == capturing:
                raise Cancelled

        return cancel

    block = segment.model.reconstruction.blocks[1]
    for capturing in (False, True):
        segment.release()
        handle = block.register_forward_pre_hook(cancel_where(capturing))
        with pytest.raises(Cancelled):
            segment(frames, SIZE)
        handle.remove()
        torch.testing.assert_close(segment(frames, SIZE), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sizes", [(SIZE,), (SIZE, LARGER)])
def test_streams_may_take_turns(sizes, small):
    network = bc.Segmenter(small()).model
    sides = [sizes[i % len(sizes)] for i in range(8)]
    graphed, x = GraphedNetwork(network), [torch.rand(1, 3, side, side, device="cuda") for side in sides]
    with torch.inference_mode():
        expected = [network(one).logits for one in x]
        for one in x[: len(sizes)] * 2:
            graphed(one)
        torch.cuda.synchronize()
        streams, found = [torch.cuda.Stream() for _ in range(4)], []
        for i, one in enumerate(x):
            with torch.cuda.stream(streams[i % 4]):
                found.append(graphed(one).logits)
        torch.cuda.synchronize()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_the_allocator_of_cuda_itself_can_be_used(tmp_path, real_cuda):
    """ComfyUI starts with backend:cudaMallocAsync on most cards: no graphs there, and nothing else changes."""
    script = """
import torch, birefnet_core as bc
torch.manual_seed(0)
model = bc.Segmenter(bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b0")).eval().cuda()).model
images = torch.rand(5, 100, 120, 3)
expected = bc.Segmenter(model, cuda_graphs=False)(images, 512)
torch.cuda.empty_cache()
before = torch.cuda.mem_get_info()[0]
segment = bc.Segmenter(model)
assert (segment(images, 512) - expected).abs().max() < 1e-4
assert (segment(images, 512) - expected).abs().max() < 1e-4
assert not segment._network._graphs
segment.release()
torch.cuda.empty_cache()
torch.cuda.synchronize()
print("kept", before - torch.cuda.mem_get_info()[0])
"""
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "without" not in done.stderr
    assert int(done.stdout.split()[-1]) < 64e6
