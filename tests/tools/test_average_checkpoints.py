"""The mean of checkpoints, whose logits are scaled."""

import sys

import pytest
import torch

import birefnet_core as bc
from tools import average_checkpoints

from ..conftest import SMALLEST

CONFIG = bc.BiRefNetConfig(**SMALLEST)


def saved(path, seed, config=CONFIG):
    torch.manual_seed(seed)
    return bc.save_checkpoint(bc.BiRefNet(config).eval(), path, training_size=(64, 64), licence="MIT")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two files of a network, and one of another."""
    folder = tmp_path_factory.mktemp("checkpoints")
    saved(folder / "a.safetensors", 0)
    saved(folder / "b.safetensors", 1)
    saved(folder / "other.safetensors", 0, CONFIG.replace(context_fusion=0))
    return folder


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["average_checkpoints.py", *map(str, arguments)])
    return average_checkpoints.main()


def test_the_mean_has_scaled_logits(tmp_path, monkeypatch):
    orders = enumerate(bc.PatchOrder)  # of files; in memory there is one
    files = [saved(tmp_path / f"{i}.safetensors", i, CONFIG.replace(patch_order=order)) for i, order in orders]
    plain, scaled = tmp_path / "plain.safetensors", tmp_path / "scaled.safetensors"
    assert run(monkeypatch, *files, "--parts", 3, 1, "--out", plain) == 0
    assert run(monkeypatch, *files, "--parts", 3, 1, "--scale", 2, "--shift", 1, "--out", scaled) == 0
    first, second = (bc.load_model(file).state_dict() for file in files)
    mean = bc.load_model(plain)
    for name, value in mean.state_dict().items():
        expected = 0.75 * first[name] + 0.25 * second[name] if value.is_floating_point() else first[name]
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-6)
    assert (mean.checkpoint.training_size, mean.checkpoint.licence) == ((64, 64), "MIT")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits, changed = mean(image).logits, bc.load_model(scaled)(image).logits
    torch.testing.assert_close(changed, 2 * logits + 1, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b", "--parts", 1], "one part of at least 0 for each file"),
        (["a", "b", "--parts", 1, -1], "one part of at least 0 for each file"),
        (["a", "--scale", 0], "a scale above 0"),
        (["a", "other"], "different networks"),
        (["a", "missing"], "missing"),
    ],
)
def test_what_cannot_be_averaged_is_said(folder, tmp_path, monkeypatch, capsys, arguments, message):
    names = [folder / f"{a}.safetensors" if str(a).isalpha() else a for a in arguments]
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *names, "--out", tmp_path / "out.safetensors")
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


def test_an_existing_file_is_kept(folder, monkeypatch, capsys):
    file = folder / "a.safetensors"
    before = file.read_bytes()
    with pytest.raises(SystemExit):
        run(monkeypatch, file, "--out", file)
    assert "exists; choose another name" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_a_name_that_is_too_long_is_said(folder, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, folder / "a.safetensors", "--out", tmp_path / f"{'x' * 300}.safetensors")
    said = " ".join(capsys.readouterr().err.split())
    assert "not written" in said and "too long" in said
