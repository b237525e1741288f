"""Attention inside windows against a plain definition in float64, on torch's attention and on the Triton kernel."""

import os

import pytest
import torch
import torch.nn.functional as F

from birefnet_core import ConfigError
from birefnet_core.ops.window_attention import WindowLayouts, _make_layout, window_attention

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
# Window, height, width: whole windows, padding on both sides, padding of nearly a window, less than a window.
MAPS = [(7, 14, 7), (7, 13, 17), (7, 8, 15), (7, 3, 5), (12, 13, 24), (12, 7, 11), (4, 3, 9)]
SHIFTS = {"plain": lambda window: (0, 0), "shifted": lambda w: (w // 2, w // 2), "sideways": lambda w: (0, w // 2)}


def reference(qkv, qkv_bias, relative_bias, window, num_heads, shift):
    """Pads, rolls, cuts windows, forbids what was no neighbour, in float64."""
    qkv, qkv_bias, relative_bias = (t.double() for t in (qkv, qkv_bias, relative_bias))
    batch, height, width, _ = qkv.shape
    rows, columns = (-(-side // window) * window for side in (height, width))
    padded = qkv_bias.expand(batch, rows, columns, -1).clone()
    padded[:, :height, :width] = qkv
    wrapped = torch.zeros(rows, columns, dtype=torch.long, device=qkv.device)
    wrapped[rows - shift[0] :] += 1
    wrapped[:, columns - shift[1] :] += 2

    def cut(x):  # B, rows, columns, any -> B, windows, N, any
        x = x.view(len(x), rows // window, window, columns // window, window, -1).transpose(2, 3)
        return x.reshape(len(x), -1, window * window, x.shape[-1])

    windows = cut(torch.roll(padded, (-shift[0], -shift[1]), (1, 2)))
    region = cut(wrapped[None, ..., None])[0, :, :, 0]  # windows, N
    q, k, v = windows.unflatten(-1, (3, num_heads, -1)).permute(3, 0, 1, 4, 2, 5)  # B, windows, h, N, d
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + relative_bias[..., : window * window]
    logits = logits.masked_fill((region[:, :, None] != region[:, None, :])[:, None], float("-inf"))
    x = (logits.softmax(-1) @ v).transpose(2, 3).flatten(3)  # B, windows, N, C
    x = x.view(batch, rows // window, columns // window, window, window, -1).transpose(2, 3)
    x = torch.roll(x.reshape(batch, rows, columns, -1), shift, (1, 2))
    return x[:, :height, :width]


def inputs(window, height, width, *, batch=2, heads=2, head_dim=16, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(window * height + width)
    tokens, channels = window * window, heads * head_dim
    shapes = (batch, height, width, 3 * channels), (3 * channels,), (heads, tokens, tokens)
    return [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]


@pytest.mark.parametrize("kind", SHIFTS)
@pytest.mark.parametrize(("window", "height", "width"), MAPS)
def test_sdpa_equals_the_plain_definition(window, height, width, kind):
    options = {"window": window, "num_heads": 2, "shift": SHIFTS[kind](window)}
    tensors = inputs(window, height, width)
    found = window_attention(*tensors, **options, backend="sdpa")
    torch.testing.assert_close(found, reference(*tensors, **options).float())


@pytest.mark.parametrize("kind", SHIFTS)
@pytest.mark.parametrize(("window", "height", "width"), [(7, 13, 17), (4, 3, 9), (4, 8, 8)])
def test_gradients_equal_those_of_the_plain_definition(window, height, width, kind):
    options = {"window": window, "num_heads": 2, "shift": SHIFTS[kind](window)}
    tensors = [t.requires_grad_() for t in inputs(window, height, width)]
    weights = torch.randn(2, height, width, 32, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.grad((reference(*tensors, **options) * weights).sum(), tensors)
    found = (window_attention(*tensors, **options) * weights).sum()
    found = torch.autograd.grad(found, tensors, materialize_grads=True)
    torch.testing.assert_close(found, expected)


def test_columns_of_the_bias_beyond_the_window_are_not_used():
    qkv, qkv_bias, bias = inputs(7, 9, 9)
    padded = F.pad(bias, (0, 15), value=float("nan"))
    options = {"window": 7, "num_heads": 2, "shift": 3}
    assert torch.equal(
        window_attention(qkv, qkv_bias, padded, **options), window_attention(qkv, qkv_bias, bias, **options)
    )


def test_shared_layouts_change_nothing_and_are_made_once(monkeypatch):
    made = []
    monkeypatch.setattr(
        "birefnet_core.ops.window_attention._make_layout", lambda *args: made.append(args) or _make_layout(*args)
    )
    tensors, layouts = inputs(7, 9, 10), WindowLayouts(7)
    for shift in (0, 3, 0, 3):
        options = {"window": 7, "num_heads": 2, "shift": shift}
        assert torch.equal(
            window_attention(*tensors, **options, layouts=layouts), window_attention(*tensors, **options)
        )
    assert len(made) == 2 + 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_heads": 3}, "multiple of 3 heads"),
        ({"num_heads": 4}, r"relative_bias has shape \(2, 49, 49\); expected \(4, 49, 49\)"),
        ({"shift": 7}, "less than the window of 7"),
        ({"backend": "flash"}, "'triton' or 'sdpa'"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        window_attention(*inputs(7, 9, 9), **{"window": 7, "num_heads": 2, **options})


@pytest.mark.skipif(INTERPRETING, reason="the interpreter runs the kernel everywhere")
def test_the_kernel_says_why_it_cannot_run():
    with pytest.raises(ConfigError, match=r"backend='triton' cannot be used here: .*use backend='auto'"):
        window_attention(*inputs(7, 9, 9), window=7, num_heads=2, backend="triton")


def test_the_kernel_has_no_gradients():
    pytest.importorskip("triton")
    tensors = [t.requires_grad_() for t in inputs(7, 9, 9)]
    with pytest.raises(ConfigError, match="it has no gradients"):
        window_attention(*tensors, window=7, num_heads=2, backend="triton")


# Triton reads the setting when it is imported, so these run in a process of their own, which test_triton.py starts.
interpreted = pytest.mark.skipif(not INTERPRETING, reason="run by test_cases_of_the_interpreter_pass")


@interpreted
@pytest.mark.parametrize(
    ("window", "height", "width", "kind", "images"),
    [
        (7, 8, 9, "shifted", 2), (7, 7, 14, "plain", 1), (7, 8, 9, "sideways", 1), (12, 7, 11, "shifted", 1),
        (4, 3, 9, "shifted", 2),
        *(pytest.param(*case, marks=pytest.mark.slow)
          for case in ((7, 13, 17, "shifted", 2), (7, 8, 15, "sideways", 2), (12, 13, 12, "shifted", 2),
                       (12, 7, 11, "plain", 2))),
    ],
)  # fmt: skip
def test_interpreted_kernel_equals_the_plain_definition(window, height, width, kind, images):
    options = {"window": window, "num_heads": 2, "shift": SHIFTS[kind](window)}
    tensors = inputs(window, height, width, batch=images)
    found = window_attention(*tensors, **options, backend="triton")
    torch.testing.assert_close(found, reference(*tensors, **options).float())


@interpreted
def test_interpreted_kernel_in_half_precision():
    options = {"window": 7, "num_heads": 3, "shift": (3, 3)}
    qkv, qkv_bias, bias = inputs(7, 9, 8, batch=1, heads=3, head_dim=32, dtype=torch.float16)
    found = window_attention(qkv, qkv_bias, bias.float(), **options, backend="triton")
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), reference(qkv, qkv_bias, bias, **options), atol=2e-3, rtol=2e-3)


@interpreted
@pytest.mark.parametrize("sizes", [(16, 64), (128, 16), (64, 256)])
def test_interpreted_kernel_with_other_settings(sizes):
    from birefnet_core.ops import _window_attention_triton as kernel

    options = {"window": 12, "num_heads": 1, "shift": (6, 6)}
    tensors = inputs(12, 11, 12, batch=1, heads=1)
    found = kernel.run(*tensors, **options, settings=kernel.Settings(*sizes, 4, 1))
    torch.testing.assert_close(found, reference(*tensors, **options).float())


@interpreted
def test_interpreted_kernel_reads_no_column_of_the_bias_beyond_the_window():
    qkv, qkv_bias, bias = inputs(7, 7, 5, batch=1)
    padded = F.pad(bias, (0, 15), value=float("nan"))
    options = {"window": 7, "num_heads": 2, "shift": 3, "backend": "triton"}
    found = window_attention(qkv, qkv_bias, padded, **options)
    torch.testing.assert_close(found, window_attention(qkv, qkv_bias, bias, **options))
