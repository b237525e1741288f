"""What is done with a damaged file: the pack must take it rightly, or refuse it by one of its own errors.

Each check raises what the pack raises, and ``WrongResultError`` where the pack went on with something wrong.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from birefnet_core import BiRefNet, load_model
from birefnet_core.checkpoints import adapter as adapters
from birefnet_core.errors import BiRefNetError
from birefnet_core.image_reading import read_image_file
from birefnet_core.mask_files import read_mask
from birefnet_core.training.recipe import Recipe, from_values, load_recipe
from birefnet_core.training.run_folder import RunFolder

from . import sources


class WrongResultError(Exception):
    """The pack accepted what it should have refused, or left what it should not have."""


def run(name: str, path: Path) -> str:
    """Does one check on a file, in the file's own folder.

    Args:
        name: Of ``CHECKS``.
        path: The file.

    Returns:
        "done", or the name of the pack's error.

    Raises:
        WrongResultError: See there.
        Exception: Whatever else the pack raised, which is a fault of the pack.
    """
    before = path.read_bytes()
    outcome = "done"
    try:
        CHECKS[name](path)
    except BiRefNetError as error:
        outcome = type(error).__name__
        if not str(error).strip():
            raise WrongResultError(f"a {outcome} without a message") from error
    if path.read_bytes() != before:
        raise WrongResultError("the input was changed")
    left = [file.name for file in path.parent.rglob("*") if file.name.endswith((".part", ".old", ".incomplete"))]
    if left:
        raise WrongResultError(f"temporary files were left: {left}")
    return outcome


def check_checkpoint(path: Path) -> None:
    """Loads a network. One with damaged checksums, or without finite weights, must not load."""
    model = load_model(path)
    if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise WrongResultError(f"loaded although the checksum of {damaged} differs")
    _check_weights(model)


def check_adapter(path: Path) -> None:
    """Merges an adapter. A network it was not merged into must be as before."""
    model = _network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        adapters.merge_adapter(model, path, 0.5)
        _check_weights(model)
    except BaseException:
        if not all(torch.equal(value, before[name]) for name, value in model.state_dict().items()):
            raise WrongResultError("the network was changed by an adapter that failed") from None
        raise
    finally:
        model.load_state_dict(before)


def check_training_state(path: Path) -> None:
    """Goes on with a training from its last.pt. Its weights must be finite."""
    trainer = sources.trainer()
    trainer.folder = RunFolder(path.parent)
    shutil.copyfile(path, path.parent / "last.pt")
    trainer.start(resume=True)
    if zipfile.ZipFile(path).testzip():
        raise WrongResultError("taken although a checksum differs")


def check_image(path: Path) -> None:
    """Reads an image: H, W, 3 finite values from 0 to 1."""
    image = read_image_file(path)
    _check_range(image.colours, 3)
    if image.alpha is not None:
        _check_range(image.alpha, 2)
        if image.alpha.shape != image.colours.shape[:2]:
            raise WrongResultError(f"alpha of {tuple(image.alpha.shape)} for {tuple(image.colours.shape)}")


def check_mask(path: Path) -> None:
    """Reads a mask as a ground truth and as a prediction: H, W finite values from 0 to 1."""
    shapes, errors = [], []
    for labels in (True, False):
        try:
            values = torch.from_numpy(read_mask(path, labels=labels).values.copy())
            _check_range(values, 2)
            shapes.append(values.shape)
        except BiRefNetError as error:
            errors.append(error)
    if len(set(shapes)) > 1:
        raise WrongResultError(f"two shapes of one mask: {shapes}")
    if errors:
        raise errors[0]


def check_recipe(path: Path) -> None:
    """Reads a recipe, writes it and reads it again: the same one."""
    recipe = from_values(load_recipe(path))
    copy = path.with_name("copy.toml")
    copy.write_text(recipe.to_toml(), encoding="utf-8")
    if from_values(load_recipe(copy)) != recipe:
        raise WrongResultError("the recipe is another one after writing and reading it")
    Recipe(**{name: getattr(recipe, name) for name in ("size", "epochs", "lr")})


def check_command(path: Path) -> None:
    """Runs a command line, an argument on each line, in a folder of images, masks and a recipe.

    The exit code must be 0, 1 or 2, no input may change, and every PNG must be whole.
    """
    arguments = [os.fsdecode(line) for line in path.read_bytes().split(b"\n") if b"\0" not in line]
    from birefnet_core.cli.main import main

    folder = path.parent
    sources.write_command_folder(folder)
    inputs = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with _inside(folder), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = main(arguments)
        except SystemExit as stop:  # of argparse
            code = stop.code
    if code not in (0, 1, 2):
        raise WrongResultError(f"exit code {code!r}")
    changed = [file.name for file, content in inputs.items() if not file.exists() or file.read_bytes() != content]
    if changed:
        raise WrongResultError(f"inputs were changed or removed: {changed}")
    for file in folder.rglob("*"):
        if file not in inputs and file.is_file() and file.read_bytes().startswith(b"\x89PNG"):
            with Image.open(file) as image:
                image.load()


def check_video(path: Path) -> None:
    """Segments a clip with known masks. What is written must be a whole clip."""
    _segment(path, keep_partial=len(path.read_bytes()) % 2 == 0)


def check_sequence(path: Path) -> None:
    """Segments an image as a sequence of one."""
    shot = path.parent / "shot"
    shot.mkdir()
    shutil.copyfile(path, shot / f"0001{path.suffix}")
    _segment(shot, keep_partial=False)


def _segment(source: Path, *, keep_partial: bool) -> None:
    from birefnet_core.video import Output, VideoOptions, segment_video

    from .known_masks import KnownMasks

    out = source.parent / "out.mov"
    options = VideoOptions(colors=None, overwrite=True, keep_partial=keep_partial)
    try:
        segment_video(KnownMasks(), source, Output(path=out), options=options)
    except BiRefNetError:
        if out.exists():
            raise WrongResultError("a clip was written in spite of the error") from None
        raise
    finally:
        gc.collect()  # PyAV's objects have ended the process when they were
    _check_clip(out)


def _check_clip(path: Path) -> None:
    import av

    try:
        with av.open(str(path)) as container:
            frames = sum(1 for _ in container.decode(video=0))
    except av.FFmpegError as error:
        raise WrongResultError(f"the clip that was written cannot be decoded ({error})") from error
    if not frames:
        raise WrongResultError("a clip without frames was written")


def _check_range(values: Tensor, ndim: int) -> None:
    if values.ndim != ndim or not values.numel() or (ndim == 3 and values.shape[-1] != 3):
        raise WrongResultError(f"read as {tuple(values.shape)}")
    low, high = values.min().item(), values.max().item()
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise WrongResultError(f"read with values from {low} to {high}")


def _check_weights(model: BiRefNet) -> None:
    for name, value in model.state_dict().items():
        if not value.float().isfinite().all() or (name.endswith("running_var") and (value < 0).any()):
            raise WrongResultError(f"{name} of the loaded network is not finite, or a negative variance")


@lru_cache(maxsize=1)
def _network() -> BiRefNet:
    return load_model(sources.network_file())


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


CHECKS: dict[str, Callable[[Path], None]] = {
    "checkpoint": check_checkpoint,
    "adapter": check_adapter,
    "training": check_training_state,
    "image": check_image,
    "mask": check_mask,
    "recipe": check_recipe,
    "command": check_command,
    "video": check_video,
    "sequence": check_sequence,
}
