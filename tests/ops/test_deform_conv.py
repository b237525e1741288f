"""Deformable convolution: recorded values, agreement of the backends, epilogue, chunks, checks."""

import itertools
import logging

import pytest
import torch
import torch.nn.functional as F

import birefnet_core as bc
from birefnet_core.ops import deform_backends, deform_conv, execution
from birefnet_core.ops.deform_backends import BackendUnavailableError
from birefnet_core.ops.deform_conv import add_deform_conv2d, best_backend, use_backend

KERNELS = ("k1", "k3", "k7")
CPU = torch.device("cpu")
TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])


def in_chunks_of(elements):
    return execution.use_chunk_sizes(deform_columns=elements, deform_gather=elements)


def recorded_inputs(recorded, kernel):
    names = ("x", "offset", "mask", "weight")
    return [torch.from_numpy(recorded.arrays[f"{kernel}_{name}"]).requires_grad_() for name in names]


@pytest.mark.parametrize("kernel", KERNELS)
def test_backend_equals_recorded_values(kernel, backend, reference):
    recorded = reference("deform_conv")
    x, offset, mask, weight = recorded_inputs(recorded, kernel)
    padding = recorded.meta[kernel]["padding"]
    bias = torch.from_numpy(recorded.arrays[f"{kernel}_bias"])

    y = bc.deform_conv2d(x, offset, weight, mask=mask, padding=padding, backend=backend)
    biased = bc.deform_conv2d(x, offset, weight, mask=mask, bias=bias, padding=padding, backend=backend)
    unmasked = bc.deform_conv2d(x, offset, weight, padding=padding, backend=backend)
    with torch.no_grad():
        inferred = bc.deform_conv2d(x, offset, weight, mask=mask, padding=padding, backend=backend)
    for found, name in ((y, "y"), (inferred, "y"), (biased, "y_bias"), (unmasked, "y_nomask")):
        expected = torch.from_numpy(recorded.arrays[f"{kernel}_{name}"])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())

    y.backward(torch.from_numpy(recorded.arrays[f"{kernel}_gy"]))
    for tensor, name in ((x, "x"), (offset, "offset"), (mask, "mask"), (weight, "weight")):
        expected = torch.from_numpy(recorded.arrays[f"{kernel}_grad_{name}"])
        torch.testing.assert_close(tensor.grad, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_backends_agree_far_outside_and_in_chunks(size, stride, backend):
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(2, 4, 9, 13, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, 4, size, size, generator=generator, dtype=torch.float64)
    options = {"padding": size // 2, "stride": stride}
    rows, columns = -(-9 // stride), -(-13 // stride)
    offset = 8 * torch.randn(2, 2 * size**2, rows, columns, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, size**2, rows, columns, generator=generator, dtype=torch.float64)
    whole = bc.deform_conv2d(x, offset, weight, mask=mask, backend="torchvision", **options)
    for elements in (1, 600, 4 * size**2 * columns * 2 * 3):  # a row at a time; some; three rows
        with in_chunks_of(elements):
            found = bc.deform_conv2d(x, offset, weight, mask=mask, backend=backend, **options)
        torch.testing.assert_close(found, whole)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("elements", [1, 400, 2000, 10**9])
def test_torchvision_s_chunks_stay_within_their_size(elements, stride, monkeypatch):
    torchvision = deform_backends.load("torchvision")
    made = []

    def operator(x, offset, *rest):
        made.append(offset.shape[2])
        return original(x, offset, *rest)

    original = torchvision.operator
    monkeypatch.setattr(torchvision, "operator", operator)
    x, rows, columns = torch.randn(1, 4, 17, 5), -(-17 // stride), -(-5 // stride)
    with in_chunks_of(elements):
        bc.deform_conv2d(
            x, torch.randn(1, 18, rows, columns), torch.randn(2, 4, 3, 3),
            stride=stride, padding=1, backend="torchvision",
        )  # fmt: skip
    assert max(made) <= max(1, elements // (columns * 9 * 4))
    assert rows <= sum(made) < rows + max(made)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("grad", [False, True])
def test_half_precision_keeps_sampling_positions(backend, dtype, grad):
    """Positions past 256 have no fraction in float16; a backend that computed them in it would be far off."""
    x = torch.linspace(0, 1, 1024).expand(1, 1, 2, 1024).to(dtype).requires_grad_(grad)
    offset = torch.full((1, 2, 2, 1024), 0.5)
    offset[:, 0] = 0
    y = bc.deform_conv2d(x, offset.to(dtype), torch.ones(1, 1, 1, 1, dtype=dtype), backend=backend)
    expected = bc.deform_conv2d(x.float(), offset, torch.ones(1, 1, 1, 1), backend=backend)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    if grad:
        y.sum().backward()
        assert x.grad.dtype == dtype


def epilogue_inputs(make_inputs, dtype=torch.float64, out=4, **options):
    tensors, options = make_inputs(dtype=dtype, out=out, **options)
    generator = torch.Generator().manual_seed(1)
    bias = torch.randn(out, generator=generator, dtype=dtype).requires_grad_()
    projection = torch.randn(3, out, generator=generator, dtype=dtype).requires_grad_()
    return tensors, options, bias, projection


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("elements", [1, 600, 10**9])
def test_epilogue_equals_the_operations_one_by_one(backend, elements, masked, make_inputs):
    tensors, options, bias, projection = epilogue_inputs(make_inputs, batch=2, height=5, width=6)
    if not masked:
        tensors["mask"] = None
    plain = bc.deform_conv2d(**tensors, backend=backend, **options)
    for with_bias, activation, project in itertools.product([True, False], ["none", "relu"], [True, False]):
        expected = plain + bias[:, None, None] if with_bias else plain
        expected = F.relu(expected) if activation == "relu" else expected
        expected = F.conv2d(expected, projection[..., None, None]) if project else expected
        keywords = {
            "bias": bias if with_bias else None, "activation": activation,
            "projection": projection if project else None, "backend": backend,
        }  # fmt: skip
        leaves = [t for t in (*tensors.values(), keywords["bias"], keywords["projection"]) if t is not None]
        with in_chunks_of(elements):
            with torch.no_grad():
                torch.testing.assert_close(bc.deform_conv2d(**tensors, **options, **keywords), expected)
            y = bc.deform_conv2d(**tensors, **options, **keywords)
            torch.testing.assert_close(y, expected)
            weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
            found = torch.autograd.grad(y, leaves, weights)
        wanted = torch.autograd.grad(expected, leaves, weights, retain_graph=True)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other)


def test_an_epilogue_learns_where_the_convolution_does_not(backend, make_inputs):
    tensors, options, bias, projection = epilogue_inputs(make_inputs)
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    y = bc.deform_conv2d(**tensors, **options, bias=bias, projection=projection, activation="relu", backend=backend)
    y.sum().backward()
    assert bias.grad.abs().sum() > 0 and projection.grad.abs().sum() > 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("elements", [1, 700, 10**9])
@pytest.mark.parametrize("first, rows", [(0, 9), (0, 4), (3, 4), (8, 1)])
@torch.inference_mode()
def test_rows_are_added_in_place(backend, first, rows, elements, layout, make_inputs):
    tensors, _, bias, projection = epilogue_inputs(make_inputs)
    x, offset, weight, mask = tensors["x"], tensors["offset"], tensors["weight"], tensors["mask"]
    keywords = {"bias": bias, "padding": 1, "activation": "relu", "projection": projection}
    expected = bc.deform_conv2d(x, offset, weight, mask=mask, backend="gather", **keywords)
    total = torch.ones_like(expected).contiguous(memory_format=layout)
    chosen = slice(first, first + rows)
    offset, mask = offset[:, :, chosen], mask[:, :, chosen]
    with in_chunks_of(elements):
        add_deform_conv2d(total, x, offset, weight, mask=mask, first_row=first, backend=backend, **keywords)
    torch.testing.assert_close(total[:, :, chosen], 1 + expected[:, :, chosen])
    rest = [row for row in range(9) if not first <= row < first + rows]
    assert (total[:, :, rest] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_half_precision_is_added_to_a_map_of_its_dtype(backend, dtype, make_inputs):
    tensors, _, bias, projection = epilogue_inputs(make_inputs, torch.float32)
    x, weight = (tensors[name].to(dtype) for name in ("x", "weight"))
    bias, projection = bias.to(dtype), projection.to(dtype)
    keywords = {"mask": tensors["mask"], "padding": 1, "activation": "relu"}
    expected = bc.deform_conv2d(
        x.float(), tensors["offset"], weight.float(), bias=bias.float(), projection=projection.float(), **keywords
    )
    total = torch.zeros_like(expected, dtype=dtype)
    add_deform_conv2d(
        total, x, tensors["offset"], weight, bias=bias, projection=projection, backend=backend, **keywords
    )
    torch.testing.assert_close(total.float(), expected, rtol=4 * torch.finfo(dtype).eps, atol=0.05)


def test_higher_memory_levels_give_the_same(backend, make_inputs):
    tensors, options = make_inputs(size=7, padding=(3, 3), height=33, width=70, channels=16, out=8)
    with torch.no_grad():
        expected = bc.deform_conv2d(**tensors, **options, backend=backend)
        for level in range(1, execution.MAX_LEVEL + 1):
            with execution.use_memory_level(level):
                torch.testing.assert_close(
                    bc.deform_conv2d(**tensors, **options, backend=backend), expected, atol=1e-4, rtol=1e-4
                )


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_samples_outside_do_not_read_the_border(backend, value):
    """A pixel that is not finite spoils the outputs that read it, not those that are clamped towards it."""
    x = torch.ones(1, 1, 4, 5)
    x[..., 0, :] = x[..., -1, :] = x[..., 0] = x[..., -1] = value
    for dy, dx in ((-50, 0), (50, 0), (0, -50), (0, 50)):
        offset = torch.tensor([dy, dx], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, 4, 5)
        assert (bc.deform_conv2d(x, offset, torch.ones(1, 1, 1, 1), backend=backend) == 0).all()


def compile_whole(function):
    torch.compiler.reset()
    return torch.compile(function, backend="eager", fullgraph=True)


@pytest.mark.parametrize("backend_name", ["auto", "gather"])
def test_compiles_in_one_graph(backend_name, make_inputs):
    tensors, options, bias, projection = epilogue_inputs(make_inputs)
    keywords = {"bias": bias, "projection": projection, "activation": "relu", "backend": backend_name, **options}
    with torch.no_grad():
        expected = bc.deform_conv2d(**tensors, **keywords)
        found = compile_whole(lambda: bc.deform_conv2d(**tensors, **keywords))()
    torch.testing.assert_close(found, expected)


@pytest.mark.skipif(TORCH < (2, 5), reason="torch 2.4 exports a reshaping as a view, which it is not")
def test_exports_with_any_number_of_images(make_inputs):
    tensors, options, bias, _ = epilogue_inputs(make_inputs, torch.float32)

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", tensors["weight"].detach())
            self.register_buffer("bias", bias.detach())

        def forward(self, x, offset, mask):
            return bc.deform_conv2d(x, offset, self.weight, mask=mask, bias=self.bias, activation="relu", **options)

    inputs = [tensors[name].detach() for name in ("x", "offset", "mask")]
    batch = {0: torch.export.Dim("batch")}
    with torch.no_grad(), in_chunks_of(200):
        program = torch.export.export(Module(), tuple(inputs), dynamic_shapes=(batch, batch, batch))
        for count in (2, 3):
            some = [one[:count] for one in inputs]
            torch.testing.assert_close(program.module()(*some), Module()(*some))


def test_auto_takes_the_fastest_backend(monkeypatch, caplog):
    reasons = {"triton": "no Triton", "torchvision": None}
    monkeypatch.setattr(deform_backends, "unavailable", lambda name, device, dtype: reasons[name])
    deform_conv._warn_once.cache_clear()
    cuda, half = torch.device("cuda"), torch.float16
    assert best_backend(CPU, torch.float32) == "embedding_bag"
    assert best_backend(torch.device("mps"), half) == "gather"
    with caplog.at_level(logging.WARNING):
        assert best_backend(cuda, torch.float32) == "torchvision"
        assert best_backend(cuda, half) == best_backend(cuda, torch.bfloat16) == "embedding_bag"
    assert [record.getMessage() for record in caplog.records if "no Triton" in record.getMessage()] != []
    assert len(caplog.records) == 1
    reasons["torchvision"] = "not compiled"
    assert best_backend(cuda, torch.float32) == "embedding_bag"
    reasons["triton"] = None
    assert best_backend(cuda, torch.float32) == best_backend(cuda, half) == "triton"
    deform_conv._warn_once.cache_clear()


def test_a_backend_whose_library_is_missing_says_so(monkeypatch):
    def load(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(deform_backends, "load", load)
    assert "No module named" in deform_backends.unavailable("triton", CPU, torch.float32)
    with pytest.raises(bc.ConfigError, match="No module named"):
        bc.deform_conv2d(*shapes_that_fit(), padding=1, backend="torchvision")


def test_a_backend_that_turns_out_not_to_run_is_tried_once(monkeypatch):
    tried = []

    def run(*arguments):
        tried.append("embedding_bag")
        raise BackendUnavailableError("too old a driver")

    monkeypatch.setattr(deform_backends, "_failures", {})
    monkeypatch.setattr(deform_backends.load("embedding_bag"), "run", run)
    monkeypatch.setattr(
        deform_conv, "best_backend",
        lambda *kind: "gather" if deform_backends.unavailable("embedding_bag", *kind) else "embedding_bag",
    )  # fmt: skip
    for _ in range(2):
        assert bc.deform_conv2d(*shapes_that_fit(), padding=1).shape == (1, 3, 4, 4)
    assert tried == ["embedding_bag"]
    with pytest.raises(bc.ConfigError, match="too old a driver"):
        bc.deform_conv2d(*shapes_that_fit(), padding=1, backend="embedding_bag")


def test_another_backend_can_be_used_in_a_context(monkeypatch):
    used = []
    monkeypatch.setattr(deform_backends.load("gather"), "run", lambda *args: used.append("gather"))
    with use_backend("gather"):
        bc.deform_conv2d(*shapes_that_fit(), padding=1)
        bc.deform_conv2d(*shapes_that_fit(), padding=1, backend="embedding_bag")
    bc.deform_conv2d(*shapes_that_fit(), padding=1)
    assert used == ["gather"]


def shapes_that_fit():
    return torch.zeros(1, 2, 4, 4), torch.zeros(1, 18, 4, 4), torch.zeros(3, 2, 3, 3)


def test_shapes_and_options_that_do_not_fit_are_refused():
    x, offset, weight = shapes_that_fit()
    for match, arguments, options in (
        ("backend", (x, offset, weight), {"backend": "fast"}),
        ("18 offset", (x, offset[:, :9], weight), {}),
        ("9 mask", (x, offset, weight), {"mask": torch.zeros(1, 8, 4, 4)}),
        ("channels", (x[:, :1], offset, weight), {}),
        ("batch size", (x, offset.expand(2, -1, -1, -1), weight), {}),
        ("batch size", (x, offset, weight), {"mask": torch.zeros(1, 9, 4, 3)}),
        ("gives", (x, offset[:, :, :3], weight), {}),
        ("bias", (x, offset, weight), {"bias": torch.zeros(2)}),
        ("projection", (x, offset, weight), {"projection": torch.zeros(2, 2)}),
        ("projection", (x, offset, weight), {"projection": torch.zeros(2, 3, 1, 1)}),
        ("activation", (x, offset, weight), {"activation": "gelu"}),
    ):
        with pytest.raises(bc.ConfigError, match=match):
            bc.deform_conv2d(*arguments, padding=1, **options)
    with pytest.raises(bc.ConfigError, match="total"):
        add_deform_conv2d(torch.zeros(1, 3, 4, 4), x, offset, weight, padding=1, first_row=1)
