"""Signals that stop a training or a clip in order."""

import os
import signal

import pytest

from birefnet_core.stop_signal import StopSignal, interrupt_code


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
