"""A ProfilingTraceControl, as endpoints see it: which of them it selects, for what, until when."""

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

LEVELS: Final = ("off", "metrics", "trace")
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
        """Begin another trace, or none; the control was checked."""
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


class Sampling:
    """How much of which endpoints is recorded, where that differs from what the process was started with."""

    def __init__(self) -> None:
        """Nowhere."""
        self._control: ProfilingTraceControl | None = None
        self._expires_s: float | None = None

    def set(self, control: ProfilingTraceControl) -> None:
        """Do as a control says from now on; one that was checked."""
        is_set = control.enabled and any(
            value is not None for value in (control.trace_rate, control.trace_ratio, control.level)
        )
        self._control = copy.deepcopy(control) if is_set else None
        ttl = control.ttl_seconds
        self._expires_s = time.monotonic() + ttl if is_set and ttl is not None else None

    def expired(self) -> bool:
        """Whether what was set has outlived its time."""
        return self._expires_s is not None and time.monotonic() >= self._expires_s

    def level(self, topic: str, endpoint_id: str, default: str, *, is_publisher: bool) -> str:
        """The level of an endpoint."""
        control = self._control
        if control is None or control.level is None:
            return default
        return control.level if _selects(control, topic, endpoint_id, is_publisher=is_publisher) else default

    def roots(self, topic: str, endpoint_id: str, default: tuple[float, float | None]) -> tuple[float, float | None]:
        """The rate and ratio of traces that a publisher begins."""
        control = self._control
        if control is None or not _selects(control, topic, endpoint_id, is_publisher=True):
            return default
        if control.trace_ratio is not None:
            return default[0], control.trace_ratio
        return default if control.trace_rate is None else (control.trace_rate, None)


def collects_nothing(control: ProfilingTraceControl) -> bool:
    """Whether a control is about levels and traces alone, and leaves samples as they are."""
    return (
        control.enabled
        and control.metrics is not None
        and not control.metrics
        and any(value is not None for value in (control.trace_rate, control.trace_ratio, control.level))
    )


def _selects(control: ProfilingTraceControl, topic: str, endpoint_id: str, *, is_publisher: bool) -> bool:
    if is_publisher:
        topics, ids = control.publisher_topics, control.publisher_endpoint_ids
    else:
        topics, ids = control.subscriber_topics, control.subscriber_endpoint_ids
    return not ((topics and topic not in topics) or (ids and endpoint_id not in ids))


def check(control: ProfilingTraceControl) -> None:
    """Refuse what would only fail later, where an endpoint opens or a message is sent: it may come from elsewhere.

    Raises:
        InvalidTraceControl: A field cannot be used.
    """
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
    rate: Any = getattr(control, "trace_rate", None)
    if rate is not None and not (_is_number(rate) and 0 <= rate < math.inf):
        raise InvalidTraceControl("trace_rate", rate, "traces a second, or None")
    ratio: Any = getattr(control, "trace_ratio", None)
    if ratio is not None and not (_is_number(ratio) and 0 <= ratio <= 1):
        raise InvalidTraceControl("trace_ratio", ratio, "a share from 0 to 1, or None")
    level: Any = getattr(control, "level", None)
    if level is not None and level not in LEVELS:
        raise InvalidTraceControl("level", level, f"one of {', '.join(LEVELS)}, or None")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
