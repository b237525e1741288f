"""The example that fine-tunes on cracks."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import birefnet_core as bc

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "cracks.py"


@pytest.fixture(scope="module")
def cracks():
    spec = importlib.util.spec_from_file_location("cracks_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photographs(tmp_path):
    """A folder with one photograph: red where training cuts, blue where the test does."""
    folder = tmp_path / "surfaces"
    folder.mkdir()
    pixels = np.random.RandomState(0).randint(200, 255, (100, 400, 3)).astype(np.uint8)
    pixels[:, :240, 1:] //= 8
    pixels[:, 240:, :2] //= 8
    Image.fromarray(pixels).save(folder / "wall.png")
    return folder


def test_test_surfaces_come_from_other_parts_and_the_same_data_again(cracks, photographs, tmp_path):
    surfaces = cracks.read_surfaces(photographs, 64)
    sets = [cracks.make_data(tmp_path / str(i), surfaces, 3, 64, test=i > 1) for i in (0, 1, 2)]
    images, masks = (
        [[np.asarray(Image.open(path)).astype(int) for path in sorted((s / kind).iterdir())] for s in sets]
        for kind in ("images", "masks")
    )
    assert all((image[..., 0] >= image[..., 2]).all() for image in images[0])
    assert all((image[..., 0] <= image[..., 2]).all() for image in images[2])
    assert all((one == other).all() for one, other in zip(images[0], images[1], strict=True))
    for image, mask in zip(images[0], masks[0], strict=True):
        assert set(np.unique(mask)) == {0, 255}
        assert image[mask > 0].mean() < 0.7 * image[mask == 0].mean()


def test_surfaces_that_will_not_do_are_named(cracks, photographs, tmp_path):
    with pytest.raises(bc.ConfigError, match=r"wall.png: 400 x 100 pixels are too few.*expected at least 401 x 160"):
        cracks.read_surfaces(photographs, 320)
    with pytest.raises(bc.ConfigError, match="no photographs"):
        cracks.read_surfaces(tmp_path / "missing", 64)
    (photographs / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(bc.ImageError, match=r"broken.jpg"):
        cracks.read_surfaces(photographs, 64)


def test_folder_with_other_files_is_not_taken_for_data(cracks, photographs, tmp_path, capsys):
    (tmp_path / "train" / "images").mkdir(parents=True)
    (tmp_path / "train" / "images" / "mine.png").touch()
    assert cracks.main(["--output", str(tmp_path), "--surfaces", str(photographs), "--size", "64"]) == 2
    assert "mine.png" in capsys.readouterr().err


def test_output_that_cannot_be_is_said(cracks, photographs, capsys):
    output = photographs / "wall.png" / "out"
    assert cracks.main(["--output", str(output), "--surfaces", str(photographs), "--size", "64"]) == 2
    assert "wall.png is a file; --output needs a folder" in capsys.readouterr().err


@pytest.mark.slow
def test_example_trains_compares_and_draws(cracks, photographs, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--output", str(out), "--surfaces", str(photographs), "--images", "4", "--epochs", "1", "--size", "64"]
    assert cracks.main(flags) == 0
    before, after = (line.split() for line in capsys.readouterr().out.splitlines()[1:3])
    assert (before[0], after[0]) == ("before", "after")
    assert len(before) == len(after) == 1 + len(cracks.SCORES)
    assert Image.open(out / "cracks.png").size == (4 * 68, 16 + 68)
    assert bc.load_model(out / "run" / "best.safetensors").checkpoint.training_size == (64, 64)
    assert cracks.main([*flags, "--resume"]) == 0  # nothing is left to do
    assert cracks.main(flags) == 2
    assert "--resume" in capsys.readouterr().err
