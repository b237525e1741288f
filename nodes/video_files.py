"""VIDEO values between ComfyUI and the core: what a clip is read from, and the files that are written."""

from __future__ import annotations

import io as python_io
import itertools
import logging
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import folder_paths
from torch import Tensor

from ..birefnet_core import ImageError, VideoError
from ..birefnet_core.files import first_free
from ..birefnet_core.image_ops import flatten_alpha, validate_images
from ..birefnet_core.images import to_bytes, write_image
from ..birefnet_core.text import first_line
from .comfy_compat import VideoFromComponents, VideoFromFile, core, io, ui
from .inputs import CHANNELS
from .tensors import in_color

logger = logging.getLogger(__name__)


class Part(NamedTuple):
    """A clip, and the part of it that is meant.

    Attributes:
        source: A path, or the bytes of a file.
        start_time: Seconds to begin at.
        duration: Seconds to take; 0 for all.
        size: Width, height of the frames.
        temporary: Whether the file is deleted after use.
    """

    source: str | python_io.BytesIO
    start_time: float
    duration: float
    size: tuple[int, int]
    temporary: bool = False


@contextmanager
def opened(video: Any) -> Iterator[Part]:
    """What to read a VIDEO from, without its frames in memory.

    A trim is passed on. Frames that are in ComfyUI's memory are written to a temporary file without loss. Other edits,
    such as a crop, only ComfyUI can apply: it writes the edited clip to a temporary file first, which needs the memory
    ComfyUI takes for that and encodes the frames once more.

    Raises:
        VideoError: The clip cannot be read, or ComfyUI cannot write it.
        ImageError: Frames in memory that are no images in [0, 1].
    """
    if _has_frames_in_memory(video):
        with temporary_folder() as folder:
            try:
                part = _without_loss(video.get_components(), folder / "frames.nut")
            except ImageError:
                raise
            except Exception as error:
                raise VideoError(f"The video's frames cannot be written to a file: {first_line(error)}.") from error
            yield part
        return
    source = None
    try:
        source = video.get_stream_source()
        size = video.get_dimensions()
        start_time, duration = _trim(video, source)
        edited = _is_edited(video, source, trimmed=bool(start_time or duration))
    except Exception as error:
        _check_readable(source)
        raise VideoError(f"The video cannot be read: {first_line(error)}.") from error
    if not edited:
        yield Part(source, start_time, duration, size)
        return
    logger.info("BiRefNet Segment Video: the clip has edits; ComfyUI encodes it again with them")
    with temporary_folder() as folder:
        yield Part(str(_saved(video, folder / "edited.mp4")), 0.0, 0.0, size, temporary=True)


def background_file(image: Tensor | None, video: Any, folder: Path) -> Path:
    """A file of the background: that of a VIDEO, or one written into a folder.

    Args:
        image: B, H, W, C, of which there must be one, seen over middle grey where it is transparent; or None.
        video: A VIDEO, or None.
        folder: For what has no file.

    Raises:
        VideoError: Neither of the two, several images, or a clip that cannot be written.
        ImageError: An image that is not in [0, 1].
    """
    if image is not None:
        if len(image) != 1:
            raise VideoError(f"background has {len(image)} images, expected one; a clip goes to background_video.")
        validate_images(image, "background", channels=CHANNELS)
        path = folder / "background.png"
        write_image(path, flatten_alpha(image.float().clamp(0, 1))[0].cpu())
        return path
    if video is None:
        raise VideoError(
            "Output 'over background' needs something behind the subject: connect background or background_video."
        )
    if not _has_frames_in_memory(video):
        with opened(video) as part:
            if isinstance(part.source, str) and not (part.start_time or part.duration) and not part.temporary:
                return Path(part.source)
    return _saved(video, folder / "background.mp4")


class Files(NamedTuple):
    """Where results go.

    Attributes:
        video: The clip.
        mask: The clip of its masks.
        preview: Shows the clip in the node.
    """

    video: Path
    mask: Path
    preview: Any


@contextmanager
def result_files(prefix: str, suffix: str, mask_suffix: str, size: tuple[int, int]) -> Iterator[Files]:
    """Names for results: numbered ones in ComfyUI's output folder, or unique ones in its temp folder.

    A number is taken until the block ends: another ComfyUI with the same output folder does not use it meanwhile.

    Args:
        prefix: As for ComfyUI's Save Video; empty for the temp folder.
        suffix: Of the clip.
        mask_suffix: Of the masks' clip.
        size: Width, height, which a prefix may name.

    Raises:
        VideoError: The folder cannot be written to, or is none in ComfyUI's output folder.
    """
    if prefix.strip():
        folder, name, count, subfolder = _numbered(prefix.strip(), size)
        stems, place = (f"{name}_{number:05}_" for number in itertools.count(count)), io.FolderType.output
    else:
        folder, subfolder, place = folder_paths.get_temp_directory(), "", io.FolderType.temp
        stems = iter([f"birefnet_{secrets.token_hex(8)}_"])
    with ExitStack() as stack:
        try:
            video = stack.enter_context(first_free(Path(folder, f"{stem}{suffix}") for stem in stems))
        except OSError as error:
            raise VideoError(f"{folder}: cannot be written to ({error.strerror or first_line(error)}).") from error
        shown = ui.PreviewVideo([ui.SavedResult(video.name, subfolder, place)])
        yield Files(video, video.with_name(f"{video.name.removesuffix(suffix)}mask{mask_suffix}"), shown)


