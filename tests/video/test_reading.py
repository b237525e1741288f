"""Sequences of images, animations, and what a clip says of itself."""

import io
import struct
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageCms

from birefnet_core.errors import VideoError
from birefnet_core.image_reading import read_image_file
from birefnet_core.video import Clip, Output, VideoOptions, clip, segment_video
from birefnet_core.video.containers import ContainerSource, Packets
from birefnet_core.video.image_files import find_sequence
from birefnet_core.video.pyav import reformat

from .conftest import KnownMasks, av, make_clip, picture, probe, read_rgba


@pytest.fixture
def shot(tmp_path):
    """Images 9, 10, 11, whose names sort otherwise."""
    folder = tmp_path / "shot"
    folder.mkdir()
    for number in (9, 10, 11):
        Image.fromarray(picture(number, 64, 48)).save(folder / f"a{number}.png")
    (folder / "notes.txt").write_text("no image")
    Image.fromarray(picture(0, 64, 48)).save(folder / ".hidden.png")
    Image.fromarray(picture(0, 64, 48)).save(folder / "b1.jpg")
    return folder


def test_a_sequence_is_read_in_order_of_its_numbers(shot):
    for source, names in (
        (shot / "a%d.png", ["a9.png", "a10.png", "a11.png"]),
        (shot / "a%04d.png", ["a9.png", "a10.png", "a11.png"]),
        (shot / "*.jpg", ["b1.jpg"]),
        (shot, ["a9.png", "a10.png", "a11.png", "b1.jpg"]),
    ):
        assert [path.name for path in find_sequence(source)] == names
    with pytest.raises(VideoError, match="no images there"):
        find_sequence(shot / "c%d.png")


@pytest.mark.parametrize(
    ("numbers", "missing"), [((7, 8, 9), 0), ((0, 10, 20), 0), ((1, 2, 5, 6, 8), 3), ((3,), 0), ((2, 4, 8), 1)]
)
def test_gaps_in_a_sequence_are_told(tmp_path, numbers, missing):
    for number in numbers:
        Image.new("RGB", (4, 4)).save(tmp_path / f"shot2_{number:04d}.png")
    with Clip(tmp_path) as clip:
        assert len(list(clip)) == len(numbers)
    assert [int(note.split()[0]) for note in clip.notes] == ([missing] if missing else [])


def test_a_sequence_becomes_a_clip_at_its_rate(tmp_path, segmenter, shot):
    options = VideoOptions(frame_rate=Fraction(24000, 1001), colors=None)
    report = segment_video(segmenter, shot / "a%d.png", Output(path=tmp_path / "out.mov"), options=options)
    found = probe(tmp_path / "out.mov")
    assert report.frames == 3
    assert found.times == pytest.approx([n * 1001 / 24000 for n in range(3)])
    assert found.colour[:3] == (1, 13, 1)
    for number, frame in zip((9, 10, 11), read_rgba(tmp_path / "out.mov"), strict=True):
        inside = frame[..., 3] > 0.99
        assert np.abs(frame[..., :3] * 255 - picture(number, 64, 48))[inside].max() < 3


def test_a_cut_of_a_sequence_begins_at_its_frame(tmp_path, segmenter, shot):
    options = VideoOptions(frame_rate=10, start_time=0.1, duration=0.1)
    segment_video(segmenter, shot / "a%d.png", Output(path=tmp_path / "out.mov"), options=options)
    assert np.abs(segmenter.images[0].numpy() * 255 - picture(10, 64, 48)).max() < 1
    assert len(segmenter.images) == 1


@pytest.mark.parametrize("duration", [0.05, 0.04, 0.01, 1e-9])
@pytest.mark.parametrize(("start", "first"), [(0, 9), (0.1, 10), (-0.1, 11)])
def test_a_duration_below_that_of_a_frame_takes_one(shot, duration, start, first):
    """Not none, and not the whole sequence, as a duration that was rounded to 0 did."""
    with Clip(shot / "a%d.png", frame_rate=10, start_time=start, duration=duration) as clip:
        (frame,) = clip
    assert np.abs(frame.pixels.astype(int) - picture(first, 64, 48)).max() <= 1


