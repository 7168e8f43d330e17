"""The open sessions. What a session owns goes when it goes."""

from __future__ import annotations

from ezmsg.core.errors import ComponentAddressCollision, ConflictingSettingsTopics, NoDynamicSettings, SessionClosed
from ezmsg.core.server.books.routing import NO_CHANGE, GraphChange, RoutingBook
from ezmsg.core.wire.metadata import GraphRecord
from ezmsg.core.wire.records import SessionState


class SessionBook:
    """Which sessions are open, and their metadata; their edges are kept by the routing book, under the session's id."""

    def __init__(self, routing: RoutingBook) -> None:
        self._routing = routing
        self._metadata: dict[str, GraphRecord | None] = {}

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
        """
        if session_id not in self._metadata:
            raise SessionClosed
        others = [known for session, known in self._metadata.items() if session != session_id and known is not None]
        taken = {address for known in others for address in known.components.keys() & metadata.components.keys()}
        if taken:
            raise ComponentAddressCollision(sorted(taken))
        self._metadata[session_id] = metadata

    def forget_metadata(self, session_id: str) -> None:
        """A session is back, and has none."""
        self._metadata[session_id] = None

    def revert(self, session_id: str) -> GraphChange:
        """A session drops its edges and metadata, and goes on; returns what the loss of its edges changed."""
        if session_id not in self._metadata:
            return NO_CHANGE
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
        topics = {
            component.dynamic_settings.input_topic
            for metadata in self._metadata.values()
            if metadata is not None
            for address, component in metadata.components.items()
            if component_address in (address, component.address) and component.dynamic_settings.enabled
        }
        known = sorted(topic for topic in topics if topic is not None)
        if not known:
            raise NoDynamicSettings(component_address)
        if len(known) > 1:
            raise ConflictingSettingsTopics(component_address, known)
        return known[0]

    def states(self) -> list[SessionState]:
        """Every session with its edges and metadata, by id."""
        return [
            SessionState(session, self._routing.edges_of(session), metadata)
            for session, metadata in sorted(self._metadata.items())
        ]
