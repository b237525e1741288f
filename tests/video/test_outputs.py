"""What is written: alpha comes back, masks and composites are right, sequences and animations are whole."""

import av
import numpy as np
import pytest
import torch
from PIL import Image

from birefnet_core.errors import ConfigError
from birefnet_core.masks import RefineOptions
from birefnet_core.transfer import to_sdr
from birefnet_core.video import CODECS, Clip, Output, VideoOptions, segment_video, vp9_alpha
from birefnet_core.video.clip import Colour, to_rgb
from birefnet_core.video.pyav import reformat

from .conftest import KnownMasks, make_clip, probe, read_rgba, soft_ellipse

SIZE = (96, 64)
PLAIN = VideoOptions(colors=None)


@pytest.fixture
def source(tmp_path):
    return make_clip(tmp_path, audio=None, colour=(1, 1, 1, 1), options={"crf": "4"})


def masks(count=12, first=0):
    return [soft_ellipse(SIZE[1], SIZE[0], first + number).numpy() for number in range(count)]


# The largest error of alpha in 255ths.
@pytest.mark.parametrize(
    ("name", "codec", "most"),
    [
        ("out.mov", None, 2),
        ("out.webm", None, 6),
        ("out.mkv", "vp9", 6),
        ("out.webp", None, 0.51),
        ("out.apng", None, 0.51),
        ("out.png", None, 0.51),
        ("frames", None, 0.01),
        ("light", "exr", 0.15),  # half precision
    ],
)
def test_alpha_comes_back(tmp_path, segmenter, source, name, codec, most):
    segment_video(segmenter, source, Output(path=tmp_path / name, codec=codec), options=PLAIN)
    found = read_rgba(tmp_path / name)
    assert len(found) == 12
    for frame, mask in zip(found, masks(), strict=True):
        assert np.abs(frame[..., 3] - mask).max() * 255 < most


@pytest.mark.parametrize("width", [97, 161, 162, 854])
def test_every_width_is_written_without_damage(width):
    """Threads of swscale write beyond the ends of their rows, into those of others, which shows now and then only."""
    pixels = np.zeros((120, width, 4), np.uint16)
    pixels[..., 3] = (soft_ellipse(120, width).numpy() * 65535).round()
    rgb = to_rgb(av.VideoFrame.from_ndarray(pixels, format="rgba64le"), "rgba64le", Colour(), (width, 120))
    assert (rgb == pixels).all()
    for _ in range(40):
        frame = reformat(av.VideoFrame.from_ndarray(pixels, format="rgba64le"), format="yuva444p10le")
        y, alpha = (np.frombuffer(bytes(frame.planes[i]), "<u2").reshape(120, -1)[:, :width] for i in (0, 3))
        assert len(np.unique(y)) == 1
        assert np.abs(alpha / 1023 - pixels[..., 3] / 65535).max() < 2 / 1023
        back = to_rgb(frame, "rgba64le", Colour(), (width, 120))
        assert np.abs(back.astype(int) - pixels).max() / 65535 < 2 / 1023


