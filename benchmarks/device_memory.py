"""What a pass takes on a GPU, counted without one.

    python benchmarks/device_memory.py [--variants swin_v1_t swin_v1_l] [--dtypes fp32 fp16 bf16] [--sizes 512 1024]
                                       [--without-triton] [--lean]

The fused network runs as on CUDA on torch's "meta" device, whose tensors have shapes and no numbers, in the chunks of
a device with enough memory. Counted are the bytes of tensors alive at the peak, without the weights: with the Triton
kernels, which allocate their results only, or with ``gather`` and fused attention. A device's libraries may need
workspaces of their own, and its allocator some room for fragmentation.
"""

import argparse
import contextlib
import json
import sys
import weakref
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import birefnet_core as bc  # noqa: E402
from birefnet_core.checkpoints.build import empty_network  # noqa: E402
from birefnet_core.devices import DTYPES  # noqa: E402
from birefnet_core.inference.memory import memory_required  # noqa: E402
from birefnet_core.network.cast import cast_for_inference  # noqa: E402
from birefnet_core.network.encoders import swin  # noqa: E402
from birefnet_core.ops.deform_backends import gather  # noqa: E402
from birefnet_core.ops.deform_backends.epilogue import Epilogue  # noqa: E402
from birefnet_core.ops.deform_conv import use_backend  # noqa: E402
from birefnet_core.ops.execution import use_memory_level  # noqa: E402

MIB = 2**20


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made and still alive; ``peak`` is the most there were."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}
        self._known = known

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        inside = 0
        if func is torch.ops.torchvision.deform_conv2d.default:
            x, _, offset, *_ = args
            # Its columns, and its result before that is brought into order.
            inside = x.shape[1] * offset[:, ::2].numel() * x.element_size() + result.nbytes
        self.peak = max(self.peak, self.now + inside)
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


class FusedAttention(TorchFunctionMode):
    """Attention that makes its result only, as a GPU's kernels do."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.empty_like(args[0], memory_format=torch.contiguous_format)
        return func(*args, **(kwargs or {}))


def fused_network(variant: str, dtype: torch.dtype) -> torch.nn.Module:
    model = empty_network(bc.BiRefNetConfig(backbone=variant)).eval()
    return cast_for_inference(bc.fuse_for_inference(model), dtype, fine_dtype=torch.float16)


def fused_attention(qkv: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Allocates what the Triton kernel of ``window_attention`` does."""
    return qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)


def fused_convolution(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Any, geometry: Any, epilogue: Epilogue
) -> Tensor:
    """Allocates what the Triton kernel of ``deform_conv2d`` does."""
    if epilogue.into is not None:
        return epilogue.into
    return x.new_empty(x.shape[0], epilogue.out_channels(weight), *offset.shape[2:])


@torch.inference_mode()
def count(
    network: torch.nn.Module, height: int, width: int, batch: int = 1, triton: bool = True, lean: bool = False
) -> int:
    """Most bytes alive at once in a pass, its input of 3 channels included.

    Args:
        network: On the meta device.
        height: Of its input.
        width: Of its input.
        batch: Of its input.
        triton: Whether with the Triton kernels, or with the columns of ``gather`` and torch's attention.
        lean: Whether in chunks.
    """
    x = torch.empty(batch, 3, height, width, dtype=next(network.parameters()).dtype, device="meta")
    with contextlib.ExitStack() as stack:
        stack.enter_context(use_backend("gather"))
        stack.enter_context(use_memory_level(int(lean)))
        stack.enter_context(mock.patch.object(Tensor, "is_cuda", True))  # works as on CUDA where that differs
        if triton:
            stack.enter_context(mock.patch.object(swin, "window_attention", fused_attention))
            stack.enter_context(mock.patch.object(gather, "run", fused_convolution))
        live = stack.enter_context(LiveBytes([*network.parameters(), *network.buffers()]))
        stack.enter_context(FusedAttention())
        network(x)
    return live.peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=["swin_v1_t", "swin_v1_l"])
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "fp16", "bf16"], choices=("fp32", "fp16", "bf16"))
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024, 2048])
    parser.add_argument("--without-triton", action="store_true")
    parser.add_argument("--lean", action="store_true", help="in chunks")
    parser.add_argument("--json", action="store_true", help="one line a row")
    args = parser.parse_args()
    if not args.json:
        print("| variant | precision | size | counted MB | elements a pixel | estimate MB | of counted |")
        print("|---|---|---|---|---|---|---|")
    for variant in args.variants:
        for dtype in args.dtypes:
            network = fused_network(variant, DTYPES[dtype])
            for size in args.sizes:
                how = {"triton": not args.without_triton, "lean": args.lean}
                counted = count(network, size, size, **how)
                estimate = memory_required(variant, size, size, DTYPES[dtype], device="cuda", **how)
                if args.json:
                    print(json.dumps([variant, dtype, size, counted]), flush=True)
                    continue
                elements = counted / size**2 / (4 if dtype == "fp32" else 2)
                columns = f"{counted / MIB:.0f} | {elements:.1f} | {estimate / MIB:.0f} | {estimate / counted:.2f}"
                print(f"| {variant} | {dtype} | {size} | {columns} |", flush=True)


if __name__ == "__main__":
    main()
