"""The small sound files that are damaged."""

from __future__ import annotations

import contextlib
import io
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from birefnet_core import BiRefNet, BiRefNetConfig, save_checkpoint
from birefnet_core.checkpoints import adapter as adapters
from birefnet_core.training import Recipe, TrainingData, load_datasets
from birefnet_core.training.distributed import Ranks
from birefnet_core.training.loop import Trainer
from birefnet_core.training.run_folder import RunFolder

Source = tuple[str, bytes]  # ending and content

# The smallest network there is.
_OPTIONS = {
    "image_pyramid": "none", "context_fusion": 0, "inward_reference": False, "outward_reference": False,
    "reconstruction_block": "residual", "multi_stage_supervision": False,
}  # fmt: skip
_RECIPE = Recipe(backbone="pvt_v2_b0", network=_OPTIONS, size=(64, 64), epochs=1, batch_size=2, workers=0, ema=0.9)
_HEIGHT, _WIDTH = 20, 28


@lru_cache(maxsize=1)
def folder() -> Path:
    """Where the files below are, as long as the process lives."""
    return Path(tempfile.mkdtemp(prefix="birefnet-fuzz-"))


@lru_cache(maxsize=1)
def network_file() -> Path:
    """A small network."""
    torch.manual_seed(0)
    model = BiRefNet(BiRefNetConfig(backbone="pvt_v2_b0", **_OPTIONS))  # type: ignore[arg-type]
    return save_checkpoint(model.eval(), folder() / "network.safetensors", training_size=(64, 64))


def checkpoints() -> list[Source]:
    """The network as .safetensors, as a zip file of torch, as a pickle of old versions, and as a training's state."""
    from safetensors.torch import load_file

    published = load_file(network_file())
    half = {name: value.half() if value.is_floating_point() else value for name, value in published.items()}
    made = [(".safetensors", network_file().read_bytes())]
    for content, zipped in ((half, True), (half, False), ({"model": half, "epoch": 3}, True)):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        made.append((".pth", file.getvalue()))
    return made


def adapter_files() -> list[Source]:
    """A low-rank adapter of all matrices of the network."""
    from birefnet_core import load_model
    from birefnet_core.training.lora import add_adapters, extract_adapter

    model = load_model(network_file())
    add_adapters(model, 2, 4.0)
    path = folder() / "adapter.safetensors"
    adapters.save_adapter(extract_adapter(model), path, {"note": "text"})
    return [(".safetensors", path.read_bytes())]


@lru_cache(maxsize=1)
def trainer() -> Trainer:
    """A training of a few small pairs that has not begun."""
    data = folder() / "data"
    for number in range(4):
        for kind in ("im", "gt"):
            path = data / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = photo(number) if kind == "im" else square(number)
            Image.fromarray(pixels).save(path)
    datasets = load_datasets(_RECIPE, TrainingData(sets=(data,)))
    return Trainer(_RECIPE, datasets, RunFolder(folder() / "run"), Ranks())


def training_states() -> list[Source]:
    """last.pt of a training at its start."""
    running = trainer()
    running.folder = RunFolder(folder() / "run")
    running.folder.make()
    running.start(resume=False)
    running.save()
    return [(".pt", running.folder.last.read_bytes())]


def photo(seed: int = 0) -> np.ndarray:
    """H, W, 3 bytes."""
    return np.random.default_rng(seed).integers(0, 256, (_HEIGHT, _WIDTH, 3), dtype=np.uint8)


def square(seed: int = 0) -> np.ndarray:
    """A mask, H, W bytes."""
    mask = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    mask[4 : 12 + seed % 4, 5 : 15 + seed % 8] = 255
    return mask


