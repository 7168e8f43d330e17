"""From samples to what one of each kind adds."""

from benchmarks.memory import Sample, Step, differences, table


def sample(heap: int, private: int, shared: int = 0, descriptors: int = 0) -> Sample:
    return {"heap": heap, "private": private, "shared": shared, "descriptors": descriptors}


STEPS: list[Step] = [
    ("", 1, sample(1000, 5000, 10, 3)),
    ("publisher", 2, sample(3000, 9000, 10, 9)),
    ("", 1, sample(100_000, 100_000, 0, 0)),
    ("edge", 4, sample(100_400, 100_000, 8, 4)),
]


def test_what_is_added_is_divided_by_its_number_and_starts_anew_after_a_step_without_name() -> None:
    assert differences(STEPS) == [
        ("publisher", {"heap": 1000.0, "private": 2000.0, "shared": 0.0, "descriptors": 3.0}),
        ("edge", {"heap": 100.0, "private": 0.0, "shared": 2.0, "descriptors": 1.0}),
    ]


def test_the_table_takes_allocations_from_one_run_and_the_rest_from_the_other() -> None:
    traced: list[Step] = [("", 1, sample(0, 0)), ("publisher", 2, sample(2468, 99, 99, 99))]
    header, line = table(traced, STEPS[:2]).splitlines()
    assert header.split()[-4:] == ["heap", "private", "shared", "descriptors"]
    assert line.split() == ["publisher", "1,234", "2,000", "0", "3.0"]
