"""Telemetry at the server: links deliver, readers and streams are served from the book, each at its own pace."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from ezmsg.core import config
from ezmsg.core.errors import EzmsgError
from ezmsg.core.server.books.telemetry import TelemetryBook
from ezmsg.core.telemetry import extension
from ezmsg.core.wire.records import (
    DrainTelemetry,
    GraphState,
    OpenProfilingStream,
    OpenTelemetry,
    OpenTelemetryReader,
    ServerTelemetry,
    TelemetryAck,
    TelemetryBatch,
    TelemetryOpened,
)

if TYPE_CHECKING:
    from ezmsg.core.net.connection import Connection
    from ezmsg.core.server.core import GraphCore

logger = logging.getLogger("ezmsg")

MIN_STREAM_INTERVAL_S = 0.01
# A stream whose client has not read this much is not sent more until it has.
STREAM_BACKLOG_BYTES = 8 << 20
# Batches that it is sent before it takes the first.
STREAM_AHEAD = 64
# Of what the server measures of itself, exporters are told as often as of the operating system's view of processes.
OWN_INTERVAL_S = 1.0
# Between two times of telling exporters the whole graph.
GRAPH_INTERVAL_S = 0.05
# What takes long, as there is much to tell or somebody asks for much, is done again after so many times as long; all
# streams together count as one.
PAUSES = 4
# A process that stands still must not keep the exporter from its share of the time to drain.
LINK_DRAIN_TIMEOUT_S = 0.3
# A server that ends waits so long for the streams that are open to take what is left, the time above included.
STREAM_FINISH_TIMEOUT_S = 0.5
# Of that, so much is on its way at once.
STREAM_FINISH_BYTES = 1 << 16
POLL_S = 0.001


@dataclass
class _OpenStream:
    """Who reads a profiling stream, the task that tells it what is new, and how many batches it has not taken yet."""

    task: asyncio.Task[None]
    connection: Connection
    ahead: int


class TelemetryDesk:
    """Takes batches from processes and serves them to exporters and profiling streams.

    Attributes:
        links: The connection over which each process delivers, by the id of its link.
    """

    def __init__(self, core: GraphCore) -> None:
        self._core = core
        self._book = TelemetryBook(config.trace_buffer_limit())
        self.links: dict[str, Connection] = {}
        self._readers: dict[str, Connection] = {}
        self._streams: dict[str, _OpenStream] = {}
        # Who hears in this process what exporters are told of the graph and of ourselves.
        self._listener = extension.load_graph_listener()
        self._told: GraphState | None = None
        self._due_s = 0.0
        # Of a graph that changes all the time they are told now and then.
        self._telling: asyncio.TimerHandle | None = None
        self._tell_at_s = 0.0

    async def close(self) -> None:
        """End the streams; there is no graph any more."""
        self._stop_waiting()
        self._tell_of_ourselves(is_due=True)
        self._notify_all(GraphState([], [], []))
        if self._listener is not None:
            self._listener(None)
            self._listener = None
        tasks = [stream.task for stream in self._streams.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- processes ----------------------------------------------------------------------------------------------------

    def client_connected(self, client_id: str, pid: int, host: str) -> None:
        """A process is on the control plane: streams know it, also before it measures anything."""
        self._book.client_connected(client_id, pid, host)
        self.graph_changed()

    def client_gone(self, client_id: str) -> None:
        """It left."""
        self._book.client_gone(client_id, time.time())
        self.graph_changed()

    def link_opened(self, hello: OpenTelemetry, connection: Connection) -> TelemetryOpened:
        """A process begins to deliver."""
        opened = self._book.link_opened(hello, time.monotonic_ns(), time.time_ns())
        self.links[hello.link_id] = connection
        self.graph_changed()
        return opened

    def batch(self, link_id: str, batch: TelemetryBatch) -> None:
        """A process delivered."""
        self._book.batch(link_id, batch)
        self._serve_readers()

    def link_closed(self, link_id: str) -> None:
        """A process stopped delivering, in order (its last batch said so) or not."""
        # One that is back may be so over another connection before this one was seen to be lost.
        if self._book.link_closed(link_id):
            self.links.pop(link_id, None)
            self._book.client_gone(link_id, time.time())
        self.graph_changed()
        self._serve_readers()

    def links_without_client(self) -> list[str]:
        """The links of processes that are not on the control plane."""
        return self._book.links_without_client()

    # -- exporters ----------------------------------------------------------------------------------------------------

    @property
    def exporters(self) -> int:
        """How many take the telemetry of this graph."""
        return len(self._readers)

    @property
    def has_exporter(self) -> bool:
        """Whether an exporter is there."""
        return bool(self._readers)

    @property
    def unexported(self) -> int:
        """Spans of which no exporter has said that they were exported, or given up."""
        return self._book.unexported

    @property
    def is_heard(self) -> bool:
        """Whether this process itself exports what processes and the server measure."""
        return self._listener is not None

    @property
    def has_telemetry(self) -> bool:
        """Whether there is something for one."""
        return self._book.has_links

    def open_reader(self, record: OpenTelemetryReader, connection: Connection) -> str:
        """An exporter joins: it gets what is known, then what comes.

        Raises:
            ExporterLeased: Another one is there already.
        """
        reader_id = str(uuid4())
        self._book.reader_open(reader_id, record)
        self._readers[reader_id] = connection
        self._told = None
        # After the answer to its request.
        asyncio.get_running_loop().call_soon(self._welcome_reader)
        return reader_id

    def close_reader(self, reader_id: str) -> None:
        """An exporter left; another may come."""
        self._readers.pop(reader_id, None)
        self._book.reader_close(reader_id)

    def reader_acknowledged(self, reader_id: str, record: TelemetryAck) -> None:
        """An exporter took what it was sent; it can be sent more."""
        self._book.reader_acknowledged(reader_id, record.count, record.settled)
        self._serve_readers()

    def graph_changed(self) -> None:
        """Tell exporters what the graph looks like, if that changed: at once, or soon where it changes all the time."""
        if not self._has_audience or self._telling is not None:
            return
        wait_s = self._tell_at_s - time.monotonic()
        if wait_s > 0:
            self._telling = asyncio.get_running_loop().call_later(wait_s, self._tell_of_graph)
        else:
            self._tell_of_graph()

    def _tell_of_graph(self) -> None:
        self._stop_waiting()
        began_s = time.thread_time()
        edges = self._core.routing.edges()
        state = GraphState(edges.nodes, [(a, b) for a, b, _ in edges.edges], self._book.processes())
        if state != self._told:
            self._told = state
            self._notify_all(state)
        # That takes the longer the larger the graph is.
        took_s = time.thread_time() - began_s
        self._tell_at_s = time.monotonic() + max(GRAPH_INTERVAL_S, PAUSES * took_s)
        # Also where no process delivers anything.
        self._tell_of_ourselves()

    def _stop_waiting(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None

    def _welcome_reader(self) -> None:
        self._tell_of_graph()
        self._tell_of_ourselves(is_due=True)
        self._serve_readers()

    def _tell_of_ourselves(self, *, is_due: bool = False) -> None:
        """Tell exporters what the server measured, now and then."""
        now_s = time.monotonic()
        if self._has_audience and (is_due or (now_s >= self._due_s and self._core.meters.has_news)):
            self._due_s = now_s + OWN_INTERVAL_S
            self._notify_all(self._core.meters.take())

    @property
    def _has_audience(self) -> bool:
        return bool(self._readers) or self._listener is not None

    def _notify_all(self, record: GraphState | ServerTelemetry) -> None:
        if self._listener is not None:
            self._listener(record)
        for connection in self._readers.values():
            connection.notify(record)

    def _serve_readers(self) -> None:
        self._tell_of_ourselves()
        for reader_id, connection in self._readers.items():
            for telemetry in self._book.reader_take(reader_id):
                connection.notify(telemetry)

    async def drain(self) -> None:
        """Ask every process for what it has not delivered yet, then every exporter to export it all."""
        await self._ask_all(self.links.values(), LINK_DRAIN_TIMEOUT_S)
        if self._telling is not None:
            self._tell_of_graph()
        self._tell_of_ourselves(is_due=True)
        self._serve_readers()
        await self._ask_all(self._readers.values(), None)

    async def _ask_all(self, connections: Iterable[Connection], timeout_s: float | None) -> None:
        record = DrainTelemetry()
        asked = [connection.request(record, timeout_s) for connection in connections if not connection.closed]
        for result in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, EzmsgError):
                raise result

    # -- profiling streams --------------------------------------------------------------------------------------------

    def open_stream(self, record: OpenProfilingStream, connection: Connection) -> str:
        """A GraphContext reads samples and spans as they arrive."""
        stream_id = self._book.stream_open(record)
        task = asyncio.get_running_loop().create_task(
            self._stream(stream_id, max(MIN_STREAM_INTERVAL_S, record.interval_s)), name="profiling stream"
        )
        self._streams[stream_id] = _OpenStream(task, connection, max(0, record.unacknowledged))
        return stream_id

    def stream_acknowledged(self, stream_id: str, count: int) -> None:
        """A reader took so many batches."""
        stream = self._streams[stream_id]
        stream.ahead = max(0, stream.ahead - max(0, count))

    def close_stream(self, stream_id: str) -> None:
        """It left."""
        self._book.stream_close(stream_id)
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            stream.task.cancel()

    async def finish_streams(self) -> None:
        """The server is about to say goodbye: tell open streams what is left, after what processes still have."""
        if not self._streams:
            return
        until_s = asyncio.get_running_loop().time() + STREAM_FINISH_TIMEOUT_S
        await self._ask_all(self.links.values(), LINK_DRAIN_TIMEOUT_S)
        await asyncio.gather(*(self._finish_stream(stream_id, until_s) for stream_id in self._streams))

    async def _finish_stream(self, stream_id: str, until_s: float) -> None:
        loop = asyncio.get_running_loop()
        while (stream := self._streams.get(stream_id)) is not None and loop.time() < until_s:
            stream.task.cancel()
            # One that does not take this would not hear the goodbye either.
            if stream.connection.write_buffer_size > STREAM_FINISH_BYTES:
                await asyncio.sleep(POLL_S)
                continue
            batch = self._book.stream_take(stream_id, time.time())
            if batch is None or not any(process.samples or process.spans for process in batch.processes):
                return
            stream.connection.notify(batch)
            await asyncio.sleep(0)
        if stream is not None and (batch := self._book.stream_last(stream_id, time.time())) is not None:
            stream.connection.notify(batch)

    async def _stream(self, stream_id: str, interval_s: float) -> None:
        stream = self._streams[stream_id]
        while True:
            began_s = time.thread_time()
            if stream.ahead < STREAM_AHEAD and stream.connection.write_buffer_size < STREAM_BACKLOG_BYTES:
                batch = self._book.stream_take(stream_id, time.time())
                if batch is not None:
                    stream.ahead += 1
                    stream.connection.notify(batch)
            took_s = time.thread_time() - began_s
            await asyncio.sleep(max(interval_s, PAUSES * len(self._streams) * took_s))
