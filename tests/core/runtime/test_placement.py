from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given

import ezmsg.core as ez
from ezmsg.core.runtime.placement import place
from tests.core.runtime.trees import Alone, Part, Tree, collection, trees, units


def placed(top: Iterable[ez.Component], listed: Iterable[Any] = (), single: bool = False) -> list[list[ez.Unit]]:
    return place(list(top), list(listed), lambda it: list(it.process_components()), single)


def owners(tree: Tree) -> dict[ez.Unit, Any]:
    """For each unit the component whose process it is in, found by looking upwards; None for the first process."""
    found: dict[ez.Unit, Any] = {}

    def visit(component: ez.Component, listed: list[Any], owner: Any) -> None:
        is_listed = any(component is entry for entry in listed)
        if isinstance(component, ez.Unit):
            found[component] = component if is_listed or isinstance(component, Alone) else owner
            return
        assert isinstance(component, ez.Collection)
        for child in component.components.values():
            visit(child, list(component.process_components()), component if is_listed else owner)

    for component in tree.top.values():
        visit(component, tree.listed, None)
    return found


# -- by example ---------------------------------------------------------------------------------------------------


def test_units_nobody_asks_a_process_for_share_the_first() -> None:
    a, b, c = Part(), Part(), Part()
    assert placed([a, collection(B=b, INNER=collection(C=c))]) == [[a, b, c]]


def test_a_listed_unit_has_a_process_of_its_own() -> None:
    a, b, c = Part(), Part(), Part()
    system = collection(A=a, B=b, C=c)
    system.listed = (a, b)
    assert placed([system]) == [[c], [a], [b]]


def test_listed_top_level_components_have_processes_of_their_own() -> None:
    a, b, c = Part(), Part(), Part()
    inner = collection(B=b, C=c)
    assert placed([a, inner], [inner]) == [[a], [b, c]]
    assert placed([a, inner], [a]) == [[b, c], [a]]


def test_a_listed_collection_puts_what_is_left_of_it_in_one_process() -> None:
    a, b, c, d, e = Part(), Part(), Part(), Part(), Part()
    deep = collection(D=d)
    inner = collection(B=b, C=c, DEEP=deep)
    inner.listed = (c,)
    system = collection(A=a, INNER=inner, E=e)
    system.listed = (inner,)
    assert placed([system]) == [[a, e], [c], [b, d]]


def test_a_process_unit_always_has_its_own() -> None:
    alone, a = Alone(), Part()
    assert placed([collection(A=a, ALONE=alone)]) == [[a], [alone]]


def test_the_first_group_found_is_the_first_process_where_nothing_is_left_over() -> None:
    a, b = Part(), Part()
    system = collection(A=a, B=b)
    system.listed = (b, a)
    assert placed([system]) == [[a], [b]]


def test_the_default_of_a_nested_collection_makes_no_process() -> None:
    a, b = Part(), Part()
    inner = collection(B=b)
    assert inner.process_components() == (inner,)
    assert placed([collection(A=a, INNER=inner)]) == [[a, b]]


def test_entries_that_match_no_child_are_ignored() -> None:
    class System(ez.Collection):
        A = Part()
        B = Part()

        def process_components(self) -> Any:
            return (System.A, Part(), "A", None)

    system = System()
    assert placed([system], [Part()]) == [[system.A, system.B]]


def test_one_process_is_forced() -> None:
    a, alone, b = Part(), Alone(), Part()
    system = collection(A=a, ALONE=alone, B=b)
    system.listed = (b,)
    assert placed([system], [system], single=True) == [[alone, b, a]]


def test_nothing_needs_no_process() -> None:
    assert placed([]) == placed([], single=True) == []
    empty = collection(INNER=collection())
    assert placed([empty], [empty]) == placed([empty], [empty], single=True) == []


def test_each_collection_is_asked_once() -> None:
    asked: list[Any] = []
    inner = collection(A=Part())
    outer = collection(INNER=inner, EMPTY=collection())
    place([outer], [], lambda it: asked.append(it) or ())
    assert asked == [outer, inner, outer.EMPTY]


# -- any tree -----------------------------------------------------------------------------------------------------


@given(trees())
def test_every_unit_is_in_exactly_one_process(tree: Tree) -> None:
    groups = placed(tree.top.values(), tree.listed)
    assert all(groups)
    everywhere = [unit for group in groups for unit in group]
    assert len(everywhere) == len(set(everywhere))
    assert set(everywhere) == set(units(tree.top.values()))


@given(trees())
def test_units_share_a_process_exactly_if_they_have_the_same_owner(tree: Tree) -> None:
    by_owner: dict[Any, set[ez.Unit]] = {}
    for unit, owner in owners(tree).items():
        by_owner.setdefault(owner, set()).add(unit)
    groups = [set(group) for group in placed(tree.top.values(), tree.listed)]
    assert sorted(map(sorted_ids, groups)) == sorted(map(sorted_ids, by_owner.values()))
    if None in by_owner:
        assert groups[0] == by_owner[None]


@given(trees())
def test_units_of_a_process_keep_their_order(tree: Tree) -> None:
    order = list(units(tree.top.values()))
    for group in placed(tree.top.values(), tree.listed):
        assert group == sorted(group, key=order.index)


@given(trees())
def test_a_single_process_holds_all_units(tree: Tree) -> None:
    groups = placed(tree.top.values(), tree.listed, single=True)
    found = list(units(tree.top.values()))
    assert len(groups) == bool(found)
    assert {unit for group in groups for unit in group} == set(found)


def sorted_ids(group: set[ez.Unit]) -> list[int]:
    return sorted(map(id, group))
