"""The renderer of training pairs and its two commands."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOL = Path(__file__).resolve().parents[2] / "tools" / "synthetic_pairs"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of sources with a cut-out and a photograph for every first digit of a name's hash."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    digits = set()
    for number in range(400):
        name = f"{number}.png"
        digit = hashlib.sha1(name.encode()).hexdigest()[0]
        if digit in digits:
            continue
        digits.add(digit)
        pixels = rng.integers(0, 256, (64, 64, 4), np.uint8)
        pixels[..., 3] = 0
        pixels[16:48, 20:40, 3] = 255
        for kind, channels in (("cutouts", 4), ("photographs", 3), ("subjects", 4)):
            path = folder / kind / (f"{name}.png" if kind == "subjects" else name)
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels[..., :channels]).save(path)
    assert len(digits) == 16
    return folder


def all_shapes():
    from tools.synthetic_pairs.built_shapes import BUILT
    from tools.synthetic_pairs.grown_shapes import GROWN

    return (*BUILT, *GROWN)


@pytest.mark.parametrize("shape", all_shapes(), ids=lambda shape: shape.__name__)
def test_shape_covers_part_of_the_canvas_softly(shape):
    from tools.synthetic_pairs.canvas import Canvas

    for seed in range(4):
        canvas = Canvas(96, np.array([[0.9, 0.1, 0.0], [-0.1, 0.9, 0.0]]))
        shape(canvas, np.random.default_rng(seed))
        coverage = canvas.coverage()
        assert coverage.shape == (96, 96) and coverage.dtype == np.float32
        assert coverage.min() >= 0 and coverage.max() <= 1
        assert 0.01 < coverage.mean() < 0.9
        assert ((coverage > 0.02) & (coverage < 0.98)).any()


def test_photographic_scenes_are_of_photographs_own_subjects(pictures):
    from tools.synthetic_pairs import scene as scenes
    from tools.synthetic_pairs.sources import Sources, find_sources

    sources = find_sources(pictures, "train")
    found = [scenes.scene(np.random.default_rng(seed), sources, "train", 96, 1.0, 1.0) for seed in range(12)]
    for colours, alpha in found:
        assert colours.shape == (96, 96, 3) and alpha.shape == (96, 96) and alpha.max() > 0.9 and alpha.min() == 0
    assert len({round(float(alpha.mean()), 3) for _, alpha in found}) > 6
    # Where there are none, and without the share, everything is as before.
    for some in (Sources(), sources):
        one, other = (
            scenes.scene(np.random.default_rng(5), some, "train", 64, 1.0, *share)
            for share in ((), (0.0 if some.subjects else 1.0,))
        )
        np.testing.assert_array_equal(one[0], other[0])


def test_line_thinner_than_a_pixel_covers_less_than_one():
    from tools.synthetic_pairs.canvas import Canvas

    thin, thick = (Canvas(64, np.eye(2, 3)) for _ in range(2))
    thin.line([(-1, 0), (1, 0)], 0.004)
    thick.line([(-1, 0), (1, 0)], 0.1)
    assert 0 < thin.coverage().sum(0).mean() < 0.5
    assert thick.coverage().sum(0).mean() == pytest.approx(3.2, abs=0.5)


def test_polygon_of_value_zero_cuts_a_hole():
    from tools.synthetic_pairs.canvas import Canvas

    canvas = Canvas(64, np.eye(2, 3))
    canvas.circle((0, 0), 0.8)
    canvas.circle((0, 0), 0.4, value=0)
    assert canvas.coverage()[32, 32] == 0
    assert canvas.coverage()[32, 32 + 19] == 1


@pytest.mark.parametrize("split", ["train", "val"])
def test_scene_depends_on_its_seed_alone_and_has_a_subject(pictures, split):
    from tools.synthetic_pairs.scene import scene
    from tools.synthetic_pairs.sources import find_sources

    sources = find_sources(pictures, split)
    for seed in range(12):
        one, other = (scene(np.random.default_rng(seed), sources, split, 96) for _ in range(2))
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
        colours, alpha = one
        assert colours.shape == (96, 96, 3) and alpha.shape == (96, 96)
        assert colours.dtype == alpha.dtype == np.float32
        assert min(colours.min(), alpha.min()) >= 0 and max(colours.max(), alpha.max()) <= 1
        assert alpha.mean() > 0.002


def test_simple_scene_is_light_on_dim():
    from tools.synthetic_pairs.scene import simple_scene

    for seed in range(12):
        colours, alpha = simple_scene(np.random.default_rng(seed), "train", 96)
        assert colours.shape == (96, 96, 3) and alpha.shape == (96, 96)
        assert colours.dtype == alpha.dtype == np.float32
        assert colours[alpha > 0.9].mean() > 1.5 * colours[alpha < 0.1].mean()


def test_validation_has_shapes_that_training_has_not():
    from tools.synthetic_pairs.scene import HELD_OUT, SHAPES

    names = {split: {shape.__name__ for shape in shapes} for split, shapes in SHAPES.items()}
    assert names["val"] - names["train"] == set(HELD_OUT)


def test_sources_of_the_splits_share_no_file_and_leave_a_quarter_out(pictures):
    from tools.synthetic_pairs.sources import find_sources

    found = {split: find_sources(pictures, split) for split in ("train", "val")}
    for kind in ("cutouts", "photographs", "subjects"):
        names = {s: {p.name for p in getattr(found[s], kind) if pictures in p.parents} for s in found}
        assert not names["train"] & names["val"]
        assert len(names["train"]) == 10 and len(names["val"]) == 2
    # "7.png.png" is cut from the photograph "7.png", and belongs where that belongs.
    assert {p.stem for p in found["train"].subjects} == {p.name for p in found["train"].cutouts}


def test_flat_cards_are_no_photographs(tmp_path):
    from tools.synthetic_pairs.sources import _is_photograph

    Image.new("RGB", (64, 64), "white").save(tmp_path / "card.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert not _is_photograph(tmp_path / "card.png")
    assert _is_photograph(tmp_path / "noise.png")


def test_grabcut_finds_a_disc_in_the_middle():
    from tools.synthetic_pairs.cut_photographs import cut

    y, x = np.mgrid[0:96, 0:96]
    disc = np.hypot(x - 48, y - 52) < 24
    rng = np.random.default_rng(0)
    colour = np.where(disc[..., None], (220, 60, 40), (40, 90, 160)) + rng.normal(0, 6, (96, 96, 3))
    mask = cut(np.clip(colour, 0, 255).astype(np.uint8))
    assert ((mask > 127) == disc).mean() > 0.98


def run(out: Path, count: int, *flags: str) -> None:
    command = [sys.executable, TOOL / "render.py", "--out", out, "--count", str(count), "--val", "2"]
    subprocess.run([*command, "--size", "64", "--workers", "1", *flags], check=True, capture_output=True)


def test_command_resumes_and_a_longer_set_begins_with_a_shorter_one(tmp_path, pictures):
    run(tmp_path, 3, "--sources", str(pictures))
    first = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*.png"))}
    assert len(first) == 5
    stamp = (tmp_path / "train" / "gt" / "000000.png").stat().st_mtime_ns
    run(tmp_path, 5, "--sources", str(pictures))
    assert {path: path.read_bytes() for path in first} == first
    assert (tmp_path / "train" / "gt" / "000000.png").stat().st_mtime_ns == stamp
    assert len(list((tmp_path / "train" / "im").iterdir())) == len(list((tmp_path / "train" / "gt").iterdir())) == 5


def test_command_needs_no_sources_and_refuses_a_folder_that_is_not_there(tmp_path):
    run(tmp_path / "out", 1)
    assert (tmp_path / "out" / "train" / "im" / "000000.jpg").exists()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(tmp_path / "other", 1, "--sources", str(tmp_path / "nowhere"))
    assert b"no such folder" in caught.value.stderr


def test_command_refuses_other_settings_in_the_folder_of_a_set(tmp_path):
    run(tmp_path, 1, "--seed", "3")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    for flags in (("--seed", "4"), ("--seed", "3", "--simple"), ("--seed", "3", "--size", "96")):
        with pytest.raises(subprocess.CalledProcessError) as caught:
            run(tmp_path, 2, *flags)
        assert b"holds pairs of another kind" in caught.value.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize("flags", [("--val=-1",), ("--size", "0"), ("--workers", "0"), ("--count=-1",)])
def test_command_refuses_numbers_that_mean_nothing(tmp_path, flags):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(tmp_path / "out", 1, *flags)
    assert b" or more" in caught.value.stderr and b"Traceback" not in caught.value.stderr
    assert not (tmp_path / "out").exists()


def test_command_refuses_a_share_above_one(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(tmp_path, 1, "--hard", "50")
    assert b"--hard 50: expected a share in 0 ... 1" in caught.value.stderr
    assert not list(tmp_path.iterdir())


def test_command_renders_simple_pairs(tmp_path):
    run(tmp_path, 1, "--simple")
    assert (tmp_path / "train" / "gt" / "000000.png").exists()
