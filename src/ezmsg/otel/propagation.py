"""Where the context of OpenTelemetry and the current message of the graph meet.

A task that handles a sampled message has the span of that processing as its current span, so that spans of the
OpenTelemetry API and log records join the trace. `JoinedContext` finds that out when it is asked: messages pay nothing.
`inject` and `extract` carry a trace over the borders of the graph, as W3C `traceparent`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import context as api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ezmsg.core.currentmessage import (
    Surroundings,
    get_current_message,
    reset_current_message,
    set_current_message,
    set_outer_trace,
)

_RUNTIME: Final = "_RUNTIME_CONTEXT"
"""What the functions of `opentelemetry.context` ask; its own door is an environment variable, read too early for us."""
_WITHIN: Final = api.create_key("ezmsg-message")
"""In a context that was attached while a sampled message was current: the ids of that message."""
_PROPAGATOR: Final = TraceContextTextMapPropagator()

logger = logging.getLogger("ezmsg.otel")

Ids = tuple[bytes, int]
"""Trace id and span id, as the graph has them."""


class JoinedContext:
    """The runtime context of OpenTelemetry, with the current message as what was made current last, if it was."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def attach(self, context: Context) -> Any:
        """Make a context current; within a message it wins over that."""
        ids = _ids_of_message()
        return self._runtime.attach(context if ids is None else Context({**context, _WITHIN: ids}))

    def get_current(self) -> Context:
        """The context attached last, or the span of the current message if that came later."""
        return _with_message(self._runtime.get_current())

    def detach(self, token: Any) -> None:
        """Make the context before the current one current again."""
        self._runtime.detach(token)


def install() -> None:
    """Join spans and log records of this program with the traces of its messages."""
    runtime = getattr(api, _RUNTIME, None)
    if runtime is None:
        logger.warning(
            "this version of OpenTelemetry keeps its context elsewhere: spans of the program do not join ours"
        )
    elif not isinstance(runtime, JoinedContext):
        setattr(api, _RUNTIME, JoinedContext(runtime))
    set_outer_trace(_ids_of_span)


def inject(carrier: MutableMapping[str, str]) -> None:
    """Write the `traceparent` of what is current into the headers of a request, for example of a sink to a service.

    That is the span of the current message if it is sampled, or a span of the OpenTelemetry API that was opened within
    it or without any. Without a trace nothing is written. `tracestate` and baggage do not pass through the graph.
    """
    _PROPAGATOR.inject(carrier, _with_message(api.get_current()))


@contextmanager
def extract(carrier: Mapping[str, str]) -> Generator[None]:
    """Continue the trace that the headers of a request tell of, with everything published within the block.

        with ezmsg.otel.extract(request.headers):
            await publisher.broadcast(message)

    Whether it is sampled was decided where it began: the rate of traces that begin here does not count. Without a
    (valid) `traceparent` the block changes nothing. Names of headers may be in any case.
    """
    headers = {name.lower(): value for name, value in carrier.items()}
    came = trace.get_current_span(_PROPAGATOR.extract(headers, Context())).get_span_context()
    if not came.is_valid:
        yield
        return
    token = set_current_message(Surroundings(_ids(came) if came.trace_flags.sampled else None))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # left in another context: an async generator that the loop closed
            reset_current_message(token)


def _with_message(context: Context) -> Context:
    ids = _ids_of_message()
    if ids is None or context.get(_WITHIN) == ids:
        return context
    came = SpanContext(
        int.from_bytes(ids[0], "big"), ids[1], is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
    return trace.set_span_in_context(NonRecordingSpan(came), context)


def _ids_of_message() -> Ids | None:
    message = get_current_message()
    return None if message is None else message.own_trace


def _ids_of_span() -> Ids | None:
    """The current span of the program, if it is sampled: a trace that begins in the graph becomes part of its trace."""
    current = trace.get_current_span().get_span_context()
    return _ids(current) if current.is_valid and current.trace_flags.sampled else None


def _ids(span: SpanContext) -> Ids:
    return span.trace_id.to_bytes(16, "big"), span.span_id
