"""The thread that serves: it runs functions for others, and can be interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from typing import Any

import pytest

from ezmsg.core.runtime import mainthread
from ezmsg.core.runtime.mainthread import MainThread

DEADLINE_S = 40


@pytest.fixture
def main_thread() -> Iterator[MainThread]:
    """One whose interrupts are heard."""
    main_thread = MainThread()

    def handler(_number: int, _frame: Any) -> None:
        if main_thread.take_interrupt():
            main_thread.raise_if_due()

    main_thread.handler = handler
    before = signal.signal(signal.SIGINT, handler)
    yield main_thread
    signal.signal(signal.SIGINT, before)


def in_background(function: Any) -> None:
    threading.Thread(target=function, daemon=True).start()


def test_functions_run_in_the_thread_that_serves_until_the_end(main_thread: MainThread) -> None:
    found: list[Any] = []

    def ask() -> None:
        found.append(main_thread.run(lambda: threading.current_thread() is threading.main_thread()).result(DEADLINE_S))
        found.append(type(main_thread.run(lambda: 1 // 0).exception(DEADLINE_S)))
        main_thread.end()

    in_background(ask)
    main_thread.serve()
    assert found == [True, ZeroDivisionError]


def test_a_function_is_interrupted_once_while_it_waits(main_thread: MainThread) -> None:
    began = threading.Event()
    cleaned_up: list[bool] = []

    def sleep() -> None:
        try:
            began.set()
            threading.Event().wait(DEADLINE_S)
        finally:
            # A second interrupt must not disturb this.
            assert main_thread.interrupt()
            cleaned_up.append(not threading.Event().wait(0.01))

    def ask() -> None:
        future = main_thread.run(sleep)
        began.wait(DEADLINE_S)
        # A signal that comes just before it begins to wait does not wake it.
        main_thread.interrupt()
        while not wait([future], timeout=0.1).done:
            main_thread.interrupt()
        cleaned_up.append(isinstance(future.exception(), KeyboardInterrupt))
        main_thread.end()

    in_background(ask)
    main_thread.serve()
    assert cleaned_up == [True, True]


def test_an_interrupt_that_the_function_slept_through_comes_again(
    main_thread: MainThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = threading.Event()
    sent: list[int] = []
    pthread_kill = signal.pthread_kill

    def kill(thread_id: int, number: int) -> None:
        sent.append(number)
        if len(sent) > 1:  # the first came just before the thread fell asleep, which cannot be had on purpose
            pthread_kill(thread_id, number)

    monkeypatch.setattr(signal, "pthread_kill", kill)

    def wait() -> None:
        began.set()
        threading.Event().wait()

    def ask() -> None:
        future = main_thread.run(wait)
        began.wait(DEADLINE_S)
        main_thread.interrupt()
        future.exception(DEADLINE_S)
        main_thread.end()

    in_background(ask)
    main_thread.serve()
    assert len(sent) > 1


def test_a_handler_of_the_programs_own_is_called_once(main_thread: MainThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mainthread, "LOOK_UP_S", 0.001)
    began, asked = threading.Event(), threading.Event()
    calls: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: calls.append(number))  # the fixture puts back what was there

    def end_in_order() -> None:
        began.set()
        asked.wait(DEADLINE_S)
        while len(calls) < 2 and any(thread.name == "ezmsg interrupt" for thread in threading.enumerate()):
            threading.Event().wait(0.001)

    def ask() -> None:
        future = main_thread.run(end_in_order)
        began.wait(DEADLINE_S)
        main_thread.interrupt()
        asked.set()
        future.result(DEADLINE_S)
        main_thread.end()

    in_background(ask)
    main_thread.serve()
    assert calls == [signal.SIGINT]


def test_what_was_cancelled_before_it_began_does_not_run(main_thread: MainThread) -> None:
    future = main_thread.run(lambda: pytest.fail("it ran"))
    assert future.cancel()
    main_thread.end()
    main_thread.serve()


def test_elsewhere_than_in_the_main_thread_nothing_can_be_interrupted() -> None:
    main_thread = MainThread()
    gate = threading.Event()
    thread = threading.Thread(target=main_thread.serve, daemon=True)
    thread.start()
    future = main_thread.run(lambda: gate.wait(DEADLINE_S))
    assert not main_thread.interrupt()
    gate.set()
    assert future.result(DEADLINE_S) is True
    main_thread.end()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
