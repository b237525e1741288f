"""What reaches the terminal: any encoding, a reader that goes, signals, progress without a terminal."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birefnet_core.cli import console
from birefnet_core.cli.main import exit_code, main

ROOT = Path(__file__).resolve().parents[2]

SLOW = pytest.mark.slow  # processes that import torch, for what another one shows, too


def start(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **options.pop("environment", {})}
    command = [sys.executable, "-m", "birefnet_core", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, text=True, errors="replace", **options)


@pytest.mark.parametrize(
    "arguments",
    [("checkpoints",), ("checkpoints", "--json"), ("--help",), pytest.param(("segment", "--help"), marks=SLOW)],
)
def test_a_reader_that_goes_at_once_leaves_no_traceback(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    process = start(*arguments, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, error = process.communicate(timeout=100)
    assert (process.returncode, error) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_output_that_cannot_be_written_is_told():
    with open("/dev/full", "w") as full:
        process = start("checkpoints", stdout=full, stderr=subprocess.PIPE)
        _, error = process.communicate(timeout=100)
    assert process.returncode == 1
    assert error == "error: standard output cannot be written (No space left on device).\n"


ENCODINGS = ["ascii", "cp1252", "latin-1"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_signs_that_a_console_lacks_are_replaced(stub_segmenter, tmp_path, monkeypatch, encoding):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "猫.jpg").write_bytes(b"no image")
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert main(["segment", "猫.jpg", "-o", "猫", "--device", "cpu", "--dtype", "fp32"]) == 1
    output, error = (stream.buffer.getvalue().decode(encoding) for stream in streams.values())
    assert "Error" not in error
    assert "0 of 1 images" in output
    assert r"\u732b" in error


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_signs_that_a_console_lacks_are_replaced_in_a_process(tmp_path, encoding):
    (tmp_path / "猫.jpg").write_bytes(b"no image")
    environment = {"PYTHONIOENCODING": encoding}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": tmp_path, "environment": environment}
    process = start("segment", "猫.jpg", "-o", "猫", "--model", "demo", "--quiet", **options)
    output, error = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "Error" not in error
    assert "0 of 1 images" in output
    assert r"\u732b" in error


def test_streams_without_encoding_are_fine(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    console.prepare_streams()
    console.say("a")
    console.say("b", error=True)
    console.flush_streams()
    assert sys.stdout.getvalue() == "a\n"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        *(pytest.param(*other, marks=SLOW) for other in ((signal.SIGHUP, 143), (signal.SIGINT, 130))),
    ],
)
def test_signals_end_a_command_in_order(tmp_path, number, code):
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    for index in range(40):
        Image.fromarray(noise).save(tmp_path / "in" / f"{index:02}.bmp")
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": tmp_path}
    process = start("segment", "in", "-o", "out", "--model", "demo", "--size", "64", "--cutout", **options)
    out, end = tmp_path / "out", time.monotonic() + 100
    while time.monotonic() < end and not (out.exists() and list(out.glob(".*.part"))):
        time.sleep(0.001)
    process.send_signal(number)
    output, error = process.communicate(timeout=100)
    assert process.returncode == code
    assert error.endswith("interrupted\n")
    assert "Traceback" not in error
    assert "images segmented" in output
    assert not list(out.glob(".*"))
    for path in out.iterdir():
        Image.open(path).load()


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("command", "terminated"),
    [(["-m", "birefnet_core", "segment"], 143), (["train/finetune.py"], 130), (["train/ablation.py"], 130)],
)
def test_a_signal_while_a_command_is_imported_ends_it_in_order(tmp_path, command, terminated, number):
    (tmp_path / "torch.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{number})\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    options = {"env": environment, "cwd": ROOT, "capture_output": True, "text": True, "timeout": 100}
    done = subprocess.run([sys.executable, *command, "--data", "d", "--out", "o"], **options)
    code = terminated if number == "SIGTERM" else 130
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "interrupted\n")


def test_signals_are_as_before_after_a_command(capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert main(["checkpoints"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_broken_pipe_that_is_not_the_output_is_a_fault():
    def run() -> int:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        exit_code(run)


def test_no_memory_is_a_sentence(capsys):
    def run() -> int:
        raise MemoryError

    assert exit_code(run) == 2
    assert capsys.readouterr().err.startswith("error: out of memory")


def test_progress_is_lines_where_there_is_no_terminal(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.Progress(400, unit="image", label="demo") as progress:
        for _ in range(400):
            now[0] += 1.5
            progress.step()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "demo: 1 of 400 images, 0:02, about 9:58 left"
    assert lines[-1] == "demo: 400 of 400 images, 10:00"
    assert 50 < len(lines) < 70


def test_quiet_progress_says_nothing(capsys):
    with console.Progress(2, unit="image", quiet=True) as progress:
        progress.step()
        progress.show(2, 2)
    assert capsys.readouterr().err == ""


def test_logged_names_are_escaped(capsys):
    import logging

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(console.Formatter("%(message)s"))
    handler.handle(logging.LogRecord("a", logging.INFO, "", 0, "layer %s\nnext", ("\x1b[31m",), None))
    assert capsys.readouterr().err == "layer \\x1b[31m\nnext\n"
