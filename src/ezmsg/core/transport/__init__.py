"""How a message gets from a publisher to the channels that hold it: in process, or over a socket.

A transport knows nothing of topics, subscribers or the server. Both ends of it are given callbacks:

- the publisher's end is an `Outlet`: it is handed messages and reports releases and its own end;
- the channel's end is an `Inlet`: it reports messages and its own end, and is told of releases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from ezmsg.core.arraycodec import Spec, array_spec
from ezmsg.core.compositecodec import Template, constant_of, template_of
from ezmsg.core.errors import ProtocolError
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.messagemarshal import COMPOSITE, NDARRAY, decode
from ezmsg.core.profiling import TraceIds
from ezmsg.core.wire.messages import (
    FLAGS_SHIFT,
    NUMBER_SHIFT,
    PADDING_SHIFT,
    SEGMENT,
    Chunk,
    Placed,
    Trace,
    decode_content,
)

_SEGMENT = SEGMENT << FLAGS_SHIFT
# Codec and flags, without how much of an array's frame is padding.
_PLAIN = (1 << PADDING_SHIFT) - 1


class PublisherDoor(Protocol):
    """What a publisher offers its transports: a way in, and what comes back."""

    publisher_id: str
    topic: str
    num_buffers: int

    @property
    def trace_ids(self) -> TraceIds:
        """Those of the traces that begin with its messages."""
        ...

    def attach(self, outlet: Outlet) -> tuple[int, int]:
        """A channel arrived: its bit for releases, and the id of the first message it will get."""
        ...

    def detach(self, outlet: Outlet) -> None:
        """A channel left: everything it holds is released."""
        ...

    def releaser(self, bit: int) -> Callable[[int], None]:
        """What is called, for a channel with this bit, with the id of a message that it is done with."""
        ...

    def rerouted(self) -> None:
        """A channel of the publisher's loop tells that its listeners changed."""
        ...

    def record_publish(self, message: CachedMessage) -> None:
        """Record the publish of a message, which was left to a receiver that does not read it."""
        ...


class Outlet(Protocol):
    """The publisher's end of one channel.

    Attributes:
        bit: What the channel is in the slots it holds.
        holder: The topic of the subscriber that released a message last: whom to blame for waiting for it.
    """

    bit: int
    holder: str

    def close_soon(self) -> None:
        """The publisher ends: deliver what was sent, then close."""
        ...

    async def wait_closed(self) -> None:
        """Wait until what was sent is delivered and the connection is gone."""
        ...


class Inlet(Protocol):
    """The channel's end.

    Attributes:
        trace_ids: Those of the traces that begin with messages that do not carry them, if some may come.
    """

    trace_ids: TraceIds | None

    @property
    def acknowledge(self) -> Callable[[int], None]:
        """Called with the id of a message that the channel is done with."""
        ...

    @property
    def acknowledge_for(self) -> Callable[[int, str], None]:
        """As `acknowledge`, where several subscribers held the message, with the topic of the last of them."""
        ...

    def holder_is(self, topic: str) -> None:
        """One subscriber is left that can hold a message, on this topic; or it is the first."""
        ...

    def only_listener(self, subscription: Any) -> None:
        """The channel's listeners changed; this is the only one, if a publisher may fill its queue itself."""
        ...

    def record_publish(self, message: CachedMessage) -> None:
        """Record the publish of a message, which was left to a receiver that does not read it."""
        ...

    def close_soon(self) -> None:
        """The channel leaves; what it holds is released at the publisher."""
        ...

    async def wait_closed(self) -> None:
        """Wait until nothing of the connection is left."""
        ...


class Receiver(Protocol):
    """What a channel offers its transport."""

    def opened(self, inlet: Inlet, kind: ProfileChannelType) -> None:
        """Messages come through this inlet; called before the first of them does."""
        ...

    def receive(
        self,
        message_id: int,
        obj: Any,
        origin_s: float,
        publish_s: float,
        channel_s: float,
        size: int,
        trace: Trace | TraceIds | None,
    ) -> None:
        """A message arrived; `obj` is the message, or a `transport.Undecoded`."""
        ...

    def ended(self, error: Exception | None) -> None:
        """The publisher's end is gone; nothing more will come. Called once."""
        ...


