"""Endpoints that close while their rows are read."""

from __future__ import annotations

from uuid import uuid4

from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.recorder.endpoints import Endpoint


def test_an_endpoint_is_never_nowhere_while_it_closes() -> None:
    registry = ProfileRegistry()
    publisher_id = uuid4()
    index = registry.register_publisher(publisher_id, "A", 4).index
    endpoints = registry.recorder.endpoints
    whiles: list[bool] = []

    class Open(dict[int, Endpoint]):
        """Looks, as a reader in another thread may, when one is no more among the open."""

        def __delitem__(self, index: int) -> None:
            super().__delitem__(index)
            whiles.append(index in self or index in endpoints.closed)

        def pop(self, index: int, *default: object) -> Endpoint:
            found = self[index]
            del self[index]
            return found

    endpoints.open = Open(endpoints.open)
    registry.unregister_publisher(publisher_id)
    assert index in endpoints.closed
    assert whiles == [True]
