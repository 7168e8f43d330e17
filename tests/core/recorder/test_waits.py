"""How long a publisher waited, and for whom."""

from __future__ import annotations

from ezmsg.core.recorder.rows import clock
from ezmsg.core.recorder.waits import HOLDERS, OTHERS, Waits


def test_holders_beyond_a_limit_are_counted_together() -> None:
    waits = Waits()
    for number in range(HOLDERS + 5):
        waits.began(clock(), 0, "IN")
        waits.ended(10, f"T{number}")
    values = waits.counters()
    total_ns = values.pop("backpressure_ns")
    assert values[f"blame_ns:{OTHERS}"] == values[f"chain_ns:{OTHERS}"] == 50
    assert len(values) == 2 * (HOLDERS + 1)
    assert total_ns == sum(count for name, count in values.items() if name.startswith("blame_ns")) == 10 * (HOLDERS + 5)


def test_what_is_told_of_a_wait_that_is_on_is_not_counted_again() -> None:
    waits = Waits()
    waits.holder = "SLOT {}".format
    waits.began(clock() - 1, 3, "")
    told = waits.counters()
    assert told["blame_ns:SLOT 3"] == told["backpressure_ns"] >= 1e9
    waits.ended(told["backpressure_ns"] + 7, "LAST")
    assert waits.counters() == told | {"blame_ns:LAST": 7, "backpressure_ns": told["backpressure_ns"] + 7}
