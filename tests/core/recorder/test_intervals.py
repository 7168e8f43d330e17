from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core.recorder.intervals import STRETCHES, Stretch, Stretches


def one(message_id: int, start_ns: int, *, is_linked: bool = False) -> Stretch:
    return Stretch(message_id, start_ns, is_linked, message_id, start_ns)


@given(st.permutations(range(10)))
def test_every_interval_is_closed_once_in_whatever_order_messages_come(order: list[int]):
    known = Stretches()
    closed = [interval for number in order for interval in known.add(one(number, 2**number))]
    assert sorted(closed) == [2**number for number in range(9)]
    assert known.start_before(10) == 2**9


def test_an_interval_that_was_counted_already_is_not_closed_again():
    known = Stretches()
    assert known.add(one(4, 40, is_linked=True)) == []
    assert known.add(one(3, 30)) == []
    assert known.add(one(5, 50)) == [10]


def test_where_messages_are_missing_nothing_is_closed():
    known = Stretches()
    assert known.add(one(1, 10)) == known.add(one(3, 30)) == []
    assert known.start_before(3) is None


def test_numbers_may_begin_anew():
    known = Stretches()
    known.add(Stretch(0, 0, False, 5, 50))
    assert known.add(one(0, 100)) == []
    assert known.add(one(1, 107)) == [7]


def test_of_stretches_that_never_meet_the_one_untouched_for_longest_is_forgotten():
    known = Stretches()
    known.add(one(0, 0))
    for number in range(STRETCHES - 1):
        known.add(one(1000 + 2 * number, 1))
    known.add(one(1, 7))
    for number in range(STRETCHES):
        known.add(one(5000 + 2 * number, 1))
        known.add(one(2 + number, 7))
    assert known.start_before(2 + STRETCHES) == 7
    assert known.start_before(1001) is None