def images() -> list[Source]:
    """Images of all formats that are written here, with profiles, orientation and transparency."""
    colours = Image.fromarray(photo())
    alpha = Image.fromarray(np.dstack([photo(), square()]))
    palette = colours.quantize(16)
    deep = Image.fromarray(photo()[..., 0].astype(np.uint16) * 257)
    floats = Image.fromarray(photo()[..., 0].astype(np.float32) / 255)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    profile = _profile()
    wanted: list[tuple[Image.Image, str, dict[str, object]]] = [
        (colours, "PNG", {"icc_profile": profile, "exif": exif}), (alpha, "PNG", {}), (deep, "PNG", {}),
        (palette, "PNG", {"transparency": 3}), (colours.convert("1"), "PNG", {}), (colours.convert("LA"), "PNG", {}),
        (colours, "JPEG", {"exif": exif, "icc_profile": profile}), (colours.convert("CMYK"), "JPEG", {}),
        (colours.convert("L"), "JPEG", {"progressive": True}), (colours, "TIFF", {"compression": "tiff_lzw"}),
        (deep, "TIFF", {}), (floats, "TIFF", {"compression": "tiff_adobe_deflate"}), (alpha, "TIFF", {}),
        (colours.convert("LAB"), "TIFF", {}), (alpha, "WEBP", {"lossless": True}), (colours, "WEBP", {"exif": exif}),
        (alpha, "WEBP", {"save_all": True, "append_images": [alpha]}), (palette, "GIF", {"transparency": 2}),
        (palette, "GIF", {"save_all": True, "append_images": [palette.rotate(90)]}), (colours, "BMP", {}),
        (alpha, "TGA", {"compression": "tga_rle"}), (colours, "PPM", {}), (deep, "PPM", {}), (floats, "PFM", {}),
        (alpha, "JPEG2000", {}), (alpha, "AVIF", {"exif": exif}), (alpha, "ICO", {}), (alpha, "DDS", {}),
        (colours, "PCX", {}), (colours, "SGI", {}), (colours, "MPO", {"save_all": True, "append_images": [colours]}),
        (alpha, "ICNS", {}), (colours.convert("RGBA"), "QOI", {}), (floats, "SPIDER", {}),
    ]  # fmt: skip
    made = []
    for image, kind, options in wanted:
        with contextlib.suppress(OSError, KeyError, ValueError):  # formats that this Pillow does not write
            file = io.BytesIO()
            image.save(file, format="PPM" if kind == "PFM" else kind, **options)
            made.append((".png" if kind == "PNG" else f".{kind.lower()}", file.getvalue()))
    return made


