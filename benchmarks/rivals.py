"""Wirings for zenoh and iceoryx2: bytes through shared memory, without graph and without Python objects.

Both carry bytes, so the sender copies the array of the message into a buffer and the receiver makes an array of what
arrives; dtype and shape are agreed upon beforehand, which ezmsg and pyzmq send along. Buffers are `num_buffers` deep.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import secrets
import socket
import tempfile
import time
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any

import numpy as np
import payloads
from cells import Cell
from measures import Receive, Send
from wiring import COPY_THRESHOLD, Addresses

END = b"\0"
"""An end mark: shorter than any number."""
DTYPE = np.float64


class ZenohWiring:
    """Two peers on loopback that know each other's address; reliable, and blocking when congested.

    Large messages are written to a shared memory pool of the sender. Small ones are faster through the socket.
    """

    may_lose = True

    def __init__(self, cell: Cell, addresses: Addresses | None = None) -> None:
        self._num_buffers = cell.num_buffers
        self._nbytes = payloads.nbytes(cell.payload)
        self._listens = addresses is None
        self.addresses: Addresses = {"endpoint": _free_endpoint()} if addresses is None else addresses

    async def __aenter__(self) -> ZenohWiring:
        import zenoh

        config = zenoh.Config()
        settings = {
            "mode": "peer",
            "scouting/multicast/enabled": False,
            "transport/shared_memory/enabled": True,
            ("listen" if self._listens else "connect") + "/endpoints": [self.addresses["endpoint"]],
        }
        for name, value in settings.items():
            config.insert_json5(name, json.dumps(value))
        self._session = zenoh.open(config)
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self._session.close()

    async def sender(self, lane: str, receivers: int = 1) -> Send:
        import zenoh

        publisher = self._session.declare_publisher(
            lane, congestion_control=zenoh.CongestionControl.BLOCK, reliability=zenoh.Reliability.RELIABLE
        )
        while not publisher.matching_status:
            await asyncio.sleep(0.01)
        put = publisher.put
        if self._nbytes < COPY_THRESHOLD:

            async def send_small(message: Any) -> None:
                put(END if message is None else message.tobytes())

            return send_small

        pool = zenoh.shm.ShmProvider.default_backend((self._num_buffers + 1) * self._nbytes)
        patient = zenoh.shm.BlockOn(zenoh.shm.GarbageCollect())

        async def send_large(message: Any) -> None:
            if message is None:
                put(END)
                return
            buffer = pool.alloc(message.nbytes, policy=patient)
            buffer[:] = message.tobytes()  # takes nothing but bytes
            put(buffer)

        return send_large

    async def receivers(self, lane: str, count: int = 1, first: int = 0) -> list[Receive]:
        import zenoh

        return [
            _ZenohReceiving(self._session.declare_subscriber(lane, zenoh.handlers.FifoChannel(self._num_buffers)))
            for _ in range(count)
        ]


def _free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp/127.0.0.1:{probe.getsockname()[1]}"


class _ZenohReceiving(AbstractAsyncContextManager[Any]):
    """Waits without the loop, which is faster than any way through it; whoever dies meanwhile is found by a timeout."""

    def __init__(self, subscriber: Any) -> None:
        self._recv = subscriber.recv
        self._subscriber = subscriber  # ends when it is not referred to

    def __call__(self) -> _ZenohReceiving:
        return self

    async def __aenter__(self) -> Any:
        payload = self._recv().payload.to_bytes()  # a copy: there is no view of it
        return None if payload == END else np.frombuffer(payload, DTYPE)

    async def __aexit__(self, *exc_info: Any) -> None:
        pass


class IceoryxWiring:
    """A service per lane; a sender retries until a queue has room. The receiver polls: there is nothing to await."""

    may_lose = True

    def __init__(self, cell: Cell, addresses: Addresses | None = None) -> None:
        self._num_buffers = cell.num_buffers
        self._nbytes = payloads.nbytes(cell.payload)
        self._stack = ExitStack()
        if addresses is None:
            root = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ezmsg-bench-"))
            addresses = {"root": root, "service": secrets.token_hex(8)}
        self.addresses = addresses

    async def __aenter__(self) -> IceoryxWiring:
        import iceoryx2

        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        config = iceoryx2.config.default()
        config.global_cfg.root_path = iceoryx2.Path.new(self.addresses["root"])
        self._node = iceoryx2.NodeBuilder.new().config(config).create(iceoryx2.ServiceType.Ipc)
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self._stack.close()

    def _service(self, lane: str) -> Any:
        import iceoryx2

        name = iceoryx2.ServiceName.new(f"{self.addresses['service']}/{lane}")
        builder = self._node.service_builder(name).publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
        builder = builder.enable_safe_overflow(False).subscriber_max_buffer_size(self._num_buffers)
        return builder.payload_alignment(iceoryx2.Alignment.new(64)).open_or_create()

    async def sender(self, lane: str, receivers: int = 1) -> Send:
        import iceoryx2

        builder = self._service(lane).publisher_builder().initial_max_slice_len(self._nbytes)
        builder = builder.backpressure_strategy(iceoryx2.BackpressureStrategy.RetryUntilDelivered)
        publisher = builder.create()

        async def send(message: Any) -> None:
            if message is None:
                publisher.loan_slice_uninit(len(END)).assume_init().send()
                return
            loan = publisher.loan_slice_uninit(message.nbytes)
            np.frombuffer(loan.payload().as_memory_view(), DTYPE)[:] = message
            loan.assume_init().send()

        return send

    async def receivers(self, lane: str, count: int = 1, first: int = 0) -> list[Receive]:
        service = self._service(lane)
        return [_IceoryxReceiving(service.subscriber_builder().create()) for _ in range(count)]


class _IceoryxReceiving(AbstractAsyncContextManager[Any]):
    def __init__(self, subscriber: Any) -> None:
        self._receive = subscriber.receive

    def __call__(self) -> _IceoryxReceiving:
        return self

    async def __aenter__(self) -> Any:
        while (sample := self._receive()) is None:
            # Give way to the sender: where all cores are busy, two that spin take turns by the time slice.
            time.sleep(20e-6)
            await asyncio.sleep(0)
        self._sample = sample
        view = sample.payload().as_memory_view()
        return None if len(view) == len(END) else np.frombuffer(view, DTYPE)

    async def __aexit__(self, *exc_info: Any) -> None:
        self._sample.delete()


WIRINGS = {"zenoh": ZenohWiring, "iceoryx2": IceoryxWiring}
