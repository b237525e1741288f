"""What benchmarks/gpu.py measures. Each job runs in a process of its own and prints one JSON line for each result."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MARK = "RESULT "
MIB = 2**20

# precision, image side, images per pass, options of the Segmenter; the most important ones first
SPEED_CASES: list[tuple[str, int, int, dict]] = [
    ("fp16", 1024, 1, {}),
    ("fp16", 1024, 4, {}),
    ("fp16", 2048, 1, {}),
    ("fp16", 1024, 1, {"cuda_graphs": False}),
    ("fp16", 1024, 1, {"lean": True}),
    ("fp16", 2048, 1, {"lean": True}),
    ("bf16", 1024, 1, {}),
    ("bf16", 1024, 4, {}),
    ("bf16", 2048, 1, {}),
    ("fp32", 1024, 1, {}),
    ("fp32", 1024, 4, {}),
    ("fp32", 2048, 1, {}),
    ("fp32", 1024, 1, {"exact": True}),
]
MEMORY_CASES = [  # precision, side, images per pass, lean
    (dtype, side, batch, lean)
    for dtype in ("fp16", "fp32", "bf16")
    for lean in (False, True)
    for side, batch in ((512, 1), (1024, 1), (2048, 1), (512, 4), (1024, 4))
]


def emit(**row: Any) -> None:
    print(MARK + json.dumps(row), flush=True)


class Job:
    """Loads what all measurements need: a model's weights and images.

    Args:
        variant: A backbone.
        weights: A file with weights for it; random ones where there is none.
        device: "cuda" or "cpu".
        quick: Small images and one run each, to try the script.
        seconds: When to stop beginning new measurements.
        triton: Whether Triton is there; gpu.py hides it from Python otherwise.
    """

    def __init__(self, variant: str, weights: str, device: str, quick: bool, seconds: float, triton: bool) -> None:
        import torch

        import birefnet_core

        self.torch, self.bc = torch, birefnet_core
        self.variant, self.device, self.quick, self.triton = variant, torch.device(device), quick, triton
        self.cuda = self.device.type == "cuda"
        self.state = torch.load(weights, mmap=True, weights_only=True) if Path(weights).exists() else None
        self.end = time.monotonic() + seconds
        self.common = {"model": variant, "triton": triton}

    def over(self) -> bool:
        return time.monotonic() > self.end

    def side(self, side: int) -> int:
        return max(64, side // 16) if self.quick else side

    def model(self, dtype: str, fused: bool = True) -> Any:
        from birefnet_core.devices import DTYPES
        from birefnet_core.network.cast import cast_for_inference

        if self.state is not None:
            return self.bc.model_from_state_dict(self.state, dtype=DTYPES[dtype], fused=fused).to(self.device)
        with self.device:
            model = self.bc.BiRefNet(self.bc.BiRefNetConfig(backbone=self.variant)).eval()
        return cast_for_inference(model, DTYPES[dtype])

    def photos(self, side: int, batch: int) -> Any:
        """Photographs B, side, side, 3 in the device's memory."""
        from birefnet_core.image_ops import resize
        from birefnet_core.images import read_image

        files = sorted((ROOT / "tests" / "fixtures" / "photos").glob("*.jpg"))[:batch]
        images = self.torch.stack([read_image(file) for file in files]).permute(0, 3, 1, 2)
        return resize(images, (side, side)).clamp(0, 1).permute(0, 2, 3, 1).contiguous().to(self.device)

    def wait(self) -> None:
        if self.cuda:
            self.torch.cuda.synchronize()

    def seconds(self, run: Callable[[], Any]) -> float:
        self.wait()
        start = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - start

    def median_ms(self, run: Callable[[], Any], limit: float = 1.0) -> float:
        """Median of at least 5 and at most 30 runs, which end after ``limit`` seconds."""
        times: list[float] = []
        while len(times) < (1 if self.quick else 5) or (sum(times) < limit and len(times) < 30 and not self.quick):
            times.append(self.seconds(run))
        return 1000 * statistics.median(times)

    def peak(self, run: Callable[[], Any]) -> float | None:
        """MiB allocated at the peak beyond what is allocated before."""
        if not self.cuda:
            run()
            return None
        self.wait()
        before = self.torch.cuda.memory_allocated()
        self.torch.cuda.reset_peak_memory_stats()
        run()
        self.wait()
        return (self.torch.cuda.max_memory_allocated() - before) / MIB

    def reserved(self) -> float:
        if not self.cuda:
            return 0.0
        self.torch.cuda.empty_cache()
        return self.torch.cuda.memory_reserved() / MIB

    @contextlib.contextmanager
    def exact(self, enabled: bool = True) -> Iterator[None]:
        """Without TF32 where enabled."""
        cudnn = self.torch.backends.cudnn
        before = cudnn.allow_tf32
        cudnn.allow_tf32 = before and not enabled
        try:
            yield
        finally:
            cudnn.allow_tf32 = before

    def reference(self, images: Any) -> Any:
        """Masks in float32 without TF32, CUDA graphs and Triton's deformable convolution."""
        from birefnet_core.ops.deform_conv import use_backend

        with self.exact(), use_backend("gather"):
            return self.bc.Segmenter(self.model("fp32"), cuda_graphs=False)(images, images.shape[1])


