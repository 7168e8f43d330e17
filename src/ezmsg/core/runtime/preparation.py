"""From components as a user made them to what a run starts: names, edges, processes and settings, in that order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Collection as AbstractCollection
from dataclasses import dataclass
from typing import Any, TypeVar

from ezmsg.core.collection import Collection, NetworkDefinition
from ezmsg.core.component import Component
from ezmsg.core.errors import ConfigError, InvalidComponents, InvalidResult, NameClash, NotAComponent
from ezmsg.core.relay import Relay, RelayUnit, add_hidden_units, relay_settings
from ezmsg.core.runtime.network import Pair, address_pairs, through_relays
from ezmsg.core.runtime.placement import place
from ezmsg.core.unit import Unit, published, subscribed, tasks_of
from ezmsg.core.wire.records.fields import require_name

logger = logging.getLogger("ezmsg")
T = TypeVar("T")
# The stream through which a component takes new settings.
SETTINGS_INPUT = "INPUT_SETTINGS"


@dataclass(frozen=True)
class Preparation:
    """Components ready to run.

    Attributes:
        root_name: First part of all addresses, if there is one.
        components: The top of the tree, by name; named and placed, hidden units included.
        connections: All edges, as addresses.
        processes: The units of each process; the first runs in the calling process.
    """

    root_name: str | None
    components: dict[str, Component]
    connections: list[Pair]
    processes: list[list[Unit]]


def prepare(
    components: Mapping[str, Component],
    root_name: str | None = None,
    connections: NetworkDefinition | None = None,
    process_components: AbstractCollection[Component] | None = None,
    force_single_process: bool = False,
) -> Preparation | None:
    """Name and place components, ask them for their network and processes, and let them configure their children.

    Components can be prepared once.

    Returns:
        What to run; None if there are no units.

    Raises:
        AlreadyAddressed: A component is part of a run already, or stands in two places.
        NotAComponent: A value of `components` is something else.
        InvalidResult: `connections`, or what a component's method returned, cannot be used.
        NameClash: Two components have one address, or a child has that of the hidden unit of a relay.
    """
    top = dict(components)
    _address(top, root_name)
    collections = [it for it in walk(top.values()) if isinstance(it, Collection)]
    hidden: dict[Relay, RelayUnit] = {}
    for collection in collections:
        hidden |= add_hidden_units(collection)
    pairs = [pair for collection in collections for pair in _network(collection)]
    pairs += address_pairs(() if connections is None else connections, "connections")
    listed = _series(process_components, "process_components") if process_components is not None else []
    for entry in listed:
        if not any(entry is component for component in top.values()):
            logger.warning("process_components has %.200r, which is none of %s: ignored", entry, ", ".join(top))
    processes = place(top.values(), listed, _listed_by, force_single_process)
    for collection in collections:
        _called(collection, collection.configure)
    for endpoint, unit in hidden.items():
        unit.apply_settings(relay_settings(endpoint))
    if not processes:
        return None
    edges = through_relays(pairs, hidden)
    for address in unfed(processes, edges):
        logger.info("nothing of this run leads to %s: it waits for what other programs connect to it", address)
    return Preparation(root_name, top, edges, processes)


def unfed(processes: Iterable[Iterable[Unit]], edges: Iterable[Pair]) -> list[str]:
    """The streams that a task receives from, and to which no edge leads. Settings may come or not."""
    units = [unit for units in processes for unit in units]
    fed = {end for _, end in edges} | {
        stream.address for unit in units for task in tasks_of(unit).values() for stream in published(unit, task)
    }
    streams = [stream for unit in units for task in tasks_of(unit).values() if (stream := subscribed(unit, task))]
    addresses = dict.fromkeys(stream.address for stream in streams if stream.name != SETTINGS_INPUT)
    return [address for address in addresses if address not in fed]


def walk(components: Iterable[Component]) -> Iterator[Component]:
    """All components of a tree, parents before children."""
    for component in components:
        yield component
        yield from walk(component.components.values())


def _address(components: Mapping[str, Any], root_name: str | None) -> None:
    if root_name is not None and not isinstance(root_name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError("root_name", root_name, "None or text")
    for name, component in components.items():
        if not isinstance(component, Component):
            raise NotAComponent(name, component)
        if not (isinstance(name, str) and name):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidComponents(f"{name!r:.100} cannot be the name of a component")
        require_name("the name of a component", name)
    for name, component in components.items():
        component._set_name(name)
        component._set_location([] if root_name is None else [root_name])
    seen: set[str] = set()
    for component in walk(components.values()):
        if component.address in seen:
            raise NameClash(component.address, "rename one of them")
        seen.add(component.address)


def _network(collection: Collection) -> list[Pair]:
    # An iterable may be a generator: its body runs here.
    return _called(collection, lambda: address_pairs(collection.network(), f"network() of {collection.address}"))


def _listed_by(collection: Collection) -> AbstractCollection[Component]:
    source = f"process_components() of {collection.address}"
    return _called(collection, lambda: _series(collection.process_components(), source))


def _series(components: Any, source: str) -> list[Component]:
    if not hasattr(components, "__iter__"):
        raise InvalidResult(source, components, "a collection of components, for example (self.CHILD,)")
    return list(components)


def _called(collection: Collection, method: Callable[[], T]) -> T:
    try:
        return method()
    except Exception as error:
        error.add_note(f"raised while the collection {collection.address} was prepared")
        raise
