"""The edges of a run: endpoints become addresses, and pass through the hidden units of relays."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from ezmsg.core.errors import InvalidResult, NotAddressed
from ezmsg.core.relay import Relay, RelayUnit
from ezmsg.core.stream import InputRelay, InputStream, OutputStream, Stream

logger = logging.getLogger("ezmsg")

Pair = tuple[str, str]


def address_pairs(definition: Any, source: str) -> list[Pair]:
    """The edges of a network definition as addresses; strings are topics, verbatim.

    Args:
        definition: An iterable of pairs of Stream, str or members of an Enum.
        source: Where it comes from, for errors.

    Raises:
        InvalidResult: It is none, or holds something else.
    """
    if not _is_series(definition):
        raise InvalidResult(source, definition, "an iterable of pairs (from, to)")
    return [_pair(edge, source) for edge in definition]


def _pair(edge: Any, source: str) -> Pair:
    ends: list[Any] = list(edge) if _is_series(edge) else []
    if len(ends) != 2:
        raise InvalidResult(source, edge, "a pair (from, to)")
    pair = _topic(ends[0], source), _topic(ends[1], source)
    is_backwards = isinstance(ends[0], InputStream) and isinstance(ends[1], OutputStream)
    # From the input to the output of one component is the way past it: a collection may pass on what it gets.
    if is_backwards and ends[0].location != ends[1].location:
        logger.warning("%s connects the input %s to the output %s: a pair is (from, to)", source, *pair)
    return pair


def _is_series(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, Mapping))


def _topic(endpoint: Any, source: str) -> str:
    if isinstance(endpoint, Stream):
        try:
            return endpoint.address
        except NotAddressed as error:
            raise InvalidResult(
                source, endpoint, "a stream of a component of this run (of self, not of the class)"
            ) from error
    if isinstance(endpoint, str):
        return str.__str__(endpoint)
    if isinstance(endpoint, Enum):
        return endpoint.name
    raise InvalidResult(source, endpoint, "a stream, a topic, the name of a topic, or a member of an Enum")


def through_relays(pairs: Iterable[Pair], hidden: Mapping[Relay, RelayUnit]) -> list[Pair]:
    """The edges with the hidden unit of each relay between its endpoint and what lies inwards (input) or outwards.

    Args:
        pairs: Edges as the networks say them.
        hidden: The unit behind each relay.
    """
    sources: dict[str, str] = {}
    targets: dict[str, str] = {}
    added: list[Pair] = []
    for endpoint, unit in hidden.items():
        if isinstance(endpoint, InputRelay):
            sources[endpoint.address] = unit.OUTPUT.address
            added.append((endpoint.address, unit.INPUT.address))
        else:
            targets[endpoint.address] = unit.INPUT.address
            added.append((unit.OUTPUT.address, endpoint.address))
    edges = [(sources.get(start, start), targets.get(end, end)) for start, end in pairs]
    return list(dict.fromkeys(edges + added))
