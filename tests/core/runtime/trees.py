"""Trees of components for tests, made by hand or drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

import ezmsg.core as ez


class Part(ez.Unit):
    """A unit with one stream of each kind."""

    INPUT = ez.InputStream(int)
    OUTPUT = ez.OutputStream(int)


@ez.process
class Alone(Part):
    """A unit that always has a process of its own."""


class Crossing(ez.Collection):
    """A collection with every kind of endpoint."""

    TOPIC_IN = ez.InputTopic(int)
    TOPIC_OUT = ez.OutputTopic(int)
    RELAY_IN = ez.InputRelay(int)
    RELAY_OUT = ez.OutputRelay(int)


def collection(kind: type[ez.Collection] = ez.Collection, /, **children: ez.Component) -> Any:
    """A collection built by hand; its process_components() are `collection.listed`."""
    made: Any = kind()
    for name, child in children.items():
        made._components[name] = child
        setattr(made, name, child)
    made.listed = (made,)
    made.process_components = lambda: made.listed
    return made


@dataclass
class Tree:
    """Components by name, and who asks for processes."""

    top: dict[str, ez.Component]
    listed: list[ez.Component] = field(default_factory=list)


@st.composite
def trees(draw: st.DrawFn, kind: type[ez.Collection] = ez.Collection) -> Tree:
    """A tree of up to four levels in which any child, and things that are no children, are listed at random."""
    strangers: list[Any] = [Part(), Alone(), ez.Collection(), None, "A"]

    def children(depth: int) -> dict[str, ez.Component]:
        kinds = draw(st.lists(st.sampled_from("uuacc" if depth else "ua"), max_size=4))
        return {f"{kind.upper()}{index}": component(kind, depth) for index, kind in enumerate(kinds)}

    def component(letter: str, depth: int) -> ez.Component:
        if letter != "c":
            return Part() if letter == "u" else Alone()
        made = collection(kind, **children(depth - 1))
        made.listed = draw(st.none() | listed(made.components.values())) or made.listed
        return made

    def listed(candidates: Iterable[ez.Component]) -> st.SearchStrategy[list[Any]]:
        return st.lists(st.sampled_from([*candidates, *strangers]), max_size=4)

    top = children(3)
    return Tree(top, draw(listed(top.values())))


def units(components: Iterable[ez.Component]) -> Iterator[ez.Unit]:
    """All units, in order."""
    for it in components:
        if isinstance(it, ez.Unit):
            yield it
        yield from units(it.components.values())


def collections(components: Iterable[ez.Component]) -> Iterator[Any]:
    """All collections, parents before children."""
    for it in components:
        if isinstance(it, ez.Collection):
            yield it
        yield from collections(it.components.values())
