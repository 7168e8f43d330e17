"""Streams of events at the server: what changed goes into a log, and from there to each reader at its own pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ezmsg.core import config
from ezmsg.core.graphmeta import TopologyEventType
from ezmsg.core.server.books.events import EventLog
from ezmsg.core.wire.records import OpenEventStream, SettingsEvent, TopologyEvent

if TYPE_CHECKING:
    from ezmsg.core.net.connection import Connection

# A reader whose connection has not taken this much is not sent more until it has taken it all.
BACKLOG_BYTES = 8 << 20


class EventDesk:
    """Tells readers what changed."""

    def __init__(self) -> None:
        self.topology = EventLog(TopologyEvent, config.topology_event_history_limit())
        self.settings = EventLog(SettingsEvent, config.settings_event_history_limit())
        self.logs: dict[str, EventLog[Any]] = {"topology": self.topology, "settings": self.settings}
        self._readers: dict[str, tuple[EventLog[Any], Connection]] = {}

    # -- what happened ------------------------------------------------------------------------------------------------

    def graph_changed(self, topics: list[str], session_id: str | None) -> None:
        """Edges came or went, by a session or (None) for good."""
        self.topology.publish(
            TopologyEvent(
                timestamp=time.time(),
                event_type=TopologyEventType.GRAPH_CHANGED.value,
                changed_topics=topics,
                source_session_id=session_id,
            )
        )
        self._serve_all(self.topology)

    def process_changed(self, client_id: str) -> None:
        """A process owns other units than before, or is gone."""
        self.topology.publish(
            TopologyEvent(
                timestamp=time.time(),
                event_type=TopologyEventType.PROCESS_CHANGED.value,
                source_process_id=client_id,
            )
        )
        self._serve_all(self.topology)

    def settings_changed(self, events: Iterable[SettingsEvent]) -> None:
        """Settings changed, one component after the other."""
        for event in events:
            self.settings.publish(event)
        self._serve_all(self.settings)

    # -- who reads ----------------------------------------------------------------------------------------------------

    def open(self, record: OpenEventStream, connection: Connection, epoch: str) -> str:
        """A reader comes: it gets what is kept, and then what happens; all of it if it counted at another server."""
        reader_id = str(uuid4())
        log = self.logs[record.kind]
        after_seq = record.after_seq if record.epoch in ("", epoch) else 0
        log.open(reader_id, after_seq, record.unacknowledged)
        self._readers[reader_id] = (log, connection)
        # After the answer to its request.
        asyncio.get_running_loop().call_soon(self._serve, reader_id)
        connection.on_drained = partial(self._serve, reader_id)
        return reader_id

    def close(self, reader_id: str) -> None:
        """It left."""
        log, _ = self._readers.pop(reader_id)
        log.close(reader_id)

    def acknowledged(self, reader_id: str, count: int) -> None:
        """A reader took what it was sent; it can be sent more."""
        log, _ = self._readers[reader_id]
        log.acknowledged(reader_id, count)
        self._serve(reader_id)

    def _serve_all(self, log: EventLog[Any]) -> None:
        for reader_id in [reader for reader, (read, _) in self._readers.items() if read is log]:
            self._serve(reader_id)

    def _serve(self, reader_id: str) -> None:
        if reader_id not in self._readers:
            return  # it left before it was served
        log, connection = self._readers[reader_id]
        while connection.write_buffer_size < BACKLOG_BYTES and (frame := log.take(reader_id)) is not None:
            connection.write(frame)
