"""A running GraphServer, and a session with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer


@pytest.fixture
def server() -> Iterator[GraphServer]:
    """A GraphServer on a free port of loopback."""
    server = GraphServer()
    server.start("127.0.0.1:0")
    yield server
    server.stop()


@pytest.fixture
async def context(server: GraphServer) -> AsyncIterator[GraphContext]:
    """A session with the server."""
    async with GraphContext(server.address) as context:
        yield context
