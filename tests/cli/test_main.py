"""The console script: commands, help and exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import birefnet_core
from birefnet_core.cli.main import COMMANDS, build_parser, exit_code, main
from birefnet_core.errors import ConfigError
from birefnet_core.out_of_memory import OutOfMemoryError


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_of_its_own(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: birefnet {command}" in capsys.readouterr().out


def test_all_commands_are_listed(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    assert all(summary in listed for summary in COMMANDS.values())


def test_an_unknown_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as end:
        main(["segmentt"])
    assert end.value.code == 2
    assert "segmentt" in capsys.readouterr().err


def test_help_says_what_the_automatic_precision_is():
    help_text = build_parser("segment")._subparsers._group_actions[0].choices["segment"].format_help()
    assert "auto: fp16 on CUDA" in " ".join(help_text.split())


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [(ConfigError("no such size"), 2, "error: no such size\n"), (KeyboardInterrupt(), 130, "interrupted\n")],
)
def test_errors_become_exit_codes(error, code, message, capsys):
    def run() -> int:
        raise error

    assert exit_code(run) == code
    assert capsys.readouterr().err == message


def test_arguments_cannot_control_the_terminal(capsys):
    with pytest.raises(SystemExit):
        main(["segment", "a.png", "-o", "out", "--\x1b[31m\u202e"])
    said = capsys.readouterr().err
    assert "\\x1b[31m\\u202e" in said and "\x1b" not in said


@pytest.mark.skipif(os.name == "nt", reason="a folder in use cannot be deleted")
@pytest.mark.parametrize(
    "arguments",
    [["segment", "a.png", "-o", "out"], ["segment", "*.png", "-o", "/tmp"], ["evaluate", "--pred", "a", "--gt", "b"]],
)
def test_a_working_folder_that_was_deleted_is_a_sentence(tmp_path, monkeypatch, capsys, arguments):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert main(arguments) == 2
    assert "the working folder was deleted" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="a folder in use cannot be deleted")
def test_without_a_working_folder_torch_is_not_imported(tmp_path):
    """Its MKL would end the process, with a message about a library."""
    (tmp_path / "gone").mkdir()
    result = subprocess.run(
        ["sh", "-c", f'rmdir "$PWD" && exec "{sys.executable}" -m birefnet_core segment /a.png -o /out'],
        cwd=tmp_path / "gone",
        env={**os.environ, "PYTHONPATH": str(Path(birefnet_core.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: the working folder was deleted; change to one that is there.\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory. Tried"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["python", "cuda", "cpu"],
)
def test_memory_that_ran_out_is_a_sentence(error, capsys):
    def run() -> int:
        raise error

    assert exit_code(run) == 2
    assert capsys.readouterr().err == "error: out of memory; use a smaller checkpoint or size, or more memory.\n"


def test_errors_of_our_own_are_not_hidden():
    with pytest.raises(FileNotFoundError):
        exit_code(lambda: os.stat("nowhere"))
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="size"):
        exit_code(lambda: torch.zeros(2).add_(torch.zeros(3)).numel())


@pytest.mark.parametrize(
    ("arguments", "left", "hint"),
    [
        (["segment", "a.png", "--model", "demo", "b.png", "-o", "masks"], "b.png", True),
        (["video", "a.mp4", "--quiet", "b.mp4", "c.mp4", "-o", "out"], "b.mp4 c.mp4", True),
        (["segment", "a.png", "-o", "masks", "--nosuch"], "--nosuch", False),
        (["segment", "a.png", "-o", "masks", "--nosuch", "b.png"], "--nosuch b.png", False),
        (["checkpoints", "BiRefNet"], "BiRefNet", False),
    ],
)
def test_what_is_left_over_is_refused_with_the_commands_usage(capsys, arguments, left, hint):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert error.startswith(f"usage: birefnet {arguments[0]} ")
    assert f"birefnet {arguments[0]}: error: unrecognized arguments: {left}" in error
    assert ("give all inputs together, before the flags or after them" in error) == hint
