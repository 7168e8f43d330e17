import pytest

from ezmsg.core.recorder.budget import WINDOW_NS, Budget


def masks(budget: Budget, *rates: int) -> list[int]:
    """The mask after each window of one second."""
    found: list[int] = []
    rows = now = 0
    budget.note(rows, now)
    for rate in rates:
        rows, now = rows + rate, now + WINDOW_NS
        budget.note(rows, now)
        found.append(budget.mask)
    return found


def test_within_the_budget_everything_is_kept():
    assert masks(Budget(1000), 0, 999, 1000) == [0, 0, 0]


@pytest.mark.parametrize(("rate", "mask"), [(1001, 1), (2000, 1), (2001, 3), (8000, 7), (8001, 15)])
def test_the_smallest_power_of_two_that_fits_is_kept(rate: int, mask: int):
    assert masks(Budget(1000), rate) == [mask]


def test_a_burst_shorter_than_the_window_is_not_thinned():
    budget = Budget(1000)
    budget.note(0, 0)
    assert not budget.note(500_000, WINDOW_NS // 2)
    assert budget.mask == 0


def test_keeping_more_again_needs_a_margin():
    assert masks(Budget(1000), 3000, 1900, 1500, 900, 700) == [3, 3, 1, 1, 0]


def test_a_change_is_told():
    budget = Budget(1000)
    budget.note(0, 0)
    assert budget.note(5000, WINDOW_NS)
    assert not budget.note(10_000, 2 * WINDOW_NS)
