"""Fuzzing: cases are repeatable, failures of every kind are found and made small, and the pack has none."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tools.fuzz import checks, containers, mutations, sources
from tools.fuzz.run import PARTS, draw_case, fuzz
from tools.fuzz.worker import Failure, Worker


@pytest.mark.parametrize("part", ["images", "recipes", "commands"])
def test_a_case_depends_on_seed_part_and_number_alone(part):
    files = PARTS[part][1]()
    cases = [draw_case(3, part, number, files) for number in range(20)]
    assert cases == [draw_case(3, part, number, files) for number in range(20)]
    assert len({case.content() for case in cases}) > 15
    assert draw_case(4, part, 0, files) != cases[0]


def test_containers_come_back_as_they_were():
    for suffix, content in sources.images():
        parts = containers.split(content, suffix)
        assert not parts or containers.join(parts, suffix) == content


def test_mutations_of_any_content_do_not_fail():
    rng = random.Random(0)
    for suffix in (".png", ".pth", ".safetensors", ".toml", ".args"):
        for content in (
            b"",
            b"x",
            b"PK\x03\x04" + bytes(30),
            b"\x89PNG\r\n\x1a\n\0\0\0\x09IHDR",
            b"RIFF\0\0\0\0WEBPVP8 \xff",
        ):
            for _ in range(40):
                mutations.apply(content, [mutations.draw(rng, content, suffix)], suffix)


def fail(path):
    if path.read_bytes().count(b"\xff") > 4:
        raise KeyError("planted")


@pytest.mark.slow
def test_a_fault_is_found_once_made_small_and_written_with_a_program(tmp_path, monkeypatch):
    monkeypatch.setitem(checks.CHECKS, "image", fail)
    report = fuzz(1, 60, ["images"], tmp_path, most=10)
    (folder,) = report.failures
    assert report.outcomes["images"]["FAILED"] == report.failures[folder] > 1
    (case,) = folder.glob("case.*")
    assert case.read_bytes() == b"\xff" * 5
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, folder / "reproduce.py"], capture_output=True, text=True, env=environment)
    assert done.stdout == "no failure: ImageError\n", done.stderr  # without what was planted
    assert "KeyError: 'planted'" in (folder / "reproduce.py").read_text()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork")
@pytest.mark.parametrize(
    ("check", "kind"),
    [
        (lambda path: os.kill(os.getpid(), signal.SIGKILL), "exit -9"),
        (lambda path: time.sleep(60), "no end"),
        (lambda path: path.write_bytes(b""), "the input was changed"),
        (lambda path: path.with_name("x.part").touch(), "temporary files were left"),
        (lambda path: sys.exit(3), "SystemExit"),
    ],
)
def test_crashes_hangs_and_what_is_left_are_failures(monkeypatch, check, kind):
    monkeypatch.setitem(checks.CHECKS, "image", check)
    with Worker(seconds=1.5) as worker:
        found = worker.run("image", b"content", ".png")
        assert isinstance(found, Failure)
        assert kind in found.kind
        monkeypatch.undo()


@pytest.mark.parametrize("part", ["images", "masks", "recipes", "commands"])
def test_nothing_is_found_in_a_few_cases(part, tmp_path):
    assert fuzz(0, 60, [part], tmp_path, most=15).text().count("FAILED") == 0


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_found_in_a_minute(part, tmp_path):
    report = fuzz(0, 60, [part], tmp_path)
    assert report.failures == {}, report.text()