@pytest.mark.parametrize(("begins", "duration", "frames"), [(-0.125, 0.125, 3), (-0.125, 0.25, 6), (0, 0.125, 3)])
def test_a_cut_may_end_at_0(tmp_path, monkeypatch, begins, duration, frames):
    """Of a clip whose first frames are before 0; its end was taken for none."""
    source = make_clip(tmp_path, audio=None, frames=8)  # 24 for each second
    read = ContainerSource.read

    def earlier(self):
        for frame, pts, length in read(self):
            yield Packets(frame, pts + int(begins / self.time_base), length)

    monkeypatch.setattr(ContainerSource, "read", earlier)
    monkeypatch.setattr(ContainerSource, "begins_at", lambda self: Fraction(begins))
    with Clip(source, duration=duration) as clip:
        assert [float(frame.pts * clip.info.time_base) for frame in clip] == pytest.approx(
            [number / 24 for number in range(frames)], abs=1e-3
        )


def test_deep_images_stay_deep(tmp_path, segmenter):
    folder = tmp_path / "deep"
    folder.mkdir()
    pixels = np.random.RandomState(0).randint(0, 65536, (48, 64, 3)).astype(np.uint16)
    context = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 64, 48, "rgb48be", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb48be")
    frame.pts = 0
    (folder / "0.png").write_bytes(b"".join(bytes(packet) for packet in context.encode(frame)))
    segment_video(segmenter, folder, Output(path=tmp_path / "out"), options=VideoOptions(colors=None))
    with Clip(tmp_path / "out") as clip:
        assert np.abs(next(iter(clip)).pixels[..., :3].astype(int) - pixels).max() <= 1


def test_light_of_exr_comes_back(tmp_path, segmenter):
    """Colours of an 8-bit clip, as linear light in EXR and back."""
    source = make_clip(tmp_path, audio=None, frames=2)
    segment_video(segmenter, source, Output(path=tmp_path / "light", codec="exr"), options=VideoOptions(colors=None))
    with Clip(source) as before, Clip(tmp_path / "light") as after:
        assert after.info.bits == 16
        for first, second in zip(before, after, strict=True):
            assert np.abs(first.pixels / 255 - second.pixels[..., :3] / 65535).max() < 2 / 255


@pytest.mark.parametrize("as_bytes", [False, True])
def test_animated_webp_is_read_with_its_times(tmp_path, segmenter, as_bytes):
    images = [Image.fromarray(picture(number, 64, 48)) for number in range(4)]
    path = tmp_path / "in.webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[100, 50, 200, 100], lossless=True)
    source = io.BytesIO(path.read_bytes()) if as_bytes else path
    segment_video(segmenter, source, Output(path=tmp_path / "out.mov"))
    assert probe(tmp_path / "out.mov").times == pytest.approx([0, 0.1, 0.15, 0.35])
    assert probe(tmp_path / "out.mov").duration == pytest.approx(0.45)


def test_a_start_from_an_end_that_is_not_known_is_refused(tmp_path):
    images = [Image.fromarray(picture(number, 64, 48)) for number in range(2)]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:])
    with pytest.raises(VideoError, match=r"a\.webp: its length is not known; give a start that counts from the begin"):
        Clip(tmp_path / "a.webp", start_time=-0.1)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_gif_that_says_no_times_keeps_its_frames(tmp_path, as_bytes):
    """As Pillow writes them by default; FFmpeg makes three frames of five."""
    images = [Image.fromarray(picture(n, 64, 48)).quantize(64) for n in range(5)]
    path = tmp_path / "a.gif"
    images[0].save(path, save_all=True, append_images=images[1:])
    with Clip(io.BytesIO(path.read_bytes()) if as_bytes else path) as clip:
        frames = list(clip)
        assert [frame.pts * clip.info.time_base for frame in frames] == [Fraction(n, 10) for n in range(5)]
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(frame.pixels[..., :3].astype(int) - np.asarray(image.convert("RGB"))).max() <= 4


def test_a_damaged_webp_is_named(tmp_path):
    images = [Image.fromarray(picture(number, 64, 48)) for number in range(4)]
    path = tmp_path / "in.webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, lossless=True)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(VideoError, match=r"in\.webp"):
        list(Clip(path))


