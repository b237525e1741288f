"""A GPU without enough memory for a mask node: the work runs anew on the CPU, and the log says so.

The GPU is torch's device without values ("meta"): what arrives there runs out of memory, as ``on_the_gpu`` says.
"""

import gc
import logging
import weakref
from importlib import import_module

import pytest
import torch

GPU = torch.device("meta")
IMAGES = torch.rand(2, 24, 32, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.4, 1, 0.5])
MASKS = torch.zeros(2, 24, 32)
MASKS[:, 6:18, 8:22] = 0.8
OUT_OF_MEMORY = {
    "CUDA's": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried 2.00 GiB.\nGPU 0 has 1 GiB free."),
    "CUDA's own": lambda: RuntimeError("CUDA error: out of memory"),
    "MPS's": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"),
}
# Node, its inputs, and the operation it calls.
CASES = {
    "RefineMask": ({"mask": MASKS, "grow": 1}, "refine_mask"),
    "RefineMask by the image": ({"mask": MASKS, "image": IMAGES, "guided_radius": 2}, "refine_mask"),
    "ApplyAlpha": ({"image": IMAGES, "mask": MASKS}, "cut_out"),
    "ApplyAlpha over a background": (
        {"image": IMAGES, "mask": MASKS, "background": IMAGES[:1], "output": "over background"}, "cut_out",
    ),
    "Trimap": ({"mask": MASKS}, "make_trimap"),
    "Despill": ({"image": IMAGES, "mask": MASKS, "edge_width": 3}, "remove_spill"),
    "Despill by the background": ({"image": IMAGES, "mask": MASKS, "screen": "background"}, "shows_background"),
    "CompareMasks": ({"mask": MASKS, "ground_truth": 1 - MASKS}, "compare_masks"),
}  # fmt: skip


@pytest.fixture(scope="module")
def tensors(comfy):
    return import_module("pack_under_test.nodes.tensors")


@pytest.fixture
def management(comfy, monkeypatch):
    """ComfyUI's memory management with a GPU; counts how often its cache is emptied in ``emptied``."""
    management = import_module("comfy.model_management")
    monkeypatch.setattr(management, "get_torch_device", lambda: GPU)
    monkeypatch.setattr(management, "emptied", 0, raising=False)

    def soft_empty_cache():
        management.emptied += 1

    monkeypatch.setattr(management, "soft_empty_cache", soft_empty_cache, raising=False)
    return management


class Node:
    @classmethod
    def define_schema(cls):
        return type("Schema", (), {"display_name": "A Node"})


def on_the_gpu(make_error, operation=torch.clone):
    """The operation, which raises an error on the GPU; its ``devices`` are those it ran on."""

    def run(*tensors, **options):
        run.devices.append(tensors[0].device.type)
        if tensors[0].is_meta:
            raise make_error()
        return operation(*tensors, **options)

    run.devices = []
    return run


@pytest.mark.parametrize("case", CASES)
def test_every_mask_node_runs_anew_on_the_cpu(comfy, tensors, management, monkeypatch, caplog, case):
    inputs, name = CASES[case]
    node = next(n for n in comfy.nodes.NODES if n.__name__ == f"BiRefNet{case.split()[0]}")
    inputs = {**comfy.compat.default_inputs(node), **inputs}
    with monkeypatch.context() as context:
        context.setattr(management, "get_torch_device", lambda: torch.device("cpu"))
        expected = node.execute(**inputs).result
    masks = import_module("pack_under_test.birefnet_core.masks")
    if name == "shows_background":  # what Despill does before, too
        monkeypatch.setattr(masks, "shows_background", on_the_gpu(OUT_OF_MEMORY["CUDA's"], masks.shows_background))
        monkeypatch.setattr(masks, "background_color", on_the_gpu(OUT_OF_MEMORY["CUDA's"], masks.background_color))
    else:
        monkeypatch.setattr(masks, name, on_the_gpu(OUT_OF_MEMORY["CUDA's"], getattr(masks, name)))
    result = node.execute(**inputs).result
    for found, wanted in zip(result, expected, strict=True):
        assert torch.equal(found, wanted) if isinstance(wanted, torch.Tensor) else str(found) == str(wanted)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{node.define_schema().display_name}: out of memory on meta (CUDA out of memory. Tried 2.00 GiB.)."
        " It runs on the CPU instead, which takes longer."
    )
    assert record.levelno == logging.WARNING and management.emptied == 1


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_errors_of_every_allocator_are_known(tensors, management, kind):
    operation = on_the_gpu(OUT_OF_MEMORY[kind])
    assert torch.equal(tensors.computed(Node, operation, MASKS), MASKS)
    assert operation.devices == ["meta", "cpu"]


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes"), ValueError("memory"), MemoryError(), OSError()]
)
def test_other_errors_pass(tensors, management, caplog, error):
    operation = on_the_gpu(lambda: error)
    with pytest.raises(type(error)) as raised:
        tensors.computed(Node, operation, MASKS)
    assert raised.value is error and operation.devices == ["meta"]
    assert not caplog.records and not management.emptied


