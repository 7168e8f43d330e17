"""Named shared memory: any process of the host opens it with a name and the address of the GraphServer.

Made by `GraphService.create_shm` and `attach_shm`. The server keeps the memory as long as somebody holds it; holding it
is having a connection to the server, so that whoever is killed lets go.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import operator
import os
from collections.abc import Generator
from typing import Self

from ezmsg.core.control import ControlClient
from ezmsg.core.errors import (
    ConfigError,
    EzmsgError,
    SharedMemoryClosed,
    SharedMemoryElsewhere,
    SharedMemoryUnavailable,
)
from ezmsg.core.net import forking
from ezmsg.core.net.address import AddressType, boot_id
from ezmsg.core.net.connection import Connection
from ezmsg.core.segment import Segment
from ezmsg.core.wire.records import AttachShm, CreateShm, Goodbye, Record, ShmOpened
from ezmsg.core.wire.segments import RESERVED_BYTES, check_layout

logger = logging.getLogger("ezmsg")

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class SHMContext:
    """Buffers of memory that processes of one host share under a name. Use it in the event loop it was opened in.

    Nothing here keeps readers from what a writer is just writing. The memory is valid until the last holder closes or
    ends, in any order. When the server ends in order, access is refused at once; when it is lost, holders go on, but
    nobody else can attach.

    A view that is kept past its block, or past the end, stays readable; it holds the memory until it is dropped.
    """

    def __init__(self) -> None:
        self._opened = ShmOpened("", 0, 0, "", 0, 0)
        self._memory: memoryview | None = None
        self._end = "it was never opened"
        self._is_lost = False
        self._client: ControlClient | None = None

    def __repr__(self) -> str:
        state = self._end if self._memory is None else "open, the server is lost" if self._is_lost else "open"
        return f"<SHMContext {self.name} {self.num_buffers} x {self.buf_size} bytes: {state}>"

    # -- opening ------------------------------------------------------------------------------------------------------

    @classmethod
    async def create(cls, graph_address: AddressType | None, num_buffers: int, buf_size: int) -> Self:
        """New memory, zeroed and reserved; see `GraphService.create_shm`."""
        layout = check_layout(num_buffers, buf_size)
        try:
            return await cls._open(graph_address, CreateShm(*layout))
        except SharedMemoryElsewhere as error:
            logger.debug("trying a file instead: %s", error)
        return await cls._open(graph_address, CreateShm(*layout, as_file=True))

    @classmethod
    async def attach(cls, graph_address: AddressType | None, name: str) -> Self:
        """The memory of that name; see `GraphService.attach_shm`."""
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - programs need not be typed
            raise ConfigError("name", name, "the name of an SHMContext")
        return await cls._open(graph_address, AttachShm(name))

    @classmethod
    async def _open(cls, graph_address: AddressType | None, request: CreateShm | AttachShm) -> Self:
        self = cls()
        client = await ControlClient.connect(graph_address, self, name="shared memory")
        server = str(client.address)
        try:
            if client.connection.peer.boot_id != boot_id():
                raise SharedMemoryElsewhere(server, "it runs on another host")
            opened = await client.request(request, ShmOpened)
            if isinstance(request, CreateShm):
                # It takes a while: all of it is filled with zeros.
                memory = await asyncio.to_thread(_map, opened, server, is_new=True)
            else:
                memory = _map(opened, server)
        except BaseException:
            await client.close()
            raise
        self._opened, self._client = opened, client
        if not client.is_goodbye:
            self._memory = memory
        return self

    # -- access -------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What `GraphService.attach_shm` wants to know."""
        return self._opened.name

    @property
    def num_buffers(self) -> int:
        """How many buffers there are."""
        return self._opened.num_buffers

    @property
    def buf_size(self) -> int:
        """Bytes from one buffer to the next."""
        return self._opened.buf_size

    @property
    def size(self) -> int:
        """Bytes of a buffer that can be used: 16 less than `buf_size`."""
        return self.buf_size - RESERVED_BYTES

    def __getitem__(self, idx: int) -> memoryview:
        return self._view(idx)

    @contextlib.contextmanager
    def buffer(self, idx: int, readonly: bool = False) -> Generator[memoryview]:
        """A view of one buffer, of `size` bytes.

        Args:
            idx: From 0 to `num_buffers` - 1.
            readonly: Refuse to write through this view.

        Raises:
            IndexError: There is no such buffer.
            SharedMemoryClosed: This context was closed, or the server ended (a BufferError).
        """
        view = self._view(idx)
        yield view.toreadonly() if readonly else view

    def _view(self, idx: int) -> memoryview:
        memory = self._memory
        if memory is None:
            raise SharedMemoryClosed(self.name, self._end)
        index = operator.index(idx)
        if not 0 <= index < self.num_buffers:
            raise IndexError(f"there is no buffer {idx} among the {self.num_buffers} of shared memory {self.name!r}")
        start = index * self.buf_size
        return memory[start : start + self.size]

    # -- handler of the connection ------------------------------------------------------------------------------------

    def on_request(self, connection: Connection, record: Record) -> Record:
        """Nothing is asked here."""
        raise EzmsgError(f"{type(record).__name__} cannot be answered here")

    def on_notice(self, connection: Connection, record: Record) -> None:
        """The server ends in order: so does access."""
        if isinstance(record, Goodbye):
            self._refuse("the GraphServer has ended")

    def on_closed(self, connection: Connection, error: Exception | None) -> None:
        """Without a goodbye the memory stays."""
        self._is_lost = True
        if self._memory is not None:
            logger.warning("the GraphServer is lost: nobody else can attach shared memory %s", self.name)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _refuse(self, reason: str) -> None:
        # The mapping goes with the last view.
        self._memory, self._end = None, reason

    def close(self) -> None:
        """Let go of the memory; safe to call twice. `wait_closed` tells when the server knows."""
        self._refuse("it was closed")
        if self._client is not None:
            self._client.close_soon()

    async def wait_closed(self) -> None:
        """Wait until the server holds nothing for this context any more, or is gone."""
        if self._client is not None:
            await self._client.connection.wait_closed()
            await self._client.wait_closed()


def _map(opened: ShmOpened, server: str, *, is_new: bool = False) -> memoryview:
    size = opened.num_buffers * opened.buf_size
    segment = _open_segment(opened, server)
    try:
        if is_new:
            segment.grow(size)
        return segment.map(size, writable=True)
    finally:
        segment.close()


def _open_segment(opened: ShmOpened, server: str) -> Segment:
    reason = f"{opened.path} is something else here"
    try:
        # Looked at first: in another pid namespace it may be anything, and opening that may have effects.
        if _is_it(os.stat(opened.path), opened):
            with forking.no_fork():
                segment = Segment.of(os.open(opened.path, os.O_RDWR | os.O_CLOEXEC))
            if _is_it(os.fstat(segment.fileno()), opened):
                return segment
            segment.close()
    except OSError as error:
        reason = str(error)
        if error.errno in _OURS:
            size = opened.num_buffers * opened.buf_size
            raise SharedMemoryUnavailable("open", size, error.errno, reason) from error
    raise SharedMemoryElsewhere(server, reason)


def _is_it(status: os.stat_result, opened: ShmOpened) -> bool:
    return (status.st_dev, status.st_ino) == (opened.device, opened.inode)