def attempt(job: Job, section: str, measure: Callable[[], dict], **row: Any) -> None:
    """Emits a measurement, or the error that ended it."""
    if job.over():
        emit(section=section, **job.common, **row, error="no time left")
        return
    try:
        emit(section=section, **job.common, **row, **measure())
    except Exception as error:  # the others are still worth having
        emit(section=section, **job.common, **row, error=f"{type(error).__name__}: {error}"[:300])


def exactness(job: Job) -> None:
    """Every backend of the deformable convolution in float32 against the CPU."""
    if job.state is None:
        return
    torch, side = job.torch, job.side(512)
    from birefnet_core.inference.transforms import to_network_input
    from birefnet_core.ops import deform_backends
    from birefnet_core.ops.deform_conv import use_backend

    x = to_network_input(job.photos(side, 1), side, side)
    with torch.inference_mode():
        expected = job.bc.Segmenter(job.bc.model_from_state_dict(job.state)).model(x.cpu()).logits
        network = job.bc.Segmenter(job.model("fp32")).model

        def compare(backend: str, exact: bool) -> dict:
            with use_backend(backend), job.exact(exact):
                found = network(x).logits.cpu()
            return {"relative_error": ((found - expected).abs().max() / expected.abs().max()).item()}

        for backend in ("auto", *deform_backends.BACKENDS):
            for exact in (True, False):
                if backend == "auto" or deform_backends.unavailable(backend, job.device, torch.float32) is None:
                    attempt(job, "exact", lambda b=backend, e=exact: compare(b, e), backend=backend, tf32=not exact)


def speed(job: Job) -> None:
    """Milliseconds for each image, memory, and distance from float32 masks."""
    torch, references = job.torch, {}
    network: tuple[str, Any] = ("", None)
    from birefnet_core.ops.execution import use_memory_level

    def measure(dtype: str, side: int, batch: int, options: dict) -> dict:
        nonlocal network
        images = job.photos(job.side(side), batch)
        if (side, batch) not in references:
            references[side, batch] = job.reference(images).cpu()
        if network[0] != dtype:
            network = dtype, job.bc.Segmenter(job.model(dtype)).model
        options = {name: value for name, value in options.items() if name != "exact"}
        segment = job.bc.Segmenter(network[1], batch_size=batch, **{"lean": False, **options})
        before = job.reserved()
        run = lambda: segment(images, images.shape[1])  # noqa: E731
        first = job.seconds(run)
        peak = job.peak(run) if options.get("cuda_graphs") is False else None
        masks = [run() for _ in range(2)][-1].cpu()  # captured and replayed
        pool = job.reserved() - before
        ms = job.median_ms(run) / batch
        on_host = images.cpu()
        host_ms = job.median_ms(lambda: segment(on_host, images.shape[1]).cpu(), 0.5) / batch
        x = torch.rand(batch, 3, *images.shape[1:3], device=job.device).to(next(network[1].parameters()).dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), use_memory_level(int(options.get("lean", False))):
            [segment._network(x) for _ in range(3)]
            network_ms = job.median_ms(lambda: segment._network(x), 0.5) / batch
        segment.release()
        error = (masks - references[side, batch]).abs()
        return {
            "ms": ms, "host_ms": host_ms, "network_ms": network_ms, "first_ms": 1000 * first,
            "peak_mb": peak, "pool_mb": pool, "kept_mb": job.reserved() - before,
            "max_error": error.max().item(), "mean_error": error.mean().item(),
        }  # fmt: skip

    cases = SPEED_CASES if job.triton else [case for case in SPEED_CASES if case[0] != "bf16"]
    for dtype, side, batch, options in cases:
        with job.exact(options.get("exact", False)):
            row = {"dtype": dtype, "size": side, "batch": batch, **options}
            attempt(job, "speed", lambda a=(dtype, side, batch, options): measure(*a), **row)


def memory(job: Job) -> None:
    """Peak memory of a pass without graph, beside the estimate."""
    network: tuple[str, Any] = ("", None)

    def measure(dtype: str, side: int, batch: int, lean: bool) -> dict:
        nonlocal network
        if network[0] != dtype:
            network = dtype, job.bc.Segmenter(job.model(dtype)).model
        images = job.photos(job.side(side), batch).cpu()
        segment = job.bc.Segmenter(network[1], batch_size=batch, cuda_graphs=False, lean=lean)
        segment(images[:, :64, :64], 64)  # sets up the libraries
        before = job.reserved()
        peak = job.peak(lambda: segment(images, images.shape[1]))
        cached = job.torch.cuda.memory_reserved() / MIB - before if job.cuda else None
        side = images.shape[1]
        estimate = segment.memory_required(side, side, batch_size=batch) / MIB
        return {"peak_mb": peak, "cached_mb": cached, "estimate_mb": estimate}

    for dtype, side, batch, lean in MEMORY_CASES:
        row = {"dtype": dtype, "size": side, "batch": batch, "lean": lean}
        attempt(job, "memory", lambda a=(dtype, side, batch, lean): measure(*a), **row)


