"""The decorators that say what a unit runs. They only mark functions; the metaclass of units gathers what is marked."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from ezmsg.core.errors import DecoratorError
from ezmsg.core.stream import InputStream, OutputStream

MAIN_ATTR = "__ez_main__"
THREAD_ATTR = "__ez_thread__"
TASK_ATTR = "__ez_task__"
PUBLISHES_ATTR = "__ez_publishes__"
SUBSCRIBES_ATTR = "__ez_subscribes__"
TIMEIT_ATTR = "__ez_timeit__"
ZERO_COPY_ATTR = "__ez_zerocopy__"
PROCESS_ATTR = "__ez_process__"
LEAKY_ATTR = "__ez_leaky__"
MAX_QUEUE_ATTR = "__ez_max_queue__"
WORK_ATTRS = (TASK_ATTR, MAIN_ATTR, THREAD_ATTR)
"""The marks of what a unit runs."""

Function = Callable[..., Any]
F = TypeVar("F", bound=Function)
C = TypeVar("C", bound=type)
UNSET: Any = object()


def is_marked(value: Any, mark: str) -> bool:
    """Whether a decorator set `mark` on a function, or on what a static or class method holds."""
    held = value.__func__ if type(value) in (staticmethod, classmethod) else None
    return any(getattr(it, "__dict__", {}).get(mark, False) for it in (value, held))


def publisher(stream: OutputStream) -> Callable[[F], F]:
    """Mark a task that publishes on `stream`, by yielding `(stream, message)`. May be repeated.

    Raises:
        ValueError: `stream` is no OutputStream.
    """
    if not isinstance(stream, OutputStream):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _refusal("publisher", f"a task publishes on an OutputStream, not on {stream!r:.100}")

    def mark(function: F) -> F:
        _mark("publisher", function, TASK_ATTR)
        setattr(function, PUBLISHES_ATTR, [*getattr(function, PUBLISHES_ATTR, ()), stream])
        return function

    return mark


def subscriber(stream: InputStream, zero_copy: bool = UNSET) -> Callable[[F], F]:
    """Mark a task that is called with every message of `stream`.

    Args:
        stream: What it receives from; one per task.
        zero_copy: Deprecated and ignored: messages of a stream that is not leaky are never copied.

    Raises:
        ValueError: `stream` is no InputStream, or the task receives from another one.
    """
    if not isinstance(stream, InputStream):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _refusal("subscriber", f"a task receives from an InputStream, not from {stream!r:.100}")
    if zero_copy is not UNSET:
        warnings.warn(
            "subscriber(zero_copy=...) is deprecated and ignored: only leaky streams copy messages",
            DeprecationWarning,
            stacklevel=2,
        )

    def mark(function: F) -> F:
        if hasattr(function, SUBSCRIBES_ATTR):
            raise _refusal("subscriber", "a task can receive from one InputStream only", function)
        _mark("subscriber", function, TASK_ATTR)
        setattr(function, SUBSCRIBES_ATTR, stream)
        setattr(function, LEAKY_ATTR, stream.leaky)
        setattr(function, MAX_QUEUE_ATTR, stream.max_queue)
        setattr(function, ZERO_COPY_ATTR, not stream.leaky)
        return function

    return mark


def task(function: F) -> F:
    """Mark an async function that is started once, when the unit runs."""
    return _mark("task", function, TASK_ATTR)


def main(function: F) -> F:
    """Mark a plain function that runs in the main thread of the unit's process; one per process."""
    _must_be_plain("main", function)
    return _mark("main", function, MAIN_ATTR)


def thread(function: F) -> F:
    """Deprecated: mark a plain function that runs in a worker thread once the unit runs."""
    warnings.warn(
        "thread is deprecated: start the thread in initialize(), or use asyncio.to_thread in a task",
        DeprecationWarning,
        stacklevel=2,
    )
    _must_be_plain("thread", function)
    return _mark("thread", function, THREAD_ATTR)


def process(cls: C) -> C:
    """Mark a class of units each of which always runs in a process of its own.

    Raises:
        ValueError: It is no class.
    """
    if not isinstance(cls, type):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _refusal("process", f"it marks classes of units, not {cls!r:.100}")
    setattr(cls, PROCESS_ATTR, True)
    return cls


def timeit(function: F) -> F:
    """Mark a task whose publishing is timed in the log."""
    return _mark("timeit", function, TIMEIT_ATTR)


def _mark(decorator: str, function: F, mark: str) -> F:
    try:
        setattr(function, mark, True)
    except AttributeError:
        raise _refusal(decorator, f"it marks functions, not {function!r:.100}") from None
    return function


def _must_be_plain(decorator: str, function: Function) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise _refusal(decorator, "what runs in a thread is a plain function, not an async one", function)


def _refusal(decorator: str, reason: str, function: Any = None) -> DecoratorError:
    name = None if function is None else getattr(function, "__qualname__", repr(function))
    return DecoratorError(decorator, name, _place(), reason)


def _place() -> str:
    """Where the decorator stands: the function below it may not be there yet."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals is globals():
        frame = frame.f_back
    if frame is None:
        return "unknown place"
    # Only the body of a class has this among its variables.
    owner = frame.f_locals.get("__qualname__")
    where = f"{frame.f_code.co_filename}, line {frame.f_lineno}"
    return where if owner is None else f"class {owner}, {where}"