def test_interlaced_clips_are_named(tmp_path, segmenter):
    source = make_clip(
        tmp_path, name="in.mkv", codec="mpeg2video", options={"flags": "+ildct+ilme"}, audio=None, rate=25
    )
    report = segment_video(segmenter, source, Output(path=tmp_path / "out.mov"))
    assert any("interlaced" in note for note in report.notes)
    with av.open(str(source)) as before, av.open(str(tmp_path / "out.mov")) as after:
        orders = [getattr(c.streams.video[0].codec_context, "field_order", 0) for c in (before, after)]
    assert orders[0] == orders[1]


def test_declared_counts_are_not_trusted(tmp_path, segmenter):
    """A clip that declares fewer frames than it has: all are taken, and progress never exceeds its total."""
    source = make_clip(tmp_path, name="in.avi", codec="mpeg4", audio=None)
    data = bytearray(source.read_bytes())
    for place, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        at = data.index(place) + offset
        data[at : at + 4] = (3).to_bytes(4, "little")
    source.write_bytes(bytes(data))
    states = []
    report = segment_video(
        segmenter, source, Output(path=tmp_path / "out.mov"), progress=lambda p: states.append((p.done, p.total))
    )
    assert report.frames == 12
    assert all(done <= (total or done) for done, total in states)


def test_the_source_is_a_path_or_bytes(segmenter, tmp_path):
    with pytest.raises(VideoError, match="expected a path"):
        segment_video(segmenter, 5, Output(path=tmp_path / "out.mov"))


def test_images_of_a_sequence_are_read_each_as_it_is(tmp_path):
    """Optimised files leave out an alpha channel that says nothing, and telephones turn pictures one by one."""
    folder = tmp_path / "shot"
    folder.mkdir()
    colours = picture(0, 64, 48)
    alpha = np.where(np.arange(64) < 30, 255, 0).astype(np.uint8)[None].repeat(48, 0)
    turned = Image.Exif()
    turned[0x112] = 6
    Image.fromarray(colours).save(folder / "a1.png")
    Image.fromarray(np.dstack([colours, alpha])).save(folder / "a2.png")
    rotated = Image.fromarray(colours).transpose(Image.Transpose.ROTATE_90)
    rotated.save(folder / "a3.jpg", quality=100, subsampling=0, exif=turned)
    with Clip(folder) as clip:
        frames = [frame.pixels for frame in clip]
    assert [frame.shape for frame in frames] == [(48, 64, 3), (48, 64, 4), (48, 64, 3)]
    assert np.array_equal(frames[1][..., 3], alpha)
    assert all(np.abs(frame[..., :3].astype(int) - colours).max() <= 4 for frame in frames)
    assert not clip.notes


