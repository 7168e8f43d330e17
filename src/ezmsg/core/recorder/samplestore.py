"""The samples of all endpoints, with named readers: those who want samples, and those who pass on what makes them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.ring import Rows
from ezmsg.core.recorder.rows import SAMPLE_ROW
from ezmsg.core.recorder.samplelog import SampleLog
from ezmsg.core.recorder.selected import ends_s, owed_by
from ezmsg.core.recorder.unmadestore import UnmadeStore

NOTHING = b"", 0


class SampleStore(UnmadeStore):
    """Logs of samples by endpoint. Callers take turns."""

    def __init__(self, limit: int) -> None:
        """Make an empty store that keeps `limit` samples of each endpoint."""
        super().__init__(SAMPLE_ROW, limit)

    def take_selected(self, name: str, limit: int, graph: str | None = None) -> tuple[bytes, int] | None:
        """The oldest unread samples (of a graph, or of all), as the rows they are made of; at most `limit` rows.

        Returns:
            The rows, by time, and how many they are; None if these samples are not to be had as rows, but by `peek` and
            `advance`.
        """
        unread = self.find_unmade(name, limit, graph)
        if not unread:
            return None if unread is None else NOTHING
        rows, counts = oldest_rows([[part.rows for part in parts] for parts in unread.values()], limit)
        for key, count in zip(unread, counts, strict=True):
            self.advance(name, key, count)
        return rows.tobytes(), len(rows)

    def _new_log(self) -> SampleLog:
        return SampleLog(self._limit)


def oldest_rows(unread: list[list[Rows]], limit: int) -> tuple[Rows, list[int]]:
    """The oldest rows of all endpoints, by time, then number, at most `limit`; and how many samples those of each owe.

    No endpoint can starve another. What is taken of an endpoint is always what it recorded first.

    Args:
        unread: By endpoint, its rows in parts.
        limit: How many rows.
    """
    # What several threads recorded is not in order; a running maximum keeps the prefix of each endpoint together.
    times = [np.maximum.accumulate(np.concatenate([ends_s(part) for part in parts])) for parts in unread]
    order = _by_time(np.concatenate(times), [part for parts in unread for part in parts])[:limit]
    begins = np.cumsum([0, *(len(of_one) for of_one in times)])
    counts = np.bincount(np.searchsorted(begins, order, side="right") - 1, minlength=len(unread)).tolist()
    # Only what was chosen is copied: in most places there is much more.
    chosen = [list(_first(parts, count)) for parts, count in zip(unread, counts, strict=True)]
    joined = np.concatenate([part for parts in chosen for part in parts])
    rows = joined.take(_by_time(ends_s(joined), [joined]), axis=0)
    return rows, [sum(int(owed_by(part).sum()) for part in parts) for parts in chosen]


def _by_time(times_s: NDArray[np.float64], parts: list[Rows]) -> NDArray[np.intp]:
    """The order of rows by time, and of those at the same nanosecond, as their samples tell it, by number."""
    times_ns = np.rint(times_s * 1e9)
    # Stable: it merges what is in order already.
    order = np.argsort(times_ns, kind="stable")
    if not (np.diff(times_ns[order]) == 0).any():
        return order
    return np.lexsort((np.concatenate([part[:, 1] for part in parts]), times_ns))


def _first(parts: list[Rows], count: int) -> Iterator[Rows]:
    """The first rows of all parts."""
    for part in parts:
        yield part[:count]
        count -= min(count, len(part))
