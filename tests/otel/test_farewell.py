"""What is gone says 0, a few times."""

from __future__ import annotations

from ezmsg.otel.farewell import TIMES, Farewell
from ezmsg.otel.semconv import EDGE_INFO, NODE_INFO

NODE, EDGE = (NODE_INFO, (("id", "A"),)), (EDGE_INFO, (("source", "A"), ("target", "B")))


def test_what_is_gone_is_told_a_few_times_and_then_forgotten() -> None:
    farewell = Farewell()
    assert farewell.look({NODE, EDGE}) == []
    assert [farewell.look({NODE}) for _ in range(TIMES + 1)] == [[EDGE]] * TIMES + [[]]


def test_what_comes_back_is_gone_no_more() -> None:
    farewell = Farewell()
    farewell.look({EDGE})
    assert farewell.look(set()) == [EDGE]
    assert farewell.look({EDGE}) == []
    assert [farewell.look(set()) for _ in range(TIMES + 1)] == [[EDGE]] * TIMES + [[]]


def test_what_was_never_told_needs_no_farewell() -> None:
    assert Farewell().look(set()) == []
