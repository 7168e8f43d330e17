"""Messages as JSON, and logs of them: a line for each message, with the time it was received at.

Dataclasses carry their class, arrays their bytes as base64, and whatever JSON does not know is a pickle: **read only
logs you trust**. Tuples come back as lists, and keys of dictionaries as text.
"""

from __future__ import annotations

import base64
import importlib
import json
import logging
import pickle
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from ezmsg.core.errors import LogLineUnreadable, UnknownMessageType

logger = logging.getLogger("ezmsg")

TYPE = "_type"
"""Key of an object that says what it is: `module:qualname` of a dataclass, or one of the two below."""
PICKLE_TYPE = "_pickle"
PICKLE_DATA = "data"
NDARRAY_TYPE = "_ndarray"
NDARRAY_DTYPE = "dtype"
NDARRAY_SHAPE = "shape"
NDARRAY_DATA = "data"
TIMESTAMP_ATTR = "_log_timestamp"

_PLAIN_KINDS = frozenset("biufcSU")
"""Arrays whose dtype a name describes, and whose memory can be written as it is."""


@dataclass
class LogStart:
    """The first message of a log; readers leave it out."""


class StampedMessage(NamedTuple):
    """A message with the time it was logged at, in Unix seconds."""

    msg: Any
    timestamp: float | None


class LoggedMessage(NamedTuple):
    """A line of a log.

    Attributes:
        msg: The message.
        timestamp: When it was logged, in Unix seconds.
        origin: When the first message of its chain was published, likewise; None if that is not known.
        traceparent: The span it was logged in, as W3C Trace Context has it; None if it was not traced.
    """

    msg: Any
    timestamp: float | None
    origin: float | None = None
    traceparent: str | None = None


# -- types by name ------------------------------------------------------------------------------------------------


def type_str(obj: Any) -> str:
    """The class of an object as `module:qualname`."""
    kind = cast(type[Any], type(obj))
    return f"{kind.__module__}:{kind.__qualname__}"


def import_type(typestr: str) -> type:
    """The class that `type_str` names, imported if need be.

    Raises:
        UnknownMessageType: There is none here.
    """
    module, _, qualname = typestr.partition(":")
    if not module or not qualname:
        raise UnknownMessageType(typestr, "expected module:qualname")
    try:
        found: Any = reduce(getattr, qualname.split("."), cast(Any, importlib.import_module(module)))
    except (ImportError, AttributeError) as error:
        raise UnknownMessageType(typestr, f"{error}") from error
    if not isinstance(found, type):
        raise UnknownMessageType(typestr, f"it is no class, but {found!r:.100}")
    return cast(type[Any], found)


# -- JSON ---------------------------------------------------------------------------------------------------------


class MessageEncoder(json.JSONEncoder):
    """Writes messages as JSON: `json.dumps(message, cls=MessageEncoder)`."""

    def default(self, o: Any) -> Any:
        """What stands for an object that JSON does not know. Whatever its pickling raises comes through."""
        kind = cast(type[Any], type(o))
        if is_dataclass(kind):
            return {field.name: getattr(o, field.name) for field in fields(kind)} | {TYPE: type_str(o)}
        if kind is np.ndarray and o.dtype.kind in _PLAIN_KINDS and o.dtype.metadata is None:
            return {
                TYPE: NDARRAY_TYPE,
                NDARRAY_DTYPE: str(o.dtype),
                NDARRAY_DATA: base64.b64encode(o.tobytes()).decode(),
                NDARRAY_SHAPE: o.shape,
            }
        return {TYPE: PICKLE_TYPE, PICKLE_DATA: base64.b64encode(pickle.dumps(o)).decode()}


class MessageDecoder(json.JSONDecoder):
    """Reads messages again: `json.loads(text, cls=MessageDecoder)`; arrays can be written to."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("object_hook", _object)
        super().__init__(**kwargs)


def _object(found: dict[str, Any]) -> Any:
    kind = found.get(TYPE)
    if kind == NDARRAY_TYPE:
        data = bytearray(base64.b64decode(found[NDARRAY_DATA]))
        return np.ndarray(tuple(found[NDARRAY_SHAPE]), np.dtype(found[NDARRAY_DTYPE]), data)
    if kind == PICKLE_TYPE:
        return pickle.loads(base64.b64decode(found[PICKLE_DATA]))
    if not (isinstance(kind, str) and ":" in kind):
        return found  # a dictionary of the program's own
    cls = import_type(kind)
    del found[TYPE]
    return _restored(cls, found)


def _restored(cls: type[Any], values: dict[str, Any]) -> Any:
    apart = [it.name for it in fields(cls) if not it.init and it.name in values] if is_dataclass(cls) else []
    message: Any = cls(**{name: value for name, value in values.items() if name not in apart})
    for name in apart:
        object.__setattr__(message, name, values[name])  # it may be frozen
    return message


_encode = MessageEncoder().encode
_decode = MessageDecoder().decode


# -- logs ---------------------------------------------------------------------------------------------------------


def log_line(
    obj: Any, timestamp: float | None = None, origin: float | None = None, traceparent: str | None = None
) -> str:
    """A line of a log, without its end.

    Args:
        obj: The message.
        timestamp: When it was received, in Unix seconds; now, if not given.
        origin: When the first message of its chain was published, in Unix seconds, if that is known.
        traceparent: The span it is logged in, if it is traced.
    """
    line: dict[str, Any] = {"ts": time.time() if timestamp is None else timestamp, "obj": obj}
    if origin is not None:
        line["origin"] = origin
    if traceparent is not None:
        line["traceparent"] = traceparent
    return _encode(line)


def read_line(line: bytes, path: Path, number: int) -> LoggedMessage:
    """What a line of a log says.

    Raises:
        LogLineUnreadable: It is broken, or the message cannot be made again here.
    """
    try:
        entry = _decode(line.decode())
        return LoggedMessage(entry["obj"], entry["ts"], entry.get("origin"), entry.get("traceparent"))
    except Exception as error:  # of constructors and pickles of whatever class
        raise LogLineUnreadable(str(path), number, f"{type(error).__name__}: {error}") from error


def is_torn(line: bytes) -> bool:
    """Whether the end of a line is missing, as when the writer was killed; only the last line of a log can be."""
    return not line.endswith(b"\n")


def message_log(fname: Path, return_object: bool = True) -> Generator[Any, None, None]:
    """The messages of a log, as they were received. A last line that the end of the writer cut short is left out.

    Args:
        fname: The log.
        return_object: Yield the messages; False for dictionaries of `ts`, the time a message was received at in Unix
            seconds, `obj`, the message, `origin`, when the first message of its chain was published, in Unix seconds,
            and `traceparent`, the span it was logged in. The last two are None where they are not known.

    Raises:
        LogLineUnreadable: A line cannot be read.
    """
    path = Path(fname)
    for number, line in _lines(path):
        try:
            entry = read_line(line, path, number)
        except LogLineUnreadable:
            if not is_torn(line):
                raise
            logger.warning("the last line of %s is torn, %d bytes are left out", path, len(line))
            return
        if not isinstance(entry.msg, LogStart):
            yield entry.msg if return_object else {
                "ts": entry.timestamp, "obj": entry.msg, "origin": entry.origin, "traceparent": entry.traceparent,
            }  # fmt: skip


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line
