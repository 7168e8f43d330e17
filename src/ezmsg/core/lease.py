"""The leases of a subscriber on messages that it took from its inbox, and what user code measures within them."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from contextvars import Token
from types import TracebackType
from typing import Any, Self

from ezmsg.core.currentmessage import (
    LATER,
    CurrentMessage,
    Input,
    get_current_message,
    reset_current_message,
    set_current_message,
)
from ezmsg.core.inbox import INPUTS, Inbox
from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.messagechannel import Subscription
from ezmsg.core.messagemarshal import is_frozen
from ezmsg.core.profiling import PROFILE_TIME, TraceIds, message_clock, new_span_id, random_bits
from ezmsg.core.recorder.edge import Value
from ezmsg.core.recorder.rows import ROW_BYTES, SAMPLED, pack_row
from ezmsg.core.transport import Undecoded


class Lease:
    """Holds one message for the time of an `async with` block; its slot is free for the publisher afterwards.

    Within the block it is the `current_message` of the task: what the task publishes belongs to it. One is made per
    message, and without an `__init__`, which would double the time that takes: whoever makes it sets `inbox`.

    Attributes:
        inbox: Where the message is taken from.
        is_answered: Whether something was published that belongs to it.
        origin_s: When the first message of its chain was published, or of that of an input that is older.
        trace: Trace id and span id of what publishes are children of: this processing, when the message is sampled, or
            that of the last input that was. LATER while nobody has asked for them (see `known_trace`).
        links: Those of the other inputs; set where `trace` is.
        inputs: What the task handled before this message without publishing; set by `keep_context`.
        start_s: When the message was taken.
    """

    __slots__ = (
        "_ids", "_is_borrowed", "_left", "_message", "_number", "_token",
        "inbox", "inputs", "is_answered", "links", "origin_s", "start_s", "trace",
    )  # fmt: skip

    inbox: Inbox
    is_answered: bool
    origin_s: float
    trace: tuple[bytes, int] | None
    links: tuple[tuple[bytes, int], ...]
    inputs: tuple[Input, ...] | None
    start_s: float
    _ids: TraceIds
    _number: int
    _left: tuple[CachedMessage, float]
    _message: CachedMessage | None
    _token: Token[CurrentMessage | None]

    async def __aenter__(self) -> Any:
        inbox = self.inbox
        queue = inbox.queue
        while not queue:
            await inbox.arrival()
        self._message = message = queue.popleft()
        self.start_s = message_clock()
        self.is_answered = False
        self.origin_s = message.origin_s
        trace = message.trace
        if trace is None:
            self.trace = None
            if inbox.inputs:
                self._follow(None)
        else:
            if type(trace) is TraceIds:
                self.trace, self._ids, self._number = LATER, trace, message.message_id
            else:
                self.trace, self.links = (trace[0], random_bits(64) or 1), ()
            outer = get_current_message()
            if inbox.inputs or outer is not None:
                self._follow(outer)
        obj = message.obj
        if type(obj) is Undecoded:
            try:
                obj = message.subscription.channel.decode(message)
            except BaseException as error:
                self._release(message, type(error).__qualname__)
                raise
        self._token = set_current_message(self)
        if inbox.held is not None:
            inbox.others.append(inbox.held)
        inbox.held = self
        return obj

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[None]:
        # Not a coroutine: there is nothing to wait for, and awaiting a finished future costs less.
        inbox = self.inbox
        if inbox.others:
            inbox.let_go(self)
        else:
            inbox.held = None
        if self.is_answered:
            inbox.inputs = ()
        elif inbox.inputs is not None:
            inbox.remember(self)
        try:
            reset_current_message(self._token)
        except (ValueError, AttributeError):
            # Left in another context than it was entered in: an async generator that the loop closed. Or left by the
            # loop after its thread went on to the next.
            set_current_message(None)
        message = self._message
        assert message is not None
        subscription: Subscription = message.subscription
        metrics = subscription.metrics
        if kind is not None or not metrics.is_plain:
            if kind is not None or not metrics.selects_all or not metrics.processed_selected(message, self.start_s):
                self._release(message, None if kind is None else kind.__qualname__)
                return inbox.done
        else:
            # As `_release` does, inline: the common case.
            metrics.consumed += 1
            metrics.receiver.last_code = metrics.code
            publisher = message.publisher
            if publisher:
                meta, size = metrics.hop_meta, publisher
            else:
                meta, size = metrics.meta, message.size
                metrics.bytes += size
            if metrics.timed:
                ring, trace, own = metrics.ring, message.trace, self.trace
                if trace is None or own is None:
                    offset = ring.head
                    pack_row(
                        ring.buffer, offset & ring.mask, meta, message.message_id,
                        message.origin_s, message.publish_s, message.channel_s, self.start_s, message_clock(), size,
                    )  # fmt: skip
                    ring.head = offset + ROW_BYTES
                elif type(trace) is TraceIds:
                    offset = ring.head
                    pack_row(
                        ring.buffer, offset & ring.mask, meta | SAMPLED, message.message_id,
                        message.origin_s, message.publish_s, message.channel_s, self.start_s, message_clock(), size,
                    )  # fmt: skip
                    ring.head = end = offset + ROW_BYTES
                    _, extras, spans, samples = ring.marks
                    ring.marks = (end, extras, spans + (2 if publisher else 1), samples)
                elif publisher:
                    ring.put_hop(
                        meta, message.message_id,
                        message.origin_s, message.publish_s, message.channel_s, self.start_s, message_clock(),
                        publisher, trace, own[1],
                    )  # fmt: skip
                else:
                    if own is LATER:  # the publisher recorded the publish itself meanwhile
                        own = self._ids.process(self._number)
                    ring.put_span(
                        meta, message.message_id,
                        message.origin_s, message.publish_s, message.channel_s, self.start_s, message_clock(), size,
                        trace[0], own[1], trace[1], 0.0, 0, 0,
                    )  # fmt: skip
            elif publisher:
                subscription.channel.record_publish(message)
        self._message = None  # a task begun in the block may keep the lease as its context
        if message.shared is None:
            subscription.channel.acknowledge(message.message_id)
        else:
            subscription.channel.release(message)
        if inbox.retired:
            inbox.sweep()
        return inbox.done

    def _follow(self, outer: CurrentMessage | None) -> None:
        """Take over what this task handled before, and, if this message is sampled, what it still holds around it."""
        inputs = self.inbox.inputs_here() or ()
        if isinstance(outer, Lease) and outer.is_held:
            # Its origin does not count, as it would not if this message were not sampled.
            inputs = (*inputs, (self.origin_s, outer.known_trace()))
        if inputs:
            self._take_over(inputs)

    def _take_over(self, inputs: tuple[Input, ...]) -> None:
        self.origin_s = min(self.origin_s, *(origin_s for origin_s, _ in inputs))
        traces = dict.fromkeys(trace for _, trace in inputs if trace is not None)
        own = self.known_trace()
        if own is not None:
            traces.pop(own, None)
        elif traces:
            self.trace, _ = traces.popitem()
            self._is_borrowed = True
        self.links = tuple(traces)

    def _release(self, message: CachedMessage, error: str | None) -> None:
        """Record what was measured, and let the message go."""
        self._message = None
        self._record(message, _publish_s(message), error)
        message.subscription.channel.release(message)
        if self.inbox.retired:
            self.inbox.sweep()

    def _record(self, message: CachedMessage, publish_s: float, error: str | None) -> None:
        trace, of_publish = self.known_trace(), message.trace
        if isinstance(of_publish, TraceIds):
            of_publish = of_publish.publish(message.message_id)
        process_trace = None if trace is None or of_publish is None else (*trace, of_publish[1])
        subscription: Subscription = message.subscription
        subscription.metrics.processed(
            message.message_id, message.origin_s, publish_s, message.channel_s,
            self.start_s, message_clock(), message.size, process_trace, error,
        )  # fmt: skip

    async def take_own(self) -> Any:
        """Take the next message as the caller's own copy, and release it; its use is measured all the same.

        In place of `async with`. What the task publishes from now on belongs to the message, until its next one.
        Whoever takes a message so calls `finish` when it is done with it.

        Raises:
            SubscriberClosed: The subscriber is closed, or was while waiting.
            MessageNotReadable: The message cannot be decoded in this process.
        """
        obj = await self.__aenter__()
        try:
            own = self.own(obj)
        except BaseException as error:
            self.__aexit__(type(error), error, error.__traceback__)
            raise
        message = self.message
        self._left, self._message = (message, _publish_s(message)), None
        reset_current_message(self._token)
        message.subscription.channel.release(message)
        self.keep_context()
        return own

    def finish(self, error: str | None) -> None:
        """Record how long the copy of a message was used, and the type of the exception that this ended with."""
        message, publish_s = self._left
        del self._left
        self._record(message, publish_s, error)
        inbox = self.inbox
        inbox.let_go(self)
        if inbox.retired:
            inbox.sweep()

    @property
    def message(self) -> CachedMessage:
        """What was taken from the inbox and is still held."""
        assert self._message is not None, "the message was released"
        return self._message

    def own(self, obj: Any) -> Any:
        """The caller's own copy of the message; the object itself where nobody else can hold it."""
        message = self.message
        pending = message.obj
        # A deep copy can be written to, whatever was sent.
        if type(pending) is not Undecoded or is_frozen(pending.codec, obj):
            return copy.deepcopy(obj)
        if pending.is_in_segment:
            return pending.decode_own()
        is_only_holder = message.shared is None or message.shared.holders.bit_count() == 1
        return obj if is_only_holder else copy.deepcopy(obj)

    def keep_context(self) -> None:
        """What this task publishes from now on belongs to this message, though it is held no more."""
        # The context remembers what is received like this, of whatever subscriber; the inbox need not.
        self.inbox.inputs = None
        inputs: tuple[Input, ...] | None = ()
        before = get_current_message()
        if isinstance(before, Lease) and not before.is_held:
            # Its token knows the context before it, which knows the one before that, and so on.
            with suppress(AttributeError):
                del before._token
        if before is not None and not before.is_answered:
            inputs = getattr(before, "inputs", ())  # a message that is still held has none
            if inputs is not None:
                inputs = (*inputs, (before.origin_s, before.known_trace())) if len(inputs) < INPUTS else None
        self.inputs = inputs
        if inputs:
            self._take_over(inputs)
        set_current_message(self)

    @property
    def own_trace(self) -> tuple[bytes, int] | None:
        """Trace id and span id of this processing, when the message is sampled."""
        return None if hasattr(self, "_is_borrowed") else self.known_trace()

    def known_trace(self) -> tuple[bytes, int] | None:
        """`trace`, calculated now if it was not yet."""
        if self.trace is LATER:
            self.trace, self.links = self._ids.process(self._number), ()
        return self.trace

    @property
    def holds(self) -> str:
        """The topic of the subscriber that holds the message; empty once it was released."""
        return "" if self._message is None else self.inbox.topic

    def is_of(self, inbox: Inbox) -> bool:
        """Whether the message came through this inbox."""
        return self.inbox is inbox

    @property
    def measured(self) -> CachedMessage | None:
        """The message while something may be measured of it: it is held, or its copy is used."""
        if self._message is not None:
            return self._message
        left = getattr(self, "_left", None)
        return None if left is None else left[0]

    @property
    def is_held(self) -> bool:
        """Whether the message is not released yet."""
        return self._message is not None

    @property
    def is_sampled(self) -> bool:
        """Whether user spans of this message are recorded now."""
        message = self.measured
        if message is None:
            return False
        return message.trace is not None or message.subscription.metrics.selects(message.message_id)

    def record_user_span(
        self,
        start_ns: int,
        end_ns: int,
        label: str | None,
        error: str | None = None,
        attributes: Mapping[str, Value] | None = None,
    ) -> None:
        """Record a span that user code measured inside this message: see `EdgeMetrics.user_span`."""
        message = self.measured
        if message is None:
            return
        own = None if message.trace is None else self.known_trace()
        trace = None if own is None else (own[0], new_span_id(), own[1])
        metrics = message.subscription.metrics
        metrics.user_span(message.message_id, start_ns, end_ns, label, trace, error, attributes)


class UserSpan:
    """Measures what user code does within the message it handles: see `ezmsg.core.subclient.profile`."""

    __slots__ = ("_attributes", "_label", "_lease", "_start_ns", "_whose")

    def __init__(self, label: str, attributes: Mapping[str, Value] | None, whose: Inbox | None) -> None:
        self._label, self._whose = label, whose
        self._attributes: dict[str, Value] = dict(attributes or {})
        self._lease: Lease | None = None

    def set(self, name: str, value: Value) -> None:
        """Tell something else of this span."""
        self._attributes[name] = value

    def __enter__(self) -> Self:
        lease = get_current_message()
        if isinstance(lease, Lease) and lease.is_sampled and (self._whose is None or lease.is_of(self._whose)):
            self._lease, self._start_ns = lease, PROFILE_TIME()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            name = None if kind is None else kind.__qualname__
            lease.record_user_span(self._start_ns, PROFILE_TIME(), self._label, name, self._attributes)


def _publish_s(message: CachedMessage) -> float:
    """When a message was published, for a row of its receiver alone.

    Where the publish is left to be recorded there, its times say how long it took, not when a hand-over began.
    """
    return message.channel_s if message.publisher else message.publish_s
