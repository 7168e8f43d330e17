"""The open sessions. What a session owns goes when it goes."""

from __future__ import annotations

from ezmsg.core.server.books.routing import Reroute, RoutingBook
from ezmsg.core.wire.records import SessionState


class SessionBook:
    """Which sessions are open; their edges are kept by the routing book, under the session's id."""

    def __init__(self, routing: RoutingBook) -> None:
        self._routing = routing
        self._open: set[str] = set()

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._open

    def open(self, session_id: str) -> None:
        """A session begins."""
        self._open.add(session_id)

    def close(self, session_id: str) -> list[Reroute]:
        """A session ends; returns the subscribers affected by the loss of its edges."""
        if session_id not in self._open:
            return []
        self._open.discard(session_id)
        return self._routing.drop_owner(session_id)

    def states(self) -> list[SessionState]:
        """Every session with its edges, by id."""
        return [SessionState(session, self._routing.edges_of(session)) for session in sorted(self._open)]