class Source:
    """Where the messages of one connection come from: what their bytes need to become objects again.

    Remembers what the last array was, and the last composite; the next is most often of the same kind.
    """

    __slots__ = ("_constant", "_head", "_spec", "_template")

    def __init__(self) -> None:
        self._head = b""
        self._spec: Spec | None = None
        self._constant = b""
        self._template: Template | None = None

    def array(self, chunk: Chunk, start: int, size: int, stop: int) -> Any:
        """The array of a plain message: its head is `size` bytes from `start`, its data follows, up to `stop`."""
        spec = self._spec
        head = self._head
        if spec is None or type(chunk) is memoryview or len(head) != size or not chunk.startswith(head, start):
            self._head = head = bytes(chunk[start : start + size])
            self._spec = spec = array_spec(head)
        start += size
        if spec.nbytes > stop - start:
            raise ProtocolError(f"an array of {spec.nbytes} bytes came with {stop - start}")
        return spec.view(chunk, start)

    def composite(self, chunk: Chunk, start: int, stop: int) -> Any:
        """The composite of a plain message from `start` to `stop`."""
        template = self._template
        if template is None or type(chunk) is memoryview or not chunk.startswith(self._constant, start):
            self._constant = constant_of(chunk, start)
            self._template = template = template_of(self._constant)
        at = start + template.head
        if template.spec.nbytes > stop - at:
            raise ProtocolError(f"an array of {template.spec.nbytes} bytes came with {stop - at}")
        return template.join(chunk, start + template.constant, template.spec.view(chunk, at))

    def see(self, chunk: Chunk, start: int, stop: int, layout: int) -> Placed:
        """A message came that lies in shared memory: where; arguments as for `decode_placed`."""
        raise ProtocolError("a message claims to be in shared memory, of which this connection has none")

    def buffers(self, at: Placed) -> list[memoryview]:
        """The buffers of a message in shared memory."""
        raise ProtocolError(f"there is no shared memory to find {at} in")

    def close(self) -> None:
        """No more messages come; those that came stay readable."""


class Undecoded(msgspec.Struct, gc=False):
    """A message that arrived as bytes; decoded when the first subscriber takes it.

    Attributes:
        source: The connection it came by.
        layout: How it is laid out (see `wire.messages`).
        chunk: The memory that holds it.
        start: Where it begins there, behind its times.
        stop: Where it ends.
        at: Where its buffers are, if they are in shared memory.
    """

    source: Source
    layout: int
    chunk: Chunk
    start: int
    stop: int
    at: Placed | None = None

    def decode(self) -> Any:
        """The message; whatever its unpickling raises comes through."""
        layout = self.layout
        plain = layout & _PLAIN
        if plain == NDARRAY:
            return self.source.array(self.chunk, self.start, layout >> NUMBER_SHIFT, self.stop)
        if plain == COMPOSITE:
            return self.source.composite(self.chunk, self.start, self.stop)
        codec, head, buffers, at = decode_content(self.chunk, layout, self.start, self.stop, self.at)
        return decode(codec, head, buffers if at is None else self.source.buffers(at))

    @property
    def codec(self) -> int:
        """How the message is written (see `messagemarshal`)."""
        return self.layout & 0xFF

    @property
    def is_in_segment(self) -> bool:
        """Whether the object is made of memory that the publisher uses again once the message is released."""
        return bool(self.layout & _SEGMENT)

    def decode_own(self) -> Any:
        """The message once more, with nothing in it that lies in a segment."""
        codec, head, buffers, at = decode_content(self.chunk, self.layout, self.start, self.stop, self.at)
        if at is not None:
            buffers = [memoryview(bytearray(buffer)) for buffer in self.source.buffers(at)]
        return decode(codec, head, buffers)
