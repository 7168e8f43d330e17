"""Addresses in few columns, still told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

ELLIPSIS = "…"
ARROW = " → "


def unit_of(topic: str) -> str:
    """The unit that a stream belongs to; a topic without one is its own."""
    return topic.rpartition("/")[0] or topic


def elided(text: str, width: int) -> str:
    """At most `width` columns of an address: its parents are shortened first, then all parts, then its beginning goes.

    Parts keep their first and last letters: what tells one from another is mostly a number at the end.
    """
    *parents, last = text.split("/")
    short = "/".join([*(_shortened(part, 1) for part in parents), last])
    shorter = "/".join([*(_shortened(part, 1) for part in parents), _shortened(last, 3)])
    for candidate in (text, short, shorter):
        if len(candidate) <= width:
            return candidate
    return ELLIPSIS + shorter[len(shorter) - width + 1 :] if width > 1 else ELLIPSIS[:width]


def _shortened(part: str, letters: int) -> str:
    return part if len(part) <= letters + 3 else f"{part[:letters]}{ELLIPSIS}{part[-2:]}"


def edge_text(source: str, target: str, width: int) -> str:
    """`SOURCE → TARGET` within `width` columns, both sides legible."""
    room = width - len(ARROW)
    half = room // 2
    left = min(len(source), max(half, room - len(target)))
    return f"{elided(source, left)}{ARROW}{elided(target, room - left)}"


class EdgeNames:
    """How edges are called where there is little room.

    Units instead of streams where no other edge would have the same name, and without the root that all share.

    Args:
        edges: All edges that are shown, as pairs of topics.
    """

    def __init__(self, edges: Collection[tuple[str, str]]) -> None:
        """Look at all of them."""
        edges = set(edges)
        units = Counter((unit_of(source), unit_of(target)) for source, target in edges)
        self._ambiguous = {pair for pair, count in units.items() if count > 1}
        self._root = common_root({topic for edge in edges for topic in edge})

    def of(self, topic: str, subscription: str) -> tuple[str, str]:
        """The names of both ends."""
        pair = unit_of(topic), unit_of(subscription)
        ends = (topic, subscription) if pair in self._ambiguous else pair
        return ends[0].removeprefix(self._root), ends[1].removeprefix(self._root)


def common_root(topics: Collection[str]) -> str:
    """The first part of all addresses, with its slash, if something is left of each unit without it."""
    roots = {topic.partition("/")[0] for topic in topics}
    if len(roots) != 1 or not all(topic.count("/") >= 2 for topic in topics):
        return ""
    return f"{roots.pop()}/"
