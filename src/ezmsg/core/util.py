"""Small helpers that other packages import from here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from logging import LogRecord, StreamHandler
from typing import Any, TextIO, TypeVar, cast

T = TypeVar("T")


def is_dict_like(value: Any) -> bool:
    """Whether `value` has keys and can be subscripted with them."""
    return hasattr(value, "keys") and hasattr(value, "__getitem__")


def either_dict_or_kwargs(
    pos_kwargs: Mapping[str, T] | None, kw_kwargs: Mapping[str, T], func_name: str
) -> Mapping[str, T]:
    """What was given: a mapping as only positional argument of a function, or keywords.

    Raises:
        ValueError: Both were given, or the positional argument is no mapping.
    """
    if pos_kwargs is None:
        return kw_kwargs
    if not is_dict_like(pos_kwargs):
        raise ValueError(f"{func_name}() needs a mapping as its first argument, not {cast(Any, pos_kwargs)!r:.100}")
    if pos_kwargs and kw_kwargs:
        raise ValueError(f"{func_name}() takes a mapping or keywords, not both: {', '.join(map(str, kw_kwargs))}")
    return pos_kwargs or kw_kwargs


class LogHandler(StreamHandler[TextIO]):
    """Writes to standard error, and keeps nobody from working where a program has closed that."""

    def handleError(self, record: LogRecord) -> None:
        """Complain, if that is possible."""
        with suppress(ValueError):
            super().handleError(record)
