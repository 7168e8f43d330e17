"""How messages get from a sender to its receivers: ezmsg, whichever one this interpreter has, or pyzmq.

A lane is a topic, or for pyzmq one socket pair per receiver. The first process opens its wiring without addresses,
every other one with the `addresses` of those that were opened before it.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol

import payloads
from cells import RIVALS, Cell
from measures import Receive, Send

Addresses = dict[str, Any]

COPY_THRESHOLD = 1 << 16
"""Bytes from which pyzmq itself stops copying a message that it may send without a copy."""


def lane(number: int) -> str:
    return f"LANE{number}"


class Wiring(Protocol):
    may_lose: bool
    """Whether messages may get lost although everything was done against it."""

    @property
    def addresses(self) -> Addresses: ...

    async def __aenter__(self) -> Wiring: ...

    async def __aexit__(self, *exc_info: Any) -> None: ...

    async def sender(self, lane: str, receivers: int = 1) -> Send:
        """A way to send to all receivers of a lane, of which there are so many."""
        ...

    async def receivers(self, lane: str, count: int = 1, first: int = 0) -> list[Receive]:
        """Some receivers of a lane: `count` of them, from number `first` on."""
        ...


class EzmsgWiring:
    """A GraphServer in the first process, as `run()` has it, and a session in each."""

    may_lose = False

    def __init__(self, cell: Cell, addresses: Addresses | None = None) -> None:
        self._options: dict[str, Any] = {"num_buffers": cell.num_buffers}
        if cell.transport == "tcp":
            self._options["force_tcp"] = True
        self._addresses = addresses
        self._stack = AsyncExitStack()

    @property
    def addresses(self) -> Addresses:
        assert self._addresses is not None
        return self._addresses

    async def __aenter__(self) -> EzmsgWiring:
        from ezmsg.core.graphcontext import GraphContext
        from ezmsg.core.graphserver import GraphServer

        if self._addresses is None:
            server = GraphServer()
            server.start()
            self._stack.callback(server.stop)
            host, port = server.address
            self._addresses = {"server": [host, port]}
        host, port = self._addresses["server"]
        self.context = await self._stack.enter_async_context(GraphContext((host, port)))
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._stack.__aexit__(*exc_info)

    async def sender(self, lane: str, receivers: int = 1) -> Send:
        publisher = await self.context.publisher(lane, **self._options)
        return publisher.broadcast

    async def receivers(self, lane: str, count: int = 1, first: int = 0) -> list[Receive]:
        return [(await self.context.subscriber(lane)).recv_zero_copy for _ in range(count)]


class ZmqWiring:
    """PUSH/PULL sockets, which wait at their high-water mark and lose nothing; pickle protocol 5.

    PUB drops at its mark, so a fan-out is one PUSH socket per receiver and a message is pickled once.
    """

    may_lose = False

    def __init__(self, cell: Cell, addresses: Addresses | None = None) -> None:
        self._scheme = {"local": "inproc", "shm": "ipc", "tcp": "tcp"}[cell.transport]
        self._is_large = payloads.nbytes(cell.payload) >= COPY_THRESHOLD
        self._hwm = cell.num_buffers
        self.addresses: Addresses = {} if addresses is None else addresses
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> ZmqWiring:
        import zmq.asyncio

        self._context = zmq.asyncio.Context()
        self._stack.callback(self._context.destroy, linger=0)
        if self._scheme == "ipc":
            self._directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ezmsg-bench-"))
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._stack.__aexit__(*exc_info)

    async def sender(self, lane: str, receivers: int = 1) -> Send:
        import zmq

        sockets = [self._socket(zmq.PUSH, f"{lane}{index}") for index in range(receivers)]
        return _send_large(sockets) if self._is_large else _send_small(sockets)

    async def receivers(self, lane: str, count: int = 1, first: int = 0) -> list[Receive]:
        import zmq

        pulling: Callable[[Any], Receive] = _PullingLarge if self._is_large else _PullingSmall
        return [pulling(self._socket(zmq.PULL, f"{lane}{index}")) for index in range(first, first + count)]

    def _socket(self, kind: int, lane: str) -> Any:
        socket: Any = self._context.socket(kind)
        socket.set_hwm(self._hwm)
        if lane in self.addresses:
            socket.connect(self.addresses[lane])
        else:
            socket.bind(self._new_address(lane))
            self.addresses[lane] = socket.last_endpoint.decode()
        return socket

    def _new_address(self, lane: str) -> str:
        if self._scheme == "tcp":
            return "tcp://127.0.0.1:*"
        return f"ipc://{self._directory}/{lane}" if self._scheme == "ipc" else f"inproc://{lane}"


def _send_small(sockets: list[Any]) -> Send:
    """One frame, copied: for small messages that is faster than frames out of band."""
    sends = [socket.send for socket in sockets]

    async def send(message: Any) -> None:
        frame = pickle.dumps(message, protocol=5)
        for send_frame in sends:
            await send_frame(frame)

    return send


def _send_large(sockets: list[Any]) -> Send:
    """Buffers are frames of their own and are not copied."""
    sends = [socket.send_multipart for socket in sockets]

    async def send(message: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        for send_frames in sends:
            await send_frames([head, *buffers], copy=False)

    return send


class _Pulling(AbstractAsyncContextManager[Any]):
    """Calling and entering it receives a message; a class, because a generator would be slower."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def __call__(self) -> _Pulling:
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        pass


class _PullingSmall(_Pulling):
    async def __aenter__(self) -> Any:
        return pickle.loads(await self._socket.recv())


class _PullingLarge(_Pulling):
    async def __aenter__(self) -> Any:
        head, *buffers = await self._socket.recv_multipart(copy=False)
        return pickle.loads(head.buffer, buffers=[frame.buffer for frame in buffers])


def make(implementation: str, cell: Cell, addresses: Addresses | None = None) -> Wiring:
    if implementation in RIVALS:
        import rivals

        return rivals.WIRINGS[implementation](cell, addresses)
    if implementation == "pyzmq":
        return ZmqWiring(cell, addresses)
    wires = EzmsgWiring(cell, addresses)
    if name := os.environ.get("BENCH_INSTRUMENT"):
        import instruments

        return instruments.INSTRUMENTS[name](wires)
    return wires