def test_there_is_no_second_try_without_a_gpu(tensors, management, monkeypatch, caplog):
    monkeypatch.setattr(management, "get_torch_device", lambda: torch.device("cpu"))
    calls = []

    def operation(mask):
        calls.append(mask)
        raise OUT_OF_MEMORY["CUDA's"]()

    with pytest.raises(torch.OutOfMemoryError):
        tensors.computed(Node, operation, MASKS)
    assert len(calls) == 1 and not caplog.records


def test_an_error_on_the_cpu_passes(tensors, management):
    def operation(mask):
        raise RuntimeError("CUDA out of memory" if mask.is_meta else "DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        tensors.computed(Node, operation, MASKS)


def test_a_gpu_that_is_known_to_be_full_is_not_tried(tensors, management, monkeypatch, caplog):
    operation = on_the_gpu(OUT_OF_MEMORY["CUDA's"])
    monkeypatch.setattr(management, "get_free_memory", lambda device: MASKS.numel())
    assert torch.equal(tensors.computed(Node, operation, MASKS), MASKS)
    assert operation.devices == ["cpu"] and not caplog.records


def test_a_gpu_with_room_does_the_work(tensors, management, monkeypatch, caplog):
    devices = []

    def operation(mask, none):
        devices.append(mask.device)
        return mask, none

    monkeypatch.setattr(tensors, "as_result", lambda result: result)  # there are no values to bring back
    assert tensors.computed(Node, operation, MASKS, None)[0].is_meta
    assert devices == [GPU] and not caplog.records and not management.emptied


def test_memory_is_freed_before_the_second_try(tensors, management, monkeypatch):
    made, alive = [], []

    def operation(mask):
        if mask.is_meta:
            work = torch.zeros(9)
            made.extend(weakref.ref(tensor) for tensor in (mask, work))
            raise OUT_OF_MEMORY["CUDA's own"]()
        return mask.clone()

    monkeypatch.setattr(management, "soft_empty_cache", lambda: alive.extend(ref() is not None for ref in made))
    gc.disable()  # reference counts alone must do
    try:
        tensors.computed(Node, operation, MASKS)
    finally:
        gc.enable()
    assert alive == [False, False]


def test_results_are_where_comfyui_keeps_them(tensors, management, monkeypatch):
    monkeypatch.setattr(management, "intermediate_device", lambda: GPU)  # as with --gpu-only
    results = tensors.computed(Node, on_the_gpu(OUT_OF_MEMORY["MPS's"], lambda mask: (mask, mask)), MASKS)
    assert [result.device for result in results] == [GPU, GPU]


@pytest.fixture
def counting(tensors, management, comfy):
    """An operation that moves the bar with two frames, and runs out of memory on the GPU before the second."""

    def operation(mask):
        progress = tensors.progress_bar()
        for n in range(2):
            progress(n, 2)
            if n and mask.is_meta:
                raise OUT_OF_MEMORY["CUDA's"]()
        progress(2, 2)
        return mask.clone()

    comfy.progress.clear()
    return operation


def test_the_bar_begins_again(tensors, counting, comfy):
    tensors.computed(Node, counting, MASKS)
    assert comfy.progress == [(0, 2), (1, 2), (0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("step", range(5))
def test_cancelling_ends_either_try(tensors, counting, comfy, management, monkeypatch, step):
    def cancelled_at_that_step():
        if len(comfy.progress) == step:
            raise comfy.Interrupted

    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", cancelled_at_that_step)
    with pytest.raises(comfy.Interrupted):
        tensors.computed(Node, counting, MASKS)
    assert len(comfy.progress) == step and management.emptied == (step > 1)
