"""After running out of memory: smaller batches, then smaller chunks, and nothing of the failed pass left."""

import weakref

import pytest
import torch

import birefnet_core as bc
from birefnet_core.inference import batching, segmenter
from birefnet_core.ops.execution import MAX_LEVEL, memory_level
from birefnet_core.out_of_memory import OutOfMemoryError, free_memory, out_of_memory_as


class Full:
    """Makes the first passes of a network run out of memory.

    Attributes:
        batches: Images of every pass so far.
        levels: Memory level of every pass so far.
    """

    def __init__(self, network, monkeypatch, failures, error=None):
        self.batches, self.levels, self.failures = [], [], failures
        self.error, self.forward = error or OutOfMemoryError("CUDA out of memory"), network.forward
        monkeypatch.setattr(network, "forward", self)

    def __call__(self, x):
        self.batches.append(len(x))
        self.levels.append(memory_level())
        if len(self.batches) <= self.failures:
            raise self.error
        return self.forward(x)


def test_a_batch_that_does_not_fit_is_halved(oracle, monkeypatch):
    images = torch.rand(6, 30, 30, 3)
    network = oracle()
    expected = bc.Segmenter(network)(images, 64)
    full = Full(network, monkeypatch, failures=2)
    masks = bc.Segmenter(network, batch_size=4)(images, 64)
    assert full.batches == [4, 2, 1, 1, 1, 1, 1, 1]
    assert set(full.levels) == {0}
    torch.testing.assert_close(masks, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "words",
    [
        "MPS backend out of memory (MPS allocated: 8.10 GiB, max allowed: 9.07 GiB). Tried to allocate 1.00 GiB.",
        "[enforce fail at alloc_cpu.cpp] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        "[enforce fail at alloc_cpu.cpp] data. DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes.",
    ],
)
def test_the_plain_errors_of_other_devices_are_recognised(words, oracle, monkeypatch):
    network = oracle()
    full = Full(network, monkeypatch, failures=1, error=RuntimeError(words))
    bc.Segmenter(network, batch_size=2)(torch.rand(2, 30, 30, 3), 64)
    assert full.batches == [2, 1, 1]


def test_other_errors_pass_through(oracle, monkeypatch):
    network = oracle()
    full = Full(network, monkeypatch, failures=1, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        bc.Segmenter(network)(torch.rand(1, 30, 30, 3), 64)
    assert full.batches == [1]


def test_a_single_image_that_does_not_fit_is_run_in_smaller_chunks(oracle, monkeypatch):
    network, images = oracle(), torch.rand(2, 30, 30, 3)
    expected = bc.Segmenter(network)(images, 64)
    full = Full(network, monkeypatch, failures=2)
    assert torch.equal(bc.Segmenter(network)(images, 64), expected)
    assert full.levels == [0, 1, 2, 2]


def test_an_image_that_fits_in_no_way_is_an_error_that_says_what_to_lower(oracle, monkeypatch):
    network = oracle()
    full = Full(network, monkeypatch, failures=10**9)
    with pytest.raises(bc.MemoryLimitError, match=r"64 x 64.*CUDA out of memory.*smaller size"):
        bc.Segmenter(network, batch_size=2)(torch.rand(2, 30, 30, 3), 64)
    assert full.batches == [2] + [1] * (1 + MAX_LEVEL)
    assert full.levels == [0, *range(1 + MAX_LEVEL)]


def test_the_failed_pass_is_freed_before_the_next_attempt(oracle, monkeypatch):
    network, activations, alive = oracle(), [], []

    def forward(x):
        inner = x * 2  # in a frame that the error's traceback refers to
        activations.append(weakref.ref(inner))
        activations.append(weakref.ref(x))
        if len(activations) == 2:
            raise OutOfMemoryError("CUDA out of memory")
        return bc.BiRefNetOutput(inner[:, :1])

    def empty_cache(device):
        alive.append(sum(ref() is not None for ref in activations))

    monkeypatch.setattr(network, "forward", forward)
    monkeypatch.setattr(batching, "empty_cache", empty_cache)
    bc.Segmenter(network, batch_size=2)(torch.rand(2, 30, 30, 3), 64)
    assert alive == [0]


def test_what_the_network_keeps_is_freed_before_the_batch_is_halved(oracle):
    network = oracle(full=(0,))
    network.release = lambda: network.calls == 1
    passes = batching.Passes(network, batch_size=2, total=2)
    assert len(list(passes.run(torch.rand(2, 30, 30, 3), (64, 64)))) == 2
    assert passes.batch_size == 2 and network.calls == 2


@pytest.mark.parametrize(
    ("lean", "free", "level"), [("auto", 10**12, 0), ("auto", 10**6, 1), ("auto", None, 0), (True, 10**12, 1)]
)
def test_the_chunks_to_begin_with_follow_from_the_free_memory(lean, free, level, oracle, monkeypatch):
    network = oracle()
    full = Full(network, monkeypatch, failures=0)
    monkeypatch.setattr(segmenter, "free_memory", lambda device: free)
    bc.Segmenter(network, lean=lean)(torch.rand(1, 30, 30, 3), 1024)
    assert full.levels == [level]


def test_the_free_memory_of_a_gpu_counts_the_allocators_cache(monkeypatch):
    stats = {"reserved_bytes": {"all": {"current": 50}}, "allocated_bytes": {"all": {"current": 20}}}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda device: stats)
    assert free_memory(torch.device("cuda")) == 130


def test_the_free_memory_of_a_cpu_is_not_known():
    assert free_memory(torch.device("cpu")) is None


def _raised(error, cause=None):
    with out_of_memory_as(lambda reason: f"too little ({reason})"):
        raise error from cause


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried"), None),
        (MemoryError("CUDA out of memory. Tried"), RuntimeError("something else")),
        (RuntimeError("Failed to export."), RuntimeError("CUDA out of memory. Tried")),
        (RuntimeError("Failed to export."), MemoryError("CUDA out of memory. Tried.\nMore")),
    ],
)
def test_it_is_said_in_a_sentence_whoever_raised_it(error, cause):
    with pytest.raises(bc.errors.MemoryLimitError, match=r"^too little \(CUDA out of memory\. Tried\)$") as caught:
        _raised(error, cause)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes"), bc.errors.MemoryLimitError("its own"), ValueError("memory")])
def test_other_errors_are_not_that_of_memory(error):
    with pytest.raises(type(error)) as caught:
        _raised(error, KeyError("out of memory"))
    assert caught.value is error


def test_a_network_that_cannot_be_fused_for_want_of_memory_is_told(oracle, monkeypatch):
    def full(model):
        raise OutOfMemoryError("CUDA out of memory. Tried")

    monkeypatch.setattr(segmenter, "fuse_for_inference", full)
    with pytest.raises(bc.errors.MemoryLimitError, match=r"memory on cpu for the network's weights .*BiRefNet_lite"):
        bc.Segmenter(oracle())