@pytest.mark.skipif(not vp9_alpha.AVAILABLE, reason="this PyAV cannot encode alpha apart")
@pytest.mark.parametrize("size", [SIZE, (97, 63)])
def test_vp9_keeps_single_hairs_exactly(tmp_path, size):
    source = make_clip(tmp_path, audio=None, size=size, pixels="yuv444p", frames=130)
    hairs = (torch.rand(130, *size[::-1], generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    hairs *= torch.rand(hairs.shape, generator=torch.Generator().manual_seed(1)) < 0.1
    known = KnownMasks(masks=hairs)
    segment_video(known, source, Output(path=tmp_path / "out.webm"), options=PLAIN)
    for frame, mask in zip(read_rgba(tmp_path / "out.webm"), hairs.numpy(), strict=True):
        assert np.abs(frame[..., 3] - mask).max() < 1e-6


@pytest.mark.skipif(not vp9_alpha.AVAILABLE, reason="this PyAV cannot encode alpha apart")
def test_vp9_has_keyframes_of_colour_and_alpha_at_the_same_frames(tmp_path, segmenter):
    source = make_clip(tmp_path, audio=None, frames=130)
    segment_video(segmenter, source, Output(path=tmp_path / "out.webm"), options=PLAIN)
    with av.open(str(tmp_path / "out.webm")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        alphas = [bytes(packet.get_sidedata("matroska_block_additional")) for packet in packets]
    assert keys == [0, 128]
    assert [number for number, data in enumerate(alphas) if not data[8] & 4] == keys  # frame_type of VP9's header


def test_alpha_of_vp9_comes_back_where_pyav_cannot_encode_it_apart(tmp_path, segmenter, source, monkeypatch):
    monkeypatch.setattr("birefnet_core.video.writers.AVAILABLE", False)
    segment_video(segmenter, source, Output(path=tmp_path / "out.webm"), options=PLAIN)
    for frame, mask in zip(read_rgba(tmp_path / "out.webm"), masks(), strict=True):
        assert np.abs(frame[..., 3] - mask).max() * 255 < 6


def test_gif_is_transparent_where_alpha_is_under_a_half(tmp_path, segmenter, source):
    segment_video(segmenter, source, Output(path=tmp_path / "out.gif"), options=PLAIN)
    found = read_rgba(tmp_path / "out.gif")
    assert len(found) == 12
    for frame, mask in zip(found, masks(), strict=True):
        sure = np.abs(mask - 0.5) > 0.02
        assert np.array_equal((frame[..., 3] > 0.5)[sure], (mask > 0.5)[sure])


def test_a_gif_leaves_out_frames_it_has_no_time_for(tmp_path, segmenter):
    """GIF counts in hundredths of a second; telephones record up to 240 frames in one."""
    source = make_clip(tmp_path, rate=240, frames=24, audio=None)
    report = segment_video(segmenter, source, Output(path=tmp_path / "out.gif"), options=PLAIN)
    assert probe(tmp_path / "out.gif").times == pytest.approx([n / 100 for n in range(11)])
    assert report.notes == ["GIF holds 100 frames for each second at most; others were left out"]


@pytest.mark.parametrize("name", ["out.gif", "out.webp", "out.apng"])
def test_animations_keep_their_times_and_are_read_again(tmp_path, segmenter, name):
    first = make_clip(tmp_path, name="in.gif", codec="gif", pixels="rgb8", rate=10, audio=None)
    segment_video(segmenter, first, Output(path=tmp_path / name))
    with Clip(tmp_path / name) as clip:
        times = [float(frame.pts * clip.info.time_base) for frame in clip]
    assert times == pytest.approx([number / 10 for number in range(12)], abs=1e-3)
    again = segment_video(segmenter, tmp_path / name, Output(path=tmp_path / "again.mov"))
    assert again.frames == 12
    assert Image.open(tmp_path / name).n_frames == 12


def test_what_is_transparent_already_stays_so(tmp_path, segmenter, source):
    segment_video(segmenter, source, Output(path=tmp_path / "first.mov"), options=PLAIN)
    segment_video(KnownMasks(), tmp_path / "first.mov", Output(path=tmp_path / "second.mov"), options=PLAIN)
    for frame, mask in zip(read_rgba(tmp_path / "second.mov"), masks(), strict=True):
        assert np.abs(frame[..., 3] - mask * mask).max() < 2 / 255


@pytest.mark.parametrize("premultiplied", [False, True])
def test_colours_are_straight_unless_premultiplied(tmp_path, segmenter, source, premultiplied):
    out = Output(path=tmp_path / "out", premultiplied=premultiplied)
    segment_video(segmenter, source, out, options=PLAIN)
    with Clip(source) as clip:
        originals = [frame.pixels / 255 for frame in clip]
    for frame, original, mask in zip(read_rgba(out.path), originals, masks(), strict=True):
        expected = original * mask[..., None] if premultiplied else original
        assert np.abs(frame[..., :3] - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "most"),
    [
        ("mask.mkv", None, "gray16le", 0.01), ("mask.mp4", None, "yuv420p", 12), ("mask.mov", "hevc", "yuv420p", 16),
        ("mask.webm", None, "yuv420p", 24), ("mask", None, None, 0.01), ("light", "exr", None, 0.5),
    ],
)  # fmt: skip
def test_masks_come_back(tmp_path, segmenter, source, name, codec, pixels, most):
    segment_video(segmenter, source, Output(path=tmp_path / name, kind="mask", codec=codec), options=PLAIN)
    found = read_rgba(tmp_path / name)
    if name == "light":  # a mask is no light: reading turns it into sRGB as any EXR
        found = [np.where(f <= 0.04045, f / 12.92, ((f + 0.055) / 1.055) ** 2.4) for f in found]
    assert len(found) == 12
    for frame, mask in zip(found, masks(), strict=True):
        assert np.abs(frame[..., 0] - mask).max() * 255 < most
    if pixels:
        assert probe(tmp_path / name).pixels == pixels


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", None), ("a.mp4", "hevc"), ("a.mkv", "av1"), ("a.webm", None), ("a.mov", "prores"), ("frames", None)],
)
def test_a_composite_shows_the_background_outside(tmp_path, segmenter, source, name, codec):
    out = Output(path=tmp_path / name, kind="composite", codec=codec, background="#20a060", crf=None)
    segment_video(segmenter, source, out)
    for frame, mask in zip(read_rgba(out.path), masks(), strict=True):
        outside = frame[..., :3][mask == 0]
        assert np.abs(outside.mean(0) * 255 - (0x20, 0xA0, 0x60)).max() < 3


@pytest.mark.parametrize("name", ["wall.png", "my%20dog.png"])  # FFmpeg takes the latter for a sequence
def test_an_image_lies_behind_the_subject(tmp_path, segmenter, source, name):
    Image.new("RGB", (300, 100), (200, 30, 90)).save(tmp_path / name)
    out = Output(path=tmp_path / "out", kind="composite", background=tmp_path / name)
    segment_video(segmenter, source, out)
    assert np.abs(read_rgba(out.path)[3][0, 0, :3] * 255 - (200, 30, 90)).max() < 1


@pytest.mark.parametrize("name", ["wall.png", "wall.webp"])
def test_what_is_transparent_in_a_background_is_black(tmp_path, segmenter, source, name):
    """An image, and a clip; the hidden colour is not seen, and a line says so."""
    left = Image.new("RGBA", (96, 64), (255, 0, 0, 0))
    left.paste((40, 120, 200, 255), (48, 0, 96, 64))
    later = left.copy()
    later.putpixel((95, 63), (0, 0, 0, 255))  # or the two are one frame
    more = {"save_all": True, "append_images": [later], "lossless": True, "exact": True} if "webp" in name else {}
    left.save(tmp_path / name, **more)
    out = Output(path=tmp_path / "out", kind="composite", background=tmp_path / name)
    report = segment_video(segmenter, source, out)
    frame = read_rgba(out.path)[3] * 255
    assert np.abs(frame[0, 0, :3]).max() < 1
    assert np.abs(frame[0, -1, :3] - (40, 120, 200)).max() < 1
    assert any("is transparent in places; it is black there" in note for note in report.notes)


def test_a_background_keeps_its_proportions_where_pixels_are_not_square(tmp_path):
    """A square behind frames that are shown twice as wide as they are stored."""
    with av.open(str(tmp_path / "wide.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        container.mux([*stream.encode(av.VideoFrame(64, 64)), *stream.encode(None)])
    Image.new("RGB", (50, 50), "white").save(tmp_path / "wall.png")
    for fit, columns in (("fit", 32), ("stretch", 64)):
        out = Output(path=tmp_path / fit, kind="composite", background=tmp_path / "wall.png", fit=fit)
        segment_video(KnownMasks(), tmp_path / "wide.mkv", out)
        row = read_rgba(out.path)[0][0, :, 0]
        assert (row > 0.5).sum() == columns
        assert row[32] > 0.99


@pytest.mark.parametrize("name", ["wall.mp4", "wall.gif"])
def test_a_clip_lies_behind_the_subject_and_begins_again(tmp_path, segmenter, source, name):
    """A background of 6 frames at half the rate, so that each is shown twice."""
    gif = {"codec": "gif", "pixels": "rgb8"} if name.endswith("gif") else {"options": {"crf": "4"}}
    wall = make_clip(tmp_path, name=name, rate=12 if name == "wall.mp4" else 10, frames=4, audio=None, **gif)
    out = Output(path=tmp_path / "out", kind="composite", background=wall, fit="stretch")
    segment_video(segmenter, source, out)
    with Clip(wall) as clip:
        base, behind = clip.info.time_base, list(clip)
    length = (behind[-1].pts + behind[-1].duration) * base
    for number, frame in enumerate(read_rgba(out.path)):
        at = (number / 24) % float(length)
        shown = [b for b in behind if float(b.pts * base) <= at + 1e-6][-1]
        assert np.abs(frame[0, 0, :3] * 255 - shown.pixels[0, 0, :3]).max() < 1.5


def test_several_outputs_are_written_in_one_pass(tmp_path, segmenter, source):
    outputs = [
        Output(path=tmp_path / "out.mov"),
        Output(path=tmp_path / "mask.mkv", kind="mask"),
        Output(path=tmp_path / "over.mp4", kind="composite", background="#fff"),
    ]
    report = segment_video(segmenter, source, outputs)
    assert segmenter.seen == 12
    assert report.outputs == [output.path for output in outputs]
    assert all(len(probe(output.path).times) == 12 for output in outputs)


def test_masks_are_refined(tmp_path, segmenter, source):
    options = VideoOptions(refine=RefineOptions(threshold=0.5, invert=True), colors=None)
    segment_video(segmenter, source, Output(path=tmp_path / "mask", kind="mask"), options=options)
    for frame, mask in zip(read_rgba(tmp_path / "mask"), masks(), strict=True):
        assert np.array_equal(frame[..., 0] == 1, mask <= 0.5)


def test_the_old_background_leaves_the_colours(tmp_path):
    """A red subject on blue: with estimated colours nothing blue is left in what shows at all."""
    path, mask = tmp_path / "in", soft_ellipse(64, 96)[..., None].numpy()
    path.mkdir()
    image = mask * np.array([220.0, 30, 30]) + (1 - mask) * np.array([30.0, 30, 220])
    for number in range(2):
        Image.fromarray(image.round().astype(np.uint8)).save(path / f"{number}.png")

    class Still(KnownMasks):
        def __call__(self, images, size=None, **options):
            return soft_ellipse(*images.shape[1:3]).expand(len(images), -1, -1).clone()

    for colors, most in (("multilevel", 60), (None, 221)):
        out = tmp_path / str(colors)
        segment_video(Still(), path, Output(path=out), options=VideoOptions(colors=colors))
        shown = read_rgba(out)[0][..., :3][mask[..., 0] > 0.2] * 255
        assert most - 60 < shown[:, 2].max() < most


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batches_change_nothing(tmp_path, source, batch_size):
    segment_video(KnownMasks(batch_size), source, Output(path=tmp_path / "mask", kind="mask"))
    for frame, mask in zip(read_rgba(tmp_path / "mask"), masks(), strict=True):
        assert np.abs(frame[..., 0] - mask).max() < 1e-4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "out.avi"}, "there is no '.avi'"),
        ({"path": "out.mp4"}, "cutout is written as"),
        ({"path": "out.mp4", "codec": "h264"}, "cannot hold a cutout"),
        ({"path": "out.mp4", "codec": "prores"}, "written to .mov"),
        ({"path": "out.mov", "codec": "png"}, "give a folder"),
        ({"path": "out.mov", "codec": "pro_res"}, "Did you mean 'prores'"),
        ({"path": "out.mov", "kind": "matte"}, "expected one of cutout"),
        ({"path": "out.mp4", "kind": "composite"}, "needs a background"),
        ({"path": "out.mov", "background": "#fff"}, "only a composite"),
        ({"path": "out.mp4", "kind": "composite", "background": "reddish"}, "expected a color"),
        ({"path": "out.mov", "crf": 3}, "prores has none; leave it out, or use a codec that has: vp9."),
        ({"path": "frames", "kind": "mask", "crf": 3}, "png has none; leave it out, or use .* h264, hevc, av1."),
    ],
)
def test_what_cannot_be_written_is_said_at_once(arguments, words):
    with pytest.raises(ConfigError, match=words):
        Output(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"colors": "magic"}, {"duration": -1}, {"frame_rate": 0}, {"start_time": np.inf}]
)
def test_options_out_of_range_are_refused(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        VideoOptions(**arguments)


def test_a_missing_encoder_is_named(tmp_path, segmenter, source, monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(CODECS, "prores", replace(CODECS["prores"], encoders=("prores_nowhere",)))
    with pytest.raises(ConfigError, match="no encoder for prores"):
        segment_video(segmenter, source, Output(path=tmp_path / "out.mov"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4"]


def test_hdr_is_shown_to_the_network_as_sdr_and_kept_in_the_output(tmp_path, segmenter):
    """A PQ clip: white of SDR, 203 cd/m2, is 0.58 in PQ."""
    source = make_clip(
        tmp_path, codec="libx265", pixels="yuv420p10le", colour=(9, 16, 9, 1), audio=None,
        options={"x265-params": "log-level=error"},
    )  # fmt: skip
    segment_video(segmenter, source, Output(path=tmp_path / "out.mov"), options=PLAIN)
    with Clip(source) as before, Clip(tmp_path / "out.mov") as after:
        assert before.info.transfer == after.info.transfer == "pq"
        for first, second in zip(before, after, strict=True):
            inside = second.pixels[..., 3] > 65000
            difference = np.abs(first.pixels.astype(int) - second.pixels[..., :3])[inside]
            assert difference.max() < 3 * 257
            seen = segmenter.images.pop(0).numpy()
            assert np.abs(seen - first.pixels / 65535).max() > 0.1  # not what is stored
    report = segment_video(KnownMasks(), source, Output(path=tmp_path / "out.webm"), options=PLAIN)
    assert any("tone-mapped" in note for note in report.notes)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_masks_come_to_their_frames_when_they_are_smoothed(tmp_path, source, batch_size):
    """Smoothing holds frames back; a still subject keeps its mask, and each frame its own colours and time."""
    pytest.importorskip("birefnet_core.video.steady")

    class Still(KnownMasks):
        def __call__(self, images, size=None, **options):
            return soft_ellipse(*images.shape[1:3]).expand(len(images), -1, -1).clone()

    options = VideoOptions(refine=RefineOptions(temporal_radius=2), colors=None)
    segment_video(Still(batch_size), source, Output(path=tmp_path / "out.mov"), options=options)
    with Clip(source) as before, Clip(tmp_path / "out.mov") as after:
        for first, second in zip(before, after, strict=True):
            alpha = second.pixels[..., 3] / 65535
            assert second.pts == first.pts
            assert np.abs(alpha - soft_ellipse(64, 96).numpy()).mean() < 0.02
            assert np.abs(first.pixels / 255 - second.pixels[..., :3] / 65535)[alpha > 0.99].max() < 3 / 255


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_network_may_run_on_some_frames_only(tmp_path, batch_size):
    pytest.importorskip("birefnet_core.video.keyframes")
    folder = tmp_path / "still"
    folder.mkdir()
    for number in range(10):
        Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 96, 3), dtype=np.uint8)).save(
            folder / f"{number}.png"
        )

    class Still(KnownMasks):
        def __call__(self, images, size=None, **options):
            self.seen += len(images)
            return soft_ellipse(*images.shape[1:3]).expand(len(images), -1, -1).clone()

    segmenter = Still(batch_size)
    options = VideoOptions(every=4, colors=None)
    report = segment_video(segmenter, folder, Output(path=tmp_path / "mask", kind="mask"), options=options)
    assert segmenter.seen < report.frames == 10
    assert any("the network ran on" in note for note in report.notes)
    for frame in read_rgba(tmp_path / "mask"):
        assert np.abs(frame[..., 0] - soft_ellipse(64, 96).numpy()).mean() < 0.02


@pytest.mark.parametrize("colour", [(9, 16, 9, 1), (9, 18, 9, 1)], ids=["pq", "hlg"])
def test_a_background_has_its_colour_in_hdr_too(tmp_path, segmenter, colour):
    source = make_clip(
        tmp_path, codec="libx265", pixels="yuv420p10le", colour=colour, audio=None,
        options={"x265-params": "log-level=error"},
    )  # fmt: skip
    out = Output(path=tmp_path / "out.mp4", kind="composite", codec="hevc", background="#20a060", crf=4)
    segment_video(segmenter, source, out)
    with Clip(out.path) as clip:
        assert clip.info.bits == 16
        pixels = torch.from_numpy(next(iter(clip)).pixels / np.float32(65535))
        shown = to_sdr(pixels, clip.info.transfer, clip.info.colour.primaries)[soft_ellipse(64, 96) == 0]
    assert np.abs(shown.mean(0).numpy() * 255 - (0x20, 0xA0, 0x60)).max() < 4