def masks() -> list[Source]:
    """Masks of several depths, and those among the images."""
    grey = square()
    wanted: list[tuple[Image.Image, str]] = [
        (Image.fromarray(grey), "PNG"), (Image.fromarray(grey // 255), "PNG"), (Image.fromarray(grey > 0), "PNG"),
        (Image.fromarray(grey.astype(np.uint16) * 257), "PNG"), (Image.fromarray(grey.astype(np.int32)), "TIFF"),
        (Image.fromarray(grey.astype(np.float32) / 255), "TIFF"), (Image.fromarray(grey).convert("P"), "PNG"),
        (Image.fromarray(np.dstack([grey] * 3)), "BMP"), (Image.fromarray(np.dstack([grey, grey])), "PNG"),
    ]  # fmt: skip
    made = []
    for image, kind in wanted:
        file = io.BytesIO()
        image.save(file, format=kind)
        made.append((f".{kind.lower()}", file.getvalue()))
    return made + images()


def _profile() -> bytes:
    try:
        from PIL import ImageCms

        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    except ImportError:
        return b""


def recipes() -> list[Source]:
    """The recipes of the pack, and one with every field."""
    named = sorted((Path(__file__).resolve().parents[2] / "train" / "recipes").glob("*.toml"))
    return [(".toml", path.read_bytes()) for path in named] + [(".toml", Recipe().to_toml().encode())] * 3


_SEGMENT = ["segment", "photos", "-o", "out", "--model", "network.safetensors", "--size", "64", "--device", "cpu"]
_TRAIN = ["train", "--data", "data", "--recipe", "tiny.toml", "--backbone", "pvt_v2_b0", "--device", "cpu"]
_COMMANDS = (
    _SEGMENT, [*_SEGMENT, "--cutout", "--bits", "16", "--overwrite"], [*_SEGMENT[:3], "mask.png", *_SEGMENT[4:]],
    ["segment", "photos/*.png", "photos/0.png", "-o", "photos", "--model", "network.safetensors", "--resume"],
    ["evaluate", "--pred", "data/gt", "--gt", "data/gt", "--metrics", "MAE", "maxF", "--workers", "1"],
    ["evaluate", "--pred", "a=data/gt", "--gt", "data/gt", "--json", "o.json", "--csv", "o.csv", "--workers", "1"],
    ["evaluate", "--gt", "data/gt", "--pred", "data/im", "--markdown", "o.md", "--sheet", "o.png", "--worst", "2",
     "--images", "data/im", "--workers", "1"],
    ["checkpoints"], ["export", "--model", "network.safetensors", "--onnx", "data", "--size", "64"],
    [*_TRAIN, "--dry-run"], [*_TRAIN, "--print-recipe", "--out", "run", "--loss-iou", "2", "--size", "64x96"],
    [*_TRAIN, "--dry-run", "--images", "data/im", "--masks", "data/gt", "--skip-bad", "--val-data", "data"],
    ["train", "--compare", "run", "run2"], ["train", "--resume", "--out", "run", "--dry-run"],
    ["video", "clip.gif", "-o", "out.mov", "--model", "network.safetensors", "--size", "64", "--duration", "0.1"],
    ["ablation", "--data", "data", "--out", "ablation", "--help"], ["video", "photos", "-o", "out.mov", "--help"],
)  # fmt: skip


def commands() -> list[Source]:
    """Command lines, an argument on each line."""
    return [(".args", "\n".join(arguments).encode()) for arguments in _COMMANDS]


def write_command_folder(at: Path) -> None:
    """What the command lines name."""
    (at / "photos").mkdir()
    for number in range(2):
        Image.fromarray(photo(number)).save(at / "photos" / f"{number}.png")
        for kind, pixels in (("im", photo(number)), ("gt", square(number))):
            (at / "data" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(at / "data" / kind / f"{number}.png")
    (at / "network.safetensors").symlink_to(network_file())
    frames = [Image.fromarray(photo(number)) for number in range(3)]
    frames[0].save(at / "clip.gif", save_all=True, append_images=frames[1:])
    (at / "tiny.toml").write_text(_RECIPE.replace(workers=0, val_fraction=0.5).to_toml())


def videos() -> list[Source]:
    """Clips in several containers; none without PyAV."""
    try:
        import av
    except ImportError:
        return []
    made = []
    for suffix, codec, pixels in (
        (".mp4", "libx264", "yuv420p"), (".mkv", "ffv1", "yuv444p"), (".webm", "libvpx-vp9", "yuv420p"),
        (".avi", "mjpeg", "yuvj420p"), (".mov", "prores_ks", "yuva444p10le"), (".gif", "gif", "rgb8"),
        (".ts", "mpeg2video", "yuv420p"),
    ):  # fmt: skip
        with contextlib.suppress(av.FFmpegError, ValueError):  # an encoder this build lacks
            made.append((suffix, _clip(suffix, codec, pixels)))
    return made


def sequences() -> list[Source]:
    """Images that are taken for frames; none without PyAV."""
    try:
        from birefnet_core.video.image_files import IMAGE_DEMUXERS
    except ImportError:
        return []
    return [(suffix, content) for suffix, content in images() if suffix in IMAGE_DEMUXERS]


def _clip(suffix: str, codec: str, pixels: str) -> bytes:
    import av

    path = folder() / f"clip{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for number in range(6):
            image = np.asarray(Image.fromarray(photo(number)).resize((64, 48)))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()
