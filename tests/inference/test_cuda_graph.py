"""When passes are captured, replayed, captured again and dropped; with graphs that are no CUDA graphs.

tests/gpu has the same with real ones.
"""

import logging

import pytest
import torch
from torch import nn

import birefnet_core as bc
from birefnet_core.inference import cuda_graph
from birefnet_core.inference.cuda_graph import MOST_GRAPHS, GraphedNetwork
from birefnet_core.ops.deform_conv import use_backend
from birefnet_core.ops.execution import use_memory_level
from birefnet_core.out_of_memory import OutOfMemoryError


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return bc.BiRefNetOutput(self.conv(x))


class FakeGraph:
    """Reads the weights at the addresses they had, and fixed memory for input and output, as a CUDA graph does."""

    def __init__(self, run, x, events):
        self.x, self.events = x.clone(), events
        self.y, weight, bias = run(self.x), *run.__closure__[0].cell_contents.network.conv.parameters()
        self.weight, self.bias = weight.detach(), bias.detach()

    def replay(self, x):
        self.events.append("replay")
        self.x.copy_(x)
        self.y.copy_(nn.functional.conv2d(self.x, self.weight, self.bias))
        return self.y.clone()

    def reset(self):
        self.events.append("reset")


class FakeBackend:
    def __init__(self):
        self.events, self.error, self.reason = [], None, None

    def unavailable(self, device):
        return self.reason

    def capture(self, run, x):
        self.events.append("capture")
        if self.error is not None:
            raise self.error
        return FakeGraph(run, x, self.events)

    def release(self, device):
        self.events.append("release")


@pytest.fixture
def network():
    return Network().requires_grad_(False)


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def graphed(network, backend):
    return GraphedNetwork(network, backend)


def images(height=32, width=32, batch=1):
    return torch.rand(batch, 3, height, width)


def test_the_first_pass_of_a_shape_is_eager_the_second_captured_the_third_replayed(graphed, network, backend):
    for wanted in ([], ["capture", "replay"], ["capture", "replay", "replay"]):
        x = images()
        found = graphed(x).logits
        assert backend.events == wanted
        assert torch.equal(found, network.conv(x))


def test_outputs_stay_as_they_are_when_the_graph_is_replayed(graphed):
    x = images()
    graphed(x), graphed(x)
    first = graphed(x).logits
    kept = first.clone()
    graphed(images())
    assert torch.equal(first, kept)


@pytest.mark.parametrize(
    "other",
    [
        images(32, 64),
        images(batch=2),
        images().double(),
        images(64, 64, 2).contiguous(memory_format=torch.channels_last)[:1, :, :32, :32],
    ],
)
def test_every_shape_precision_and_memory_format_has_a_graph_of_its_own(other, graphed, network, backend):
    for _ in range(2):
        graphed(images())
    network.to(other.dtype)
    backend.events.clear()
    assert torch.equal(graphed(other).logits, network.conv(other))
    assert "capture" not in backend.events
    graphed(other)
    assert backend.events[-2:] == ["capture", "replay"]


def test_two_shapes_in_turn_are_both_replayed(graphed, network, backend):
    small, large = images(), images(64, 64)
    for _ in range(4):
        for x in (small, large):
            assert torch.equal(graphed(x).logits, network.conv(x))
    assert backend.events == ["capture", "replay"] * 2 + ["replay"] * 4
    assert network.calls == 4


@pytest.mark.parametrize(
    "context",
    [lambda: use_memory_level(1), lambda: use_backend("gather"), lambda: torch.autocast("cpu", torch.bfloat16)],
)
def test_every_memory_level_backend_and_autocast_has_a_graph_of_its_own(context, graphed, backend):
    for _ in range(2):
        graphed(images())
    with context():
        graphed(images())
        assert backend.events == ["capture", "replay"]
        graphed(images())
    assert backend.events == ["capture", "replay"] * 2


def test_only_the_graphs_used_last_are_kept(graphed, backend):
    for side in range(MOST_GRAPHS + 1):
        for _ in range(2):
            graphed(images(32, 32 + side))
    assert backend.events.count("capture") == MOST_GRAPHS + 1
    assert backend.events.count("reset") == 1 and "release" not in backend.events
    backend.events.clear()
    graphed(images(32, 33))
    assert backend.events == ["replay"]
    graphed(images(32, 32))  # the first, which was dropped
    assert backend.events == ["replay", "reset", "capture", "replay"]


def _move(network):
    network.conv.weight.data = network.conv.weight.data.clone() * 2


def _replace(network):
    network.conv.bias = nn.Parameter(network.conv.bias + 1, requires_grad=False)


def _assign(network):
    network.load_state_dict({name: 2 * value for name, value in network.state_dict().items()}, assign=True)


@pytest.mark.parametrize("change", [_move, _replace, _assign])
def test_weights_that_were_moved_or_replaced_are_captured_again(change, graphed, network, backend):
    for _ in range(3):
        graphed(images())
    change(network)
    backend.events.clear()
    for _ in range(3):
        x = images()
        assert torch.equal(graphed(x).logits, network.conv(x))
    assert backend.events == ["reset", "release", "capture", "replay", "replay"]


