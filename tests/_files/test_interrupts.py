"""Ctrl-C waits for matrix and record; handlers of others are left alone."""

from __future__ import annotations

import signal
import threading

import pytest

from batchcorr._files.interrupts import uninterrupted


@pytest.fixture(autouse=True)
def same_handler_afterwards():
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_is_raised_when_the_block_is_done():
    done = []

    def work():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [True]


def test_ctrl_c_reaches_the_handler_that_was_set():
    pressed = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        with uninterrupted(), uninterrupted():
            signal.raise_signal(signal.SIGINT)
            assert pressed == []
        assert pressed == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_was_not_set_from_python_is_left_alone(monkeypatch):
    """`signal.getsignal` gives None for it, which `signal.signal` does not take back."""
    set_handlers = []
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *given: set_handlers.append(given))
    with uninterrupted():
        pass
    monkeypatch.undo()
    assert set_handlers == []


def test_other_threads_do_nothing():
    seen = []

    def work():
        with uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
