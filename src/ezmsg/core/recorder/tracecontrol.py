"""A ProfilingTraceControl, as endpoints see it: which of them it selects, for which metrics, until when."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable
from typing import Any, Final, cast

from ezmsg.core.errors import InvalidTraceControl
from ezmsg.core.graphmeta import ProfilingTraceControl
from ezmsg.core.recorder.rows import METRICS, PUBLISHER_METRICS, SUBSCRIBER_METRICS
from ezmsg.core.recorder.selection import Selection

_GENERATIONS: Final = (1 << 31) - 1
_FILTERS: Final = (
    "publisher_topics",
    "subscriber_topics",
    "publisher_endpoint_ids",
    "subscriber_endpoint_ids",
    "metrics",
)


class TraceControl:
    """The control now set, and its generation: rows selected under another one are stale."""

    def __init__(self) -> None:
        """No trace."""
        self._control = ProfilingTraceControl(enabled=False)
        self._expires_s: float | None = None
        self.generation = 0

    @property
    def enabled(self) -> bool:
        """Whether a trace is on; ask `expired` first."""
        return self._control.enabled

    def set(self, control: ProfilingTraceControl) -> None:
        """Begin another trace, or none.

        Raises:
            InvalidTraceControl: A field cannot be used; nothing was changed.
        """
        _check(control)
        self._control = copy.deepcopy(control)
        ttl = control.ttl_seconds
        self._expires_s = None if ttl is None or not control.enabled else time.monotonic() + ttl
        self.generation = (self.generation + 1) & _GENERATIONS

    def expired(self) -> bool:
        """Whether the trace that is on has outlived its time."""
        return self._expires_s is not None and time.monotonic() >= self._expires_s

    def for_publisher(self, topic: str, endpoint_id: str) -> Selection | None:
        """What a publisher shall do."""
        topics, ids = self._control.publisher_topics, self._control.publisher_endpoint_ids
        return self._selection(PUBLISHER_METRICS, topic, topics, endpoint_id, ids)

    def for_subscriber(self, topic: str, endpoint_id: str) -> Selection | None:
        """What a subscriber shall do."""
        topics, ids = self._control.subscriber_topics, self._control.subscriber_endpoint_ids
        return self._selection(SUBSCRIBER_METRICS, topic, topics, endpoint_id, ids)

    def _selection(
        self, mine: int, topic: str, topics: list[str] | None, endpoint_id: str, ids: list[str] | None
    ) -> Selection | None:
        control = self._control
        if not control.enabled or (topics and topic not in topics) or (ids and endpoint_id not in ids):
            return None
        if control.metrics is None:
            wanted = mine
        else:
            wanted = mine & sum(1 << METRICS.index(name) for name in set(control.metrics) & set(METRICS))
        return Selection(wanted, max(1, control.sample_mod), self.generation) if wanted else None


def _check(control: ProfilingTraceControl) -> None:
    """Refuse what would only fail later, where an endpoint opens or a message is sent: it may come from elsewhere."""
    for name in _FILTERS:
        names = cast(object, getattr(control, name, None))
        if names is None:
            continue
        items = cast(Iterable[object], names) if isinstance(names, (list, tuple, set, frozenset)) else (None,)
        if not all(isinstance(item, str) for item in items):
            raise InvalidTraceControl(name, cast(object, names), "a list of strings, or None")
    mod: Any = getattr(control, "sample_mod", 1)
    if isinstance(mod, bool) or not isinstance(mod, int):
        raise InvalidTraceControl("sample_mod", mod, "an integer")
    ttl: Any = getattr(control, "ttl_seconds", None)
    if ttl is not None and (not isinstance(ttl, (int, float)) or math.isnan(ttl)):
        raise InvalidTraceControl("ttl_seconds", ttl, "seconds, or None")