def test_weights_that_were_changed_in_place_are_read_without_another_capture(graphed, network, backend):
    for _ in range(3):
        graphed(images())
    network.load_state_dict({name: 2 * value for name, value in network.state_dict().items()})
    backend.events.clear()
    x = images()
    assert torch.equal(graphed(x).logits, network.conv(x))
    assert backend.events == ["replay"]


def test_released_graphs_are_captured_again_when_their_shape_has_come_twice(graphed, backend):
    assert not graphed.release()
    for _ in range(3):
        graphed(images())
    backend.events.clear()
    assert graphed.release()
    assert backend.events == ["reset", "release"]
    assert not graphed.release()
    for _ in range(2):
        graphed(images())
    assert backend.events == ["reset", "release", "capture", "replay"]


def test_too_little_memory_for_a_graph_drops_the_others_and_runs_eagerly(graphed, network, backend, caplog):
    small, large = images(), images(64, 64)
    for x in (small, small, large):
        graphed(x)
    backend.error = OutOfMemoryError("CUDA out of memory")
    backend.events.clear()
    with caplog.at_level(logging.WARNING, cuda_graph.__name__):
        for _ in range(3):
            assert torch.equal(graphed(large).logits, network.conv(large))
    assert backend.events == ["capture", "reset", "release"]  # and no second attempt
    assert [record.getMessage() for record in caplog.records] == [
        "too little memory for a CUDA graph of (1, 3, 64, 64): running without"
    ]
    backend.error = None
    for _ in range(2):
        graphed(small)
    assert backend.events[-2:] == ["capture", "replay"]


def test_a_failed_capture_is_logged_once_and_all_runs_eagerly_from_then_on(graphed, network, backend, caplog):
    backend.error = RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might")
    with caplog.at_level(logging.WARNING, cuda_graph.__name__):
        for x in (images(), images(), images(64, 64), images(64, 64)):
            for _ in range(2):
                assert torch.equal(graphed(x).logits, network.conv(x))
    assert backend.events.count("capture") == 1
    assert [record.getMessage() for record in caplog.records] == [
        "a CUDA graph could not be captured (operation not permitted when stream is capturing): running without"
    ]


def test_an_exception_that_ends_the_run_is_no_failed_capture(graphed, backend):
    class Cancelled(Exception):
        pass

    graphed(images())
    backend.error = Cancelled()
    with pytest.raises(Cancelled):
        graphed(images())
    backend.error = None
    graphed(images())
    assert backend.events == ["capture", "capture", "replay"]


def test_devices_without_graphs_run_eagerly(graphed, backend):
    backend.reason = "cpu has none"
    for _ in range(3):
        graphed(images())
    assert backend.events == []
    assert cuda_graph.CudaGraphs().unavailable(torch.device("cpu")) is not None


def test_graphs_share_pool_stream_and_event_until_they_are_released(monkeypatch):
    shared = []
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: object())
    monkeypatch.setattr(torch.cuda, "Event", object)
    monkeypatch.setattr(cuda_graph, "CudaGraph", lambda run, x, some: shared.append(some))
    graphs = cuda_graph.CudaGraphs()
    for _ in range(2):
        graphs.capture(lambda x: x, images())
    graphs.release(torch.device("cpu"))
    graphs.capture(lambda x: x, images())
    first, second, third = shared
    assert first is second and not {*map(id, first)} & {*map(id, third)}


def test_there_are_no_graphs_where_cuda_itself_allocates(monkeypatch):
    """The allocator most ComfyUIs start with."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    reasons = []
    for allocator in ("native", "cudaMallocAsync"):
        monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda allocator=allocator: allocator)
        reasons.append(cuda_graph.CudaGraphs().unavailable(torch.device("cuda")))
    assert reasons[0] is None and "cudaMallocAsync" in reasons[1]


@pytest.mark.parametrize(
    ("option", "environment", "wanted"),
    [("auto", None, True), ("auto", "0", False), ("auto", "1", True), (True, "0", True), (False, "1", False)],
)
def test_graphs_can_be_switched_off(option, environment, wanted, monkeypatch, oracle):
    monkeypatch.delenv(cuda_graph.SWITCH, raising=False)
    if environment is not None:
        monkeypatch.setenv(cuda_graph.SWITCH, environment)
    segment = bc.Segmenter(oracle(), cuda_graphs=option)
    assert isinstance(segment._network, GraphedNetwork) == wanted
    segment.release()


def test_the_segmenter_gives_the_same_masks_with_graphs(network, backend, oracle, monkeypatch):
    monkeypatch.setattr(cuda_graph, "CudaGraphs", lambda: backend)
    network.fused, network.checkpoint, network.min_side = True, None, 32
    network.config = oracle.config
    frames = torch.rand(5, 40, 50, 3)
    expected = bc.Segmenter(network, cuda_graphs=False)(frames, 64)
    segment = bc.Segmenter(network)
    assert torch.equal(segment(frames, 64), expected)
    assert backend.events == ["capture"] + ["replay"] * 4
    segment.release()
    assert backend.events[-2:] == ["reset", "release"]