def test_tiffs_that_ffmpeg_takes_for_others_are_read(tmp_path):
    """Floats, and colours that are stored times alpha."""
    colours = picture(0, 64, 48)
    for name in ("floats", "times_alpha"):
        (tmp_path / name).mkdir()
    Image.fromarray(colours[..., 0] / np.float32(255)).save(tmp_path / "floats" / "a1.tif")
    half = np.dstack([colours // 2, np.full((48, 64), 128, np.uint8)])
    path = tmp_path / "times_alpha" / "a1.tif"
    Image.fromarray(half).save(path)
    straight, multiplied = (struct.pack("<HHIHH", 338, 3, 1, kind, 0) for kind in (2, 1))
    assert straight in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(straight, multiplied))
    for name, expected in (("floats", colours[..., :1]), ("times_alpha", colours)):
        with Clip(tmp_path / name) as clip:
            pixels = next(iter(clip)).pixels
        assert np.abs(pixels[..., :3].astype(int) - expected).max() <= 2, name
        assert pixels.shape[2] == (4 if name == "times_alpha" else 3)


def test_images_of_a_sequence_are_those_that_segment_reads(tmp_path):
    """What FFmpeg turns wrongly or not, by its version, and TIFFs that it takes for others."""
    image, mirrored, turned = Image.fromarray(picture(0, 64, 48)), Image.Exif(), Image.Exif()
    mirrored[0x112], turned[0x112] = 5, 6
    lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    files = {
        "a.jpg": (image, {"quality": 100, "exif": mirrored}), "b.png": (image, {"exif": turned}),
        "c.webp": (image, {"lossless": True, "exif": mirrored}), "d.tif": (image, {"tiffinfo": {274: 7}}),
        "e.tif": (image, {"compression": "jpeg", "quality": 100}), "f.tif": (lab, {}),
        "g.tif": (image.convert("RGBX"), {}), "h.tif": (image.convert("CMYK"), {}),
    }  # fmt: skip
    for name, (pixels, options) in files.items():
        pixels.save(tmp_path / name, **options)
        with Clip(tmp_path / name.replace(".", "*.")) as clip:
            (frame,) = clip
        expected = read_image_file(tmp_path / name)
        assert frame.pixels.shape == expected.colours.shape, name
        assert np.abs(frame.pixels - expected.colours.numpy() * 255).max() < 3, name


@pytest.mark.parametrize(
    ("colour", "transfer", "note"),
    [((9, 16, 9, 1), "pq", "HDR (PQ)"), ((9, 18, 9, 1), "hlg", "HDR (HLG)"), ((12, 13, 1, 1), "sdr", "wide gamut")],
)
def test_png_frames_say_what_their_colours_are(tmp_path, colour, transfer, note):
    source = make_clip(tmp_path, pixels="yuv420p10le", colour=colour, audio=None, frames=1)
    out = Output(path=tmp_path / "out", codec="png")
    mask = Output(path=tmp_path / "mask", kind="mask")
    segment_video(KnownMasks(), source, [out, mask], options=VideoOptions(colors=None))
    frame = out.path / "frame_000001.png"
    assert [note in line for line in read_image_file(frame).notes] == [True]
    assert frame.read_bytes()[37:41] == b"cICP"
    assert not read_image_file(mask.path / frame.name).notes
    if hasattr(av.VideoFrame, "color_trc"):
        with Clip(out.path) as clip:
            assert (clip.info.transfer, clip.info.colour.primaries) == (transfer, colour[0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["clip.flv", "clip.mpg", "clip.ts"])
def test_files_whose_streams_turn_up_late_are_read(tmp_path, name):
    """PyAV before 18 wrote beyond its memory there."""
    codec = "mpeg2video" if name == "clip.mpg" else "libx264"
    path = make_clip(tmp_path, name=name, codec=codec, rate=25, audio="mp2" if name == "clip.mpg" else "aac")
    for source in (path, io.BytesIO(path.read_bytes())):
        with Clip(source) as clip:
            assert len(list(clip)) == 12
    path.write_bytes(b"FLV" + bytes(2000))
    with pytest.raises(VideoError, match="cannot be read as a clip"):
        Clip(path)


def encode(container, stream, pictures, matrix):
    """Writes pictures whose samples are in a matrix, by swscale's number."""
    for number, pixels in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = reformat(
            frame, format=stream.codec_context.pix_fmt, src_colorspace=9, dst_colorspace=matrix, dst_color_range=1
        )
        frame.pts = number
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def test_a_broadcast_that_changes_its_colours_keeps_them(tmp_path):
    """Two recordings one after the other, in the matrices of HDTV and of before."""
    data, pictures = b"", [picture(number, 96, 64) for number in range(4)]
    for tag, matrix in ((1, 1), (6, 5)):
        with av.open(str(tmp_path / "part.ts"), "w") as container:
            stream = container.add_stream("libx264", rate=24, options={"rc-lookahead": "0", "qp": "1", "bf": "0"})
            context = stream.codec_context
            context.width, context.height, context.pix_fmt = 96, 64, "yuv444p"
            context.colorspace, context.color_range = tag, 1
            encode(container, stream, pictures, matrix)
        data += (tmp_path / "part.ts").read_bytes()
    (tmp_path / "both.ts").write_bytes(data)
    with Clip(tmp_path / "both.ts") as clip:
        frames = [frame.pixels.astype(int) for frame in clip]
    assert len(frames) == 8
    assert all(np.abs(frame - picture(n % 4, 96, 64)).mean() < 2 for n, frame in enumerate(frames))


def test_of_several_videos_the_one_that_players_show_is_read(tmp_path):
    """A still picture before the video, which some converters do not mark as a cover."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        cover, film = (container.add_stream("libx264", rate=24) for _ in range(2))
        for stream, size in ((cover, (320, 240)), (film, (96, 64))):
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for stream, frames in ((cover, 1), (film, 6)):
            encode(container, stream, [picture(n, stream.width, stream.height) for n in range(frames)], 1)
    with Clip(tmp_path / "a.mkv") as clip:
        assert (clip.info.width, len(list(clip))) == (96, 6)
    assert clip.notes == {"of its 2 video streams the one of 96 x 64 was taken"}


def test_deep_frames_are_the_same_by_planes(tmp_path, monkeypatch):
    """FFmpeg 8.0 gets 16-bit RGB of 4:2:0 wrong, in all rows but the first; planes are right."""
    path = make_clip(tmp_path, name="clip.mkv", codec="ffv1", pixels="yuv420p10le", frames=1, audio=None)
    (first,) = read_rgba(path)
    assert np.abs(first - picture(0, 96, 64) / 255).mean() < 0.02
    monkeypatch.setattr(clip, "PLANAR", ({"rgb48le": "gbrp16le"},) * 2)
    assert np.abs(read_rgba(path)[0] - first).mean() < 0.01


@pytest.mark.parametrize("number", [0, 3, 16])
def test_frames_are_converted_whatever_light_they_are_tagged_with(number):
    """PyAV 17.0 refuses the reserved numbers 0 and 3, and takes the matrix of BT.2020 from the frame's tag."""
    grey = av.VideoFrame.from_ndarray(np.full((8, 64, 3), (60, 200, 90), np.uint8), format="rgb24")
    coded = reformat(grey, format="yuv444p", src_colorspace=1, dst_colorspace=9, src_color_range=2, dst_color_range=1)
    assert [bytes(plane)[0] for plane in coded.planes] == pytest.approx([151, 97, 70], abs=1)
    if not hasattr(coded, "color_trc"):
        pytest.skip("frames of this PyAV have no tag of light")
    coded.color_trc = coded.color_primaries = number
    again = reformat(coded, format="rgb24", src_colorspace=9, dst_colorspace=1, src_color_range=1, dst_color_range=2)
    assert np.abs(again.to_ndarray() - (60.0, 200, 90)).max() < 4
    assert (coded.color_trc, coded.color_primaries) == (number, number)


def test_the_decoders_threads_have_ended_before_it_is_freed(tmp_path):
    """They would wait for each other: what a thread logs needs Python's lock, which PyAV holds until it ends."""
    done = []
    with Clip(make_clip(tmp_path)) as opened:
        next(iter(opened))
        source, decoder, container = opened._source, opened._source._decoder, opened._source.container
        source._decoder = SimpleNamespace(flush_buffers=lambda: done.append(decoder.flush_buffers()))
        source.container = SimpleNamespace(close=lambda: done.append(container.close() or "closed"))
    assert done == [None, "closed"]


@pytest.mark.parametrize("rate", [25, 24])
@pytest.mark.parametrize(
    ("start", "duration"),
    [(0.5, 0.2), (0.52, 0.2), (0.511, None), (0.0417, None), (0.0416, 0.3), (1.001, 0.5), (-0.5, None), (-0.31, 0.1)],
)
def test_cuts_are_the_same_in_every_kind_of_file(tmp_path, rate, start, duration):
    """The times of sequences, AVI and MXF are as coarse as their frames: a cut between two began one earlier."""
    (tmp_path / "images").mkdir()
    how = {"frames": 48, "rate": rate, "audio": None}
    for number in range(48):
        Image.fromarray(picture(number, 96, 64)).save(tmp_path / "images" / f"{number}.png")
    files = [make_clip(tmp_path, **how), make_clip(tmp_path, name="a.avi", codec="mpeg4", **how)]
    found = []
    for source in (*files, make_clip(tmp_path, name="a.mxf", codec="mpeg2video", **how), tmp_path / "images"):
        with Clip(source, start_time=start, duration=duration, frame_rate=rate) as clip:
            found.append((round(clip.info.start * rate), len(list(clip))))
    assert len(set(found)) == 1, found


@pytest.mark.parametrize(("start", "frames"), [(-0.04, 1), (-0.5, 12), (-1, 25), (-9, 50)])
def test_a_start_from_the_end_of_an_flv_has_its_frames(tmp_path, start, frames):
    """Its frames begin a little after 0, from which its length counts."""
    source = make_clip(tmp_path, name="a.flv", frames=50, rate=25, audio=None)
    with Clip(source) as whole, Clip(source, start_time=start) as clip:
        assert next(iter(whole)).pts > 0
        assert len(list(clip)) == frames
