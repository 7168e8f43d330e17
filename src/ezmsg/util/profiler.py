"""The old profiler: decorators that write a line for each call to a file, kept for programs that use them.

Whoever wants to know how long messages take has it without any decorator: `GraphContext.subscribe_profiling_trace()`,
and OpenTelemetry.

Importing this module makes the logger `ezprofiler`, and its file with a header. Lines are written at level DEBUG only
(EZMSG_LOGLEVEL); otherwise a decorated function costs next to nothing more.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from ezmsg.core import config
from ezmsg.core.stream import type_name
from ezmsg.util.messages.axisarray import AxisArray

HEADER = "Time,Source,Topic,SampleTime,PerfCounter,Elapsed"
"""Columns: local time, class, address of its unit, time of a sample in s (None if the message has none), end of the
call in s of `time.perf_counter`, and how long it took, in ms."""

F = TypeVar("F", bound=Callable[..., Any])


def get_logger_path() -> Path:
    """The file: EZMSG_PROFILER, which may be a path, or ezprofiler.log; under ~/.ezmsg/profiler."""
    return Path.home() / ".ezmsg" / "profiler" / config.profiler_log()


def _setup_logger(append: bool = False) -> logging.Logger:
    """The logger, with the file as its only handler, made anew unless `append`; without, where it cannot be written."""
    logger = logging.getLogger("ezprofiler")
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    try:
        logger.setLevel(config.log_level())
    except ValueError:
        logger.setLevel(logging.INFO)
    path = get_logger_path()
    handler: logging.Handler
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, mode="a" if append else "w")
        if not path.stat().st_size:
            path.write_text(f"{HEADER}\n")
    except OSError as error:
        logging.getLogger("ezmsg").warning("the profiler cannot write to %s: %s", path, error)
        handler = logging.NullHandler()
    handler.setLevel(logging.DEBUG)
    handler.setFormatter(logging.Formatter("%(asctime)s,%(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z"))
    logger.addHandler(handler)
    return logger


logger = _setup_logger(append=True)


def profile_method(trace_oldest: bool = True) -> Callable[[F], F]:
    """Decorate a method of a unit: a line for each call.

    Args:
        trace_oldest: Name the time of the first sample of what it returns; otherwise of the last.
    """

    def decorate(function: F) -> F:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def profiled_coroutine(owner: Any, *args: Any, **kwargs: Any) -> Any:
                began_s = time.perf_counter()
                result = await function(owner, *args, **kwargs)
                _write(owner, result, began_s, trace_oldest)
                return result

            return profiled_coroutine  # type: ignore[return-value] - of the same signature

        @functools.wraps(function)
        def profiled(owner: Any, *args: Any, **kwargs: Any) -> Any:
            began_s = time.perf_counter()
            result = function(owner, *args, **kwargs)
            _write(owner, result, began_s, trace_oldest)
            return result

        return profiled  # type: ignore[return-value] - of the same signature

    return decorate


def profile_subpub(trace_oldest: bool = True) -> Callable[[F], F]:
    """Decorate a task that yields messages: a line for each, with the time it took to make it.

    Args:
        trace_oldest: Name the time of the first sample of the message; otherwise of the last.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        async def profiled(owner: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            began_s = time.perf_counter()
            async for stream, message in function(owner, *args, **kwargs):
                _write(owner, message, began_s, trace_oldest)
                yield stream, message
                began_s = time.perf_counter()

        return profiled  # type: ignore[return-value] - of the same signature

    return decorate


def _write(owner: Any, message: Any, began_s: float, trace_oldest: bool) -> None:
    if not logger.isEnabledFor(logging.DEBUG):
        return
    ended_s = time.perf_counter()
    source, topic = type_name(type(owner)), getattr(owner, "address", "")
    sample = _sample_time(message, trace_oldest)
    logger.debug("%s,%s,%s,%s,%.4f", source, topic, sample, ended_s, (ended_s - began_s) * 1e3)


def _sample_time(message: Any, is_oldest: bool) -> Any:
    if not isinstance(message, AxisArray) or "time" not in message.axes or "time" not in message.dims:
        return None
    size = message.shape[message.get_axis_idx("time")]
    return message.axes["time"].value(0 if is_oldest else size - 1) if size else None
