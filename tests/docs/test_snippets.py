"""What the README prints runs as it is printed, with nothing but a photograph, folders and a clip of these names."""

import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from birefnet_core.cli.main import build_parser, main

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
SNIPPETS = [block for language, block in BLOCKS if language == "python"]
COMMANDS = [line for _, block in BLOCKS for line in block.splitlines() if line.startswith("birefnet ")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with what the snippets read."""
    with Image.open(ROOT / "tests" / "fixtures" / "dancer.jpg") as photo:
        small = photo.resize((85, 100))
    for name in ("photo.jpg", "folder/b.png", "more/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        small.save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", SNIPPETS, ids=range(len(SNIPPETS)))
def test_python_runs(code, folder):
    (folder / "snippet.py").write_text(code, encoding="utf-8")
    runpy.run_path(str(folder / "snippet.py"))
    assert (folder / "mask.png").is_file() or (folder / "mine.safetensors").is_file()


@pytest.mark.parametrize("export", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "export too"])
def test_commands_run(folder, export):
    """All but the export of a network, which takes as long as all others; its arguments are understood."""
    if export:
        pytest.importorskip("onnxscript")
    av = pytest.importorskip("av")
    with av.open(str(folder / "clip.mp4"), "w") as clip:
        stream = clip.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for n in range(2):
            pixels = torch.full((64, 64, 3), 60 * n, dtype=torch.uint8).numpy()
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        clip.mux(stream.encode())
    assert len(COMMANDS) >= 5
    for line in COMMANDS:
        if " evaluate " in line:  # against themselves
            shutil.copytree(folder / "masks", folder / "ground_truth")
        arguments = shlex.split(line, comments=True)[1:]
        if " export " in line and not export:
            build_parser("export").parse_args(arguments)
        else:
            assert main(arguments) == 0, line
    expected = {"masks/photo.png", "cutout.webm"} | ({"demo.onnx"} if export else set())
    assert expected <= {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_both_sections_begin_with_how_to_install():
    for section in ("Python library", "Command line"):
        text = README.partition(f"## {section}\n")[2].strip()
        assert text.startswith("```\npip install")
