"""Stores of logs whose newest rows are made only when somebody reads them."""

from __future__ import annotations

from ezmsg.core.recorder.rowstore import RowStore
from ezmsg.core.recorder.unmadelog import Part, Unmade, UnmadeLog


class UnmadeStore(RowStore):
    """A store of such logs. Callers take turns."""

    def add_unmade(self, key: str, graph: str | None, part: Part) -> None:
        """Add the rows that are made of others, which are kept, to the log of a key."""
        log = self._log(key, graph)
        assert isinstance(log, UnmadeLog)
        self._count(graph, log.append_unmade(part))

    def find_unmade(self, name: str, limit: int, graph: str | None) -> dict[str, list[Part]] | None:
        """Unread rows by key, as those they are made of: all that there are, or at least `limit` of these each.

        Take them by `advance`. None if some are to be had only as they are, by `peek` or `take`.
        """
        reader = self._reader(name, graph)
        found: dict[str, Unmade] = {}
        for key, log in self._logs.items():
            if graph is not None and self._graphs[key] != graph:
                continue
            assert isinstance(log, UnmadeLog)
            unmade = log.find_unmade(reader.cursor(key).place.position, limit)
            if unmade is None:
                return None
            found[key] = unmade
        for key, unmade in found.items():
            reader.cursor(key).go(unmade, unmade.start)
        return {key: unmade.parts for key, unmade in found.items() if unmade.parts}