def first(job: Job) -> None:
    """The first images after loading: the process has imported everything and the weights are on the device."""
    segment = job.bc.Segmenter(job.model("fp16" if job.cuda else "fp32"))
    images = job.photos(job.side(1024), 1).cpu()
    run = lambda: segment(images, images.shape[1])  # noqa: E731
    attempt(job, "first", lambda: {"ms": [1000 * job.seconds(run) for _ in range(5)]})


def train(job: Job) -> None:
    """Forward and backward of a training step in bfloat16 autocast."""
    torch = job.torch
    from birefnet_core.losses import HybridLoss, loss_preset

    batch, side = (2 if job.variant == "swin_v1_l" else 4), job.side(1024)
    images = job.photos(side, batch).permute(0, 3, 1, 2).contiguous()
    masks = (images.mean(1, keepdim=True) > 0.5).float()
    loss = HybridLoss(loss_preset("dis5k"))
    model = job.model("fp32", fused=False).train()

    def step() -> None:
        with torch.autocast(job.device.type, torch.bfloat16):
            output = model(images)
        loss(output, masks).total.backward()
        model.zero_grad(set_to_none=True)

    def measure() -> dict:
        for _ in range(1 if job.quick else 3):
            step()
        peak = job.peak(step)
        weights = torch.cuda.memory_allocated() / MIB if job.cuda else 0
        return {"ms": job.median_ms(step, 3.0), "peak_mb": peak, "total_mb": None if peak is None else peak + weights}

    attempt(job, "train", measure, batch=batch, checkpointed=False)
    if hasattr(model, "set_grad_checkpointing"):
        model.set_grad_checkpointing(True)
        attempt(job, "train", measure, batch=batch, checkpointed=True)


def compiled(job: Job) -> None:
    """torch.compile block by block, with and without graphs on top."""
    images = job.photos(job.side(1024), 1)
    dtype = "fp16" if job.cuda else "fp32"
    run = lambda segment: segment(images, images.shape[1])  # noqa: E731

    def measure() -> dict:
        plain = job.bc.Segmenter(job.model(dtype))
        expected = [run(plain) for _ in range(3)][-1]
        found = {"plain_ms": job.median_ms(lambda: run(plain))}
        segment = job.bc.Segmenter(job.model(dtype), compile=True, cuda_graphs=False)
        found["compile_s"] = job.seconds(lambda: run(segment))
        emit(section="compile", **job.common, note="compiled", seconds=found["compile_s"])
        run(segment)
        found["ms"] = job.median_ms(lambda: run(segment))
        graphed = job.bc.Segmenter(segment.model, compile=True)
        masks = [run(graphed) for _ in range(3)][-1]
        found["graphed_ms"] = job.median_ms(lambda: run(graphed))
        return {**found, "max_difference": (masks - expected).abs().max().item()}

    attempt(job, "compile", measure, dtype=dtype, size=1024, batch=1)


def profile(job: Job) -> None:
    """Prints the operators and kernels of one pass, the slowest first."""
    torch = job.torch
    from torch.profiler import ProfilerActivity

    images = job.photos(job.side(1024), 1)
    segment = job.bc.Segmenter(job.model("fp16" if job.cuda else "fp32"), cuda_graphs=False)
    for _ in range(3):
        segment(images, images.shape[1])
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if job.cuda else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        segment(images, images.shape[1])
        job.wait()
    averages = profiler.key_averages()
    if not job.cuda:
        print(averages.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60))
        return
    print(averages.table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=60))
    kernels = [event for event in averages if event.device_type == torch.autograd.DeviceType.CUDA]
    times = {event.key: getattr(event, "self_device_time_total", None) or event.self_cuda_time_total
             for event in kernels}  # fmt: skip
    print(f"{sum(event.count for event in kernels)} kernels, {sum(times.values()) / 1000:.2f} ms")
    for event in sorted(kernels, key=lambda event: -times[event.key])[:40]:
        print(f"{times[event.key] / 1000:8.3f} ms {event.count:5d} x {event.key[:150]}")


JOBS = {
    "exact": exactness, "speed": speed, "memory": memory, "first": first, "train": train, "compile": compiled,
    "profile": profile,
}  # fmt: skip


def run_job(names: list[str], wait: bool, **options: Any) -> None:
    """Runs jobs on one model, after a line on standard input where ``wait``.

    Args:
        names: Keys of ``JOBS``.
        wait: Imports everything first, so that the next process is ready when the one before it ends.
        **options: Of ``Job``.
    """
    sys.path.insert(0, str(ROOT))
    if not options["triton"]:
        sys.modules["triton"] = None  # type: ignore[assignment]  # importing it fails, as on a machine without
    import birefnet_core.checkpoints.load
    import birefnet_core.inference
    import birefnet_core.losses  # noqa: F401

    if wait:
        sys.stdin.readline()
    job = Job(**options)
    for name in names:
        JOBS[name](job)
