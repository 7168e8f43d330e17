"""Who is to blame for waiting, from who waited for whom."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ezmsg.core.telemetry.culprit import Waits, report

Edges = dict[tuple[str, str], float]


def blamed(blame: Edges, chains: Edges, held: dict[str, float]) -> dict[str, float]:
    waits = Waits(blame, chains, held)
    return {culprit.subscription: culprit.wait_seconds for culprit in report(waits, 1.0).culprits}


def test_who_waited_for_nobody_is_to_blame_itself() -> None:
    found = report(Waits({("A", "FAST"): 1.0, ("A", "SLOW"): 3.0}), 2.0)
    assert found.window_seconds == 2.0
    assert [(wait.topic, wait.subscription, wait.wait_seconds) for wait in found.waits] == [
        ("A", "SLOW", 3.0),
        ("A", "FAST", 1.0),
    ]
    assert [(culprit.subscription, culprit.share) for culprit in found.culprits] == [("SLOW", 0.75), ("FAST", 0.25)]


def test_blame_is_passed_along_a_chain_to_its_end() -> None:
    blame = {("A", "B"): 4.0, ("B.OUT", "C"): 4.0, ("C.OUT", "D"): 4.0}
    chains = {("B", "C"): 4.0, ("C", "D"): 4.0}
    assert blamed(blame, chains, {"B": 4.0, "C": 4.0, "D": 4.0}) == {"D": 12.0}


def test_who_waits_only_part_of_the_time_keeps_the_rest_of_the_blame() -> None:
    found = blamed({("A", "B"): 8.0}, {("B", "C"): 2.0}, {"B": 8.0})
    assert found == {"B": pytest.approx(6.0), "C": pytest.approx(2.0)}


def test_who_waits_for_several_passes_blame_on_to_each_in_proportion() -> None:
    found = blamed({("A", "B"): 8.0}, {("B", "C"): 2.0, ("B", "D"): 4.0}, {"B": 8.0})
    assert found == {"B": pytest.approx(2.0), "C": pytest.approx(2.0), "D": pytest.approx(4.0)}


def test_units_in_a_circle_share_what_nobody_caused_alone() -> None:
    found = blamed({("A", "B"): 1.0, ("B.OUT", "A.IN"): 1.0}, {("B", "A.IN"): 1.0, ("A.IN", "B"): 1.0}, {})
    assert sum(found.values()) == pytest.approx(2.0)


def test_nothing_that_waited_has_no_culprit() -> None:
    assert report(Waits(), 0.0).culprits == []


TOPICS = st.sampled_from("ABCDE")
SECONDS = st.floats(0, 10)


@given(
    st.dictionaries(st.tuples(TOPICS, TOPICS), SECONDS),
    st.dictionaries(st.tuples(TOPICS, TOPICS), SECONDS),
    st.dictionaries(TOPICS, SECONDS),
)
@example({("A", "B"): 1.5}, {("B", "A"): 5e-324}, {})
def test_all_waiting_is_blamed_on_somebody(blame: Edges, chains: Edges, held: dict[str, float]) -> None:
    assert sum(blamed(blame, chains, held).values()) == pytest.approx(sum(blame.values()), rel=1e-6, abs=1e-9)
