"""What the other tests take for granted of the device, whether it is a real or an emulated one."""

import pytest
import torch

from tests.emulated_cuda import active

pytestmark = pytest.mark.gpu


def test_tensors_know_where_they_are():
    x = torch.rand(2, 3, device="cuda")
    for tensor in (x, x + 1, x[0], x.T, torch.zeros_like(x), x.half(), x.to(torch.float64), x.new_zeros(4)):
        assert tensor.is_cuda
        assert tensor.device == torch.device("cuda", 0)
        assert tensor.cpu().device.type == "cpu"
    assert x.to("cuda") is x
    back = torch.zeros(2, 3)
    back.copy_(x)
    assert not back.is_cuda
    assert torch.equal(back, x.cpu())


def test_modules_move():
    module = torch.nn.Conv2d(3, 4, 1)
    weight = module.weight.detach().clone()
    parameter = module.to("cuda").weight
    assert parameter.is_cuda
    assert isinstance(parameter, torch.nn.Parameter)
    assert torch.equal(module.cpu().weight, weight)


def test_devices_do_not_mix():
    with pytest.raises(RuntimeError, match="same device"):
        torch.rand(3, device="cuda") + torch.rand(3)
    with pytest.raises(TypeError, match="cuda"):
        torch.rand(3, device="cuda").numpy()
    assert (torch.rand(3, device="cuda") + torch.tensor(1.0)).is_cuda  # a number


def test_gradients_are_where_their_tensors_are():
    x = torch.rand(3, 4, device="cuda", requires_grad=True)
    y = torch.rand(4, requires_grad=True)
    (x[[0, 2]] * y.to("cuda")).sum().backward()
    assert x.grad.is_cuda
    assert not y.grad.is_cuda
    assert torch.equal(x.grad[1].cpu(), torch.zeros(4))


def test_memory_is_counted_and_runs_out():
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    x = torch.empty(2**20, device="cuda")
    assert torch.cuda.memory_allocated() == before + 2**22
    del x
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() == before + 2**22
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        torch.empty(2**45, dtype=torch.uint8, device="cuda")


def test_graphs_compute_with_what_their_memory_holds_now():
    x, y = torch.zeros(3, device="cuda"), torch.zeros(3, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y.copy_((x * 2).reshape(3, 1).add_(1)[:, 0])
    x.copy_(torch.arange(3.0))
    graph.replay()
    assert y.cpu().tolist() == [1, 3, 5]


@pytest.mark.skipif(not active(), reason="leaves torch before 2.12 recording on a real device")
def test_a_capture_must_not_wait_for_the_device():
    x, graph = torch.zeros(3, device="cuda"), torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="captur"), torch.cuda.graph(graph):
        x.sum().item()
    assert not torch.cuda.is_current_stream_capturing()
    assert torch.rand(3, device="cuda").isfinite().all()
