"""Signals that stop a training or a clip in order."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from birefnet_core.cli import main
from birefnet_core.stop_signal import StopSignal, interrupt_code, lost_interrupts_return


@pytest.mark.parametrize("number", [number for number in StopSignal.SIGNALS if number != signal.SIGHUP])
def test_signal_interrupts_at_first_and_is_noted_once_the_loop_runs(number):
    former = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as interrupt, StopSignal():
        os.kill(os.getpid(), number)
    assert interrupt_code(interrupt.type) == 128 + number, "as in shells"
    with StopSignal() as stop:
        stop.graceful = True
        os.kill(os.getpid(), number)
        assert stop.requested
        assert signal.getsignal(number) == former, "a second one ends the process"


def test_signals_that_the_shell_ignores_stay_ignored():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a job in the background of a script
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGINT, former)


def test_a_terminal_that_closes_stops_a_training_in_order_unless_it_is_ignored():
    former = signal.getsignal(signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt), StopSignal():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == former
    with StopSignal() as stop:
        stop.graceful = True
        for _ in range(2):  # one comes from the terminal, one from the shell
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.requested
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with StopSignal() as stop:  # under nohup
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, former)


LOST = """
import signal, sys, time, weakref
from birefnet_core.cli.console import signals_interrupt
from birefnet_core.cli.main import exit_code

class Finalized:
    def __del__(self):
        if sys.argv[2] == "del":
            signal.raise_signal(int(sys.argv[1]))

def run():
    one = Finalized()
    watched = weakref.ref(one, lambda _: sys.argv[2] == "weakref" and signal.raise_signal(int(sys.argv[1])))
    del one
    time.sleep(30)
    return 0

with signals_interrupt():
    sys.exit(exit_code(run))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals that are sent to a process end it")
@pytest.mark.parametrize("place", ["del", "weakref"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_an_interrupt_where_python_ignores_exceptions_is_not_lost(number, code, place):
    """The import system has such callbacks: a command that was stopped meanwhile went on to its end."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", LOST, str(int(number)), place],
        env=environment,
        capture_output=True,
        text=True,
        timeout=25,
    )
    assert (done.returncode, done.stderr) == (code, "interrupted\n")


def test_other_exceptions_that_are_ignored_are_told_as_before(capsys, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with lost_interrupts_return():
        Broken()
    assert [lost.exc_type for lost in told] == [ValueError]
    assert sys.unraisablehook == told.append


class Broken:
    def __del__(self):
        raise ValueError


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_that_an_import_keeps_to_itself_ends_the_command(number, code, monkeypatch, capsys):
    def build_parser(command):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        return parser(command)

    parser = main.build_parser
    monkeypatch.setattr(main, "build_parser", build_parser)
    former = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:
        assert main.main(["checkpoints"]) == code
    finally:
        signal.signal(number, former)
    assert capsys.readouterr().err == "interrupted\n"
