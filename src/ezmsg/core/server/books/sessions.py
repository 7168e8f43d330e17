"""The open sessions. What a session owns goes when it goes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import cast

import msgspec

from ezmsg.core.errors import (
    ComponentAddressCollision,
    ConflictingSettingsTopics,
    NoDynamicSettings,
    SessionClosed,
    StaleSnapshot,
)
from ezmsg.core.server.books.budget import Budget
from ezmsg.core.server.books.routing import NO_CHANGE, GraphChange, RoutingBook
from ezmsg.core.wire.limits import METADATA_BYTES, SNAPSHOT_BYTES
from ezmsg.core.wire.metadata import GraphRecord
from ezmsg.core.wire.records import Metadata, SessionState


@dataclass(frozen=True)
class Registered:
    """What a session says of its components: encoded, as it is only passed on, and what the server needs of it.

    `topics`: where each component that takes new settings takes them, by all addresses that the metadata calls it.
    """

    encoded: bytes
    addresses: frozenset[str]
    topics: dict[str, set[str]]
    version: int

    @classmethod
    def of(cls, metadata: GraphRecord, version: int) -> Registered:
        """From the record."""
        topics: dict[str, set[str]] = {}
        for address, component in metadata.components.items():
            dynamic = component.dynamic_settings
            if dynamic.enabled and dynamic.input_topic is not None:
                for name in (address, component.address):
                    topics.setdefault(name, set()).add(dynamic.input_topic)
        return cls(msgspec.msgpack.encode(metadata), frozenset(metadata.components), topics, version)

    @property
    def record(self) -> GraphRecord:
        """The metadata as part of an answer, without having been decoded."""
        return cast(GraphRecord, msgspec.Raw(self.encoded))


class SessionBook:
    """Which sessions are open, and their metadata; their edges are kept by the routing book, under the session's id.

    Args:
        routing: The book of edges.
        max_bytes: How much the metadata of all sessions may take.
    """

    def __init__(self, routing: RoutingBook, max_bytes: int = METADATA_BYTES) -> None:
        self._routing = routing
        self._metadata: dict[str, Registered | None] = {}
        self._versions = count(1)
        self.room = Budget("metadata", max_bytes)

    def __len__(self) -> int:
        return len(self._metadata)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._metadata

    def open(self, session_id: str) -> None:
        """A session begins."""
        self._metadata[session_id] = None

    def register(self, session_id: str, metadata: GraphRecord) -> None:
        """Replace the metadata of a session.

        Raises:
            SessionClosed: It is not open (any more).
            ComponentAddressCollision: Another session has some of the addresses; nothing was changed.
            ServerFull: There is too much metadata; nothing was changed.
        """
        if session_id not in self._metadata:
            raise SessionClosed
        registered = Registered.of(metadata, next(self._versions))
        others = [known for session, known in self._metadata.items() if session != session_id and known is not None]
        taken = {address for known in others for address in known.addresses & registered.addresses}
        if taken:
            raise ComponentAddressCollision(sorted(taken))
        self.room.take(len(registered.encoded), instead_of=self._size(session_id))
        self._metadata[session_id] = registered

    def _size(self, session_id: str) -> int:
        known = self._metadata[session_id]
        return 0 if known is None else len(known.encoded)

    def forget_metadata(self, session_id: str) -> None:
        """A session is back, and has none."""
        self.room.give(self._size(session_id))
        self._metadata[session_id] = None

    def revert(self, session_id: str) -> GraphChange:
        """A session drops its edges and metadata, and goes on; returns what the loss of its edges changed."""
        if session_id not in self._metadata:
            return NO_CHANGE
        self.room.give(self._size(session_id))
        self._metadata[session_id] = None
        return self._routing.drop_owner(session_id)

    def close(self, session_id: str) -> GraphChange:
        """A session ends; returns what the loss of its edges changed."""
        change = self.revert(session_id)
        self._metadata.pop(session_id, None)
        return change

    def settings_input_topic(self, component_address: str) -> str:
        """Where a component takes new settings.

        Raises:
            NoDynamicSettings: No session's metadata tells.
            ConflictingSettingsTopics: They tell several.
        """
        told = [known.topics.get(component_address, ()) for known in self._metadata.values() if known is not None]
        topics = sorted({topic for several in told for topic in several})
        if not topics:
            raise NoDynamicSettings(component_address)
        if len(topics) > 1:
            raise ConflictingSettingsTopics(component_address, topics)
        return topics[0]

    def states(self, limit_bytes: int = SNAPSHOT_BYTES) -> list[SessionState]:
        """Every session with its edges and metadata, by id; metadata beyond so many bytes is to be asked for apart."""
        states: list[SessionState] = []
        room = limit_bytes
        for session_id, known in sorted(self._metadata.items(), key=lambda item: item[0]):
            edges = self._routing.edges_of(session_id)
            if known is None:
                states.append(SessionState(session_id, edges))
                continue
            is_apart = len(known.encoded) > room
            if not is_apart:
                room -= len(known.encoded)
            metadata = None if is_apart else known.record
            states.append(SessionState(session_id, edges, metadata, known.version, is_apart))
        return states

    def metadata(self, session_id: str, version: int) -> Metadata:
        """What a snapshot had no room for.

        Raises:
            StaleSnapshot: The session has other metadata by now, or is gone.
        """
        known = self._metadata.get(session_id)
        if known is None or known.version != version:
            raise StaleSnapshot(session_id)
        return Metadata(known.record)
