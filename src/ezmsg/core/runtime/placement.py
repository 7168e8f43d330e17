"""Which unit runs in which process: a pure function of the tree of components."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from ezmsg.core.collection import Collection as ComponentCollection
from ezmsg.core.component import Component
from ezmsg.core.unit import Unit, is_process

Group = list[Unit]
Listed = Callable[[ComponentCollection], Collection[Component]]


def place(
    components: Iterable[Component],
    listed: Collection[Component],
    listed_by: Listed,
    force_single_process: bool = False,
) -> list[Group]:
    """Divide all units below `components` among processes.

    Args:
        components: The top of the tree.
        listed: Those of them that get a process of their own.
        listed_by: Tells which children of a collection get one; asked once for each collection.
        force_single_process: Whether all units share one process.

    Returns:
        The units of each process; each in exactly one, none empty, and the first runs in the calling process: it holds
        what asks for no process. Without such units, the first group found takes that role.
    """
    groups, rest = _place(components, listed, listed_by)
    if rest:
        groups.insert(0, rest)
    return [[unit for group in groups for unit in group]] if force_single_process and groups else groups


def _place(
    components: Iterable[Component], listed: Collection[Component], listed_by: Listed
) -> tuple[list[Group], Group]:
    """The processes below `components`, and the units for which nobody asked one."""
    groups: list[Group] = []
    rest: Group = []
    for component in components:
        if isinstance(component, ComponentCollection):
            inner_groups, units = _place(component.components.values(), listed_by(component), listed_by)
            groups += inner_groups
        else:
            units = [component] if isinstance(component, Unit) else []
        is_alone = is_process(component) or any(component is entry for entry in listed)
        if is_alone and units:
            groups.append(units)
        else:
            rest += units
    return groups, rest