def _numbered(prefix: str, size: tuple[int, int]) -> tuple[str, str, int, str]:
    """Folder, name, next number and subfolder of files with a prefix.

    Raises:
        VideoError: The prefix leads out of ComfyUI's output folder, or to a folder that cannot be there.
    """
    output = folder_paths.get_output_directory()
    try:
        return folder_paths.get_save_image_path(_dated(prefix), output, *size)[:4]
    except Exception as error:  # ComfyUI has no type of its own for a path out of the folder
        reason = f" ({error.strerror or first_line(error)})" if isinstance(error, OSError) else ""
        raise VideoError(
            f"filename_prefix is {prefix!r}, expected a name, or a folder and a name, in ComfyUI's output folder "
            f"{output}{reason}."
        ) from error


def _dated(prefix: str) -> str:
    """A prefix with the date in place of such as %date:yyyy-MM-dd%, which ComfyUI's page replaces for its own nodes
    only: no file on Windows has a colon in its name."""
    now = time.localtime()
    parts = {"y": now.tm_year, "M": now.tm_mon, "d": now.tm_mday, "h": now.tm_hour, "m": now.tm_min, "s": now.tm_sec}

    def part(letters: re.Match[str]) -> str:
        number, digits = parts[letters[0][0]], len(letters[0])
        return f"{number % 100 if letters[0] == 'yy' else number:0{digits}}"

    return re.sub("%date:([^%]+)%", lambda date: re.sub("yyyy|yy|MM?|dd?|hh?|mm?|ss?", part, date[1]), prefix)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in ComfyUI's temp folder, removed at the end."""
    temp = Path(folder_paths.get_temp_directory())
    temp.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="birefnet_", dir=temp, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _check_readable(source: Any) -> None:
    """Raises a VideoError if the core cannot read a clip either: it says what to do, ComfyUI's reader has a number."""
    if isinstance(source, str | python_io.BytesIO):
        core(".video").Clip(source).close()


def _trim(video: Any, source: str | python_io.BytesIO) -> tuple[float, float]:
    """Start and duration in seconds of the part that is meant; a duration of 0 is the rest."""
    if hasattr(video, "get_active_trim_window"):
        return video.get_active_trim_window()
    if not isinstance(video, VideoFromFile) or not hasattr(video, "as_trimmed"):
        return 0.0, 0.0  # its stream source is written by save_to, with its edits
    # ComfyUI 0.21 tells how long a clip is, not where it begins: that follows from what is left to the end.
    rest = video.as_trimmed(0.0, 0.0, strict_duration=False).get_duration()
    duration = video.get_duration()
    start_time = max(VideoFromFile(source).get_duration() - rest, 0.0)
    return round(start_time, 6), round(duration, 6) if duration < rest else 0.0


def _is_edited(video: Any, source: str | python_io.BytesIO, *, trimmed: bool) -> bool:
    """Whether frames differ from those of the stream source in more than the trim."""
    if not isinstance(video, VideoFromFile):
        return bool(getattr(video, "has_pending_frame_edits", bool)())
    if getattr(video, "has_pending_frame_edits", bool)() and not trimmed:
        return True
    return video.get_dimensions() != VideoFromFile(source).get_dimensions()


def _has_frames_in_memory(video: Any) -> bool:
    if VideoFromComponents is None or not isinstance(video, VideoFromComponents):
        return False
    return getattr(video, "get_color_space", lambda: "auto")() in ("auto", "sRGB")  # ComfyUI tags HDR itself


def _without_loss(components: Any, path: Path) -> Part:
    """Writes images and sound to a file that keeps 8 bits of each, with alpha, and the exact frame rate.

    Raises:
        ValueError: No images.
        ImageError: Images that are not in [0, 1]; as bytes, NaN would be black, and 0 to 255 white.
    """
    import av

    from ..birefnet_core.video.pyav import reformat

    images, audio = components.images, components.audio
    if not len(images):
        raise ValueError("it has none, expected at least one")
    validate_images(images, "video", channels=CHANNELS)
    size = images.shape[2], images.shape[1]
    stored, given = ("bgra", "rgba") if images.shape[-1] == 4 else ("bgr0", "rgb24")
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=Fraction(components.frame_rate).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = *size, stored
        if audio and not audio["waveform"].numel():
            audio = None  # such as the sound of a cut after the sound's end
        if audio:
            wave = audio["waveform"][0, :2].float().cpu().contiguous().numpy()  # C samples
            layout = "mono" if len(wave) == 1 else "stereo"
            sound = file.add_stream("pcm_f32le", rate=int(audio["sample_rate"]), layout=layout)
        for image in images:
            pixels = to_bytes(in_color(image[None])[0])
            frame = av.VideoFrame.from_ndarray(pixels, format=given)
            file.mux(stream.encode(reformat(frame, format=stored)))
        file.mux(stream.encode(None))
        if audio:
            packed = wave.T.reshape(1, -1).copy()
            samples = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
            samples.sample_rate, samples.pts = int(audio["sample_rate"]), 0
            file.mux(sound.encode(samples))
            file.mux(sound.encode(None))
    return Part(str(path), 0.0, 0.0, size)


def _saved(video: Any, path: Path) -> Path:
    """A VIDEO written by ComfyUI, with its edits."""
    try:
        video.save_to(str(path))
    except Exception as error:
        raise VideoError(f"ComfyUI cannot encode the video with its edits: {first_line(error)}.") from error
    return path
