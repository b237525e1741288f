"""Recordings without an index: where a cut begins is found in one look through the file."""

from fractions import Fraction

import pytest

pytest.importorskip("av")

from birefnet_core.video import Clip, Limits, containers
from birefnet_core.video.recordings import look_through

from .conftest import make_clip


@pytest.fixture
def looks(monkeypatch):
    """The places that recordings were looked through for."""
    seen = []

    def look(container, stream, time_base, until):
        seen.append(until)
        return look_through(container, stream, time_base, until)

    monkeypatch.setattr(containers, "look_through", look)
    return seen


@pytest.fixture(params=["clip.ts", "clip.mpg"])
def recording(request, tmp_path):
    """2 seconds with a key frame every 10 frames."""
    codec = "mpeg2video" if request.param == "clip.mpg" else "libx264"
    options = {"g": "10", "bf": "2"}
    return make_clip(tmp_path, name=request.param, codec=codec, rate=25, frames=50, audio=None, options=options)


@pytest.mark.parametrize("seconds", [0.04, 0.4, 0.44, 0.8, 1.0, 1.96])
def test_a_start_from_the_end_takes_one_look_and_gives_the_same_frames(recording, seconds, looks):
    with Clip(recording, start_time=-seconds) as clip:
        from_the_end = list(clip)
    assert looks == [None]
    with Clip(recording, start_time=2 - seconds) as clip:
        from_the_start = list(clip)
    assert len(looks) == 2 and looks[1] is not None
    assert len(from_the_end) == round(seconds * 25)
    for one, other in zip(from_the_end, from_the_start, strict=True):
        assert one.pts == other.pts and (one.pixels == other.pixels).all()


@pytest.mark.parametrize("joined", [False, True])
def test_a_look_through_all_finds_what_one_until_a_time_finds(recording, joined):
    if joined:  # the times begin again
        recording.write_bytes(recording.read_bytes() * 2)
    source = containers.ContainerSource(str(recording), Limits())

    def look(until):
        with source._open() as container:
            return look_through(container, container.streams.video[0], source.time_base, until)

    try:
        places = look(None)
        assert len(places.keys) >= (10 if joined else 5) and places.end is not None
        found = set()
        for number in range(0, 120, 3):
            at = Fraction(number, 25) + Fraction(1, 2)
            found.add(places.before(at, source.time_base))
            assert look(at).before(at, source.time_base) == places.before(at, source.time_base)
        assert len(found) >= 4
    finally:
        source.close()
