"""Memory of a CUDA device: estimated, limited, and returned."""

import pytest
import torch

import birefnet_core as bc
from birefnet_core.cli.evaluate import _segmenter
from birefnet_core.cli.main import build_parser
from birefnet_core.out_of_memory import free_memory
from tests.emulated_cuda import side

pytestmark = pytest.mark.gpu

MIB = 2**20


@pytest.fixture
def limit():
    """Limits the memory of this process to what is allocated and so many bytes more."""

    def set_limit(more):
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)

    yield set_limit
    torch.cuda.set_per_process_memory_fraction(1.0)


def peak(run):
    """Bytes allocated at the peak beyond what is allocated before."""
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("size", [512, 1024, 2048])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("variant", ["swin_v1_t", "pvt_v2_b0"])
@pytest.mark.parametrize("lean", [False, True])
def test_the_estimate_is_within_15_percent(lean, variant, dtype, size, batch_size, filled, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # as by default; without, cuDNN takes more room
    size = side(size, size // 4)
    model = bc.model_from_state_dict(filled(variant), dtype=dtype).to("cuda")
    segment = bc.Segmenter(model, batch_size=batch_size, cuda_graphs=False, lean=lean)
    segment(torch.rand(1, 64, 64, 3), 64)
    images = torch.rand(batch_size, size, size, 3)
    estimate = segment.memory_required(size, size, batch_size=batch_size)
    assert estimate == pytest.approx(peak(lambda: segment(images, size)), rel=0.15)


def test_chunks_take_less_memory(filled, real_cuda):
    model = bc.model_from_state_dict(filled("swin_v1_t"), dtype=torch.float16).to("cuda")
    network, images = bc.Segmenter(model).model, torch.rand(1, 1024, 1024, 3)
    peaks = []
    for lean in (False, True):
        segment = bc.Segmenter(network, cuda_graphs=False, lean=lean)
        segment(images[:, :64, :64], 64)
        peaks.append(peak(lambda s=segment: s(images, 1024)))
    assert peaks[1] < 0.8 * peaks[0]


@pytest.mark.parametrize("graphs", [False, "auto"])
def test_a_card_with_little_memory_gives_the_same_masks(graphs, filled, limit):
    model = bc.model_from_state_dict(filled("swin_v1_t"), dtype=torch.float16).to("cuda")
    images, size = torch.rand(4, 512, 512, 3), side(1024, 256)
    segment = bc.Segmenter(model, cuda_graphs=graphs, lean=False)
    expected = segment(images, size)
    segment.release()
    needed = peak(lambda: bc.Segmenter(segment.model, cuda_graphs=False, lean=False)(images[:1], size))
    limit(int(0.8 * needed))
    found = bc.Segmenter(segment.model, batch_size=4, cuda_graphs=graphs, lean=False)(images, size)
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


def test_an_image_that_does_not_fit_is_an_error_and_the_next_one_works(small, limit):
    segment = bc.Segmenter(small())
    segment(torch.rand(1, 64, 64, 3), 64)
    limit(16 * MIB)
    with pytest.raises(bc.MemoryLimitError, match="smaller size"):
        segment(torch.rand(1, 64, 64, 3), 4096)
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert segment(torch.rand(1, 64, 64, 3), 64).isfinite().all()


def test_evaluate_holds_the_weights_once_while_loading(filled, tmp_path):
    file = bc.save_checkpoint(bc.model_from_state_dict(filled("pvt_v2_b0")), tmp_path / "m.safetensors")
    args = build_parser("evaluate").parse_args(["evaluate", "--gt", ".", "--model", str(file), "--device", "cuda"])
    copies = 0.3  # of layers, to warm up with
    assert peak(lambda: _segmenter(args)) < (1 + copies) * file.stat().st_size


def test_free_memory_counts_the_allocators_cache(cuda):
    before = free_memory(cuda)
    x = torch.empty(256 * MIB, dtype=torch.uint8, device=cuda)
    assert before - free_memory(cuda) == pytest.approx(256 * MIB, rel=0.1)
    del x
    assert free_memory(cuda) == pytest.approx(before, abs=32 * MIB)
