"""Medians, ratios, the table and the order of runs: what the comparison computes, without measuring anything."""

from collections import Counter

import pytest

from benchmarks.cells import ALL, BY_NAME, DEFAULT, SMOKE, Cell, schedule, select
from benchmarks.payloads import PAYLOADS
from benchmarks.summary import Run, Spread, pairs, ratios, summarise, table, tail_of

THROUGHPUT = Cell("throughput", "shm", "ndarray-64B")
ROUNDTRIP = Cell("roundtrip", "tcp", "ndarray-64B", hops=1)


def rates(implementation: str, *values: float | None, cell: Cell = THROUGHPUT) -> list[Run]:
    """One run per round; None is a failed one."""
    return [
        Run(number, cell.name, implementation, None if value is None else {"rate": value})
        for number, value in enumerate(values)
    ]


def test_a_spread_is_median_lowest_and_highest() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0, 5.0]) == Spread(median=3.0, low=1.0, high=10.0)


def test_there_is_no_spread_of_nothing() -> None:
    assert Spread.of([]) is None


def test_a_ratio_compares_runs_of_the_same_round_only() -> None:
    assert ratios({0: 10.0, 1: 30.0, 3: 8.0}, {0: 5.0, 2: 1.0, 3: 16.0}) == [2.0, 0.5]


def test_the_ratio_is_the_median_of_ratios_not_the_ratio_of_medians() -> None:
    # The machine was three times as slow in the second round, for both.
    runs = rates("ours", 300.0, 100.0, 260.0) + rates("peer", 150.0, 50.0, 200.0)
    (row,) = summarise(runs, [THROUGHPUT], ["ours", "peer"])
    assert row.ratios == {"ours/peer": Spread(median=2.0, low=1.3, high=2.0)}
    assert row.values["ours"] == Spread(median=260.0, low=100.0, high=300.0)


def test_a_failed_round_counts_for_nobody() -> None:
    runs = rates("ours", 100.0, None, 100.0) + rates("peer", 50.0, 1.0, None)
    (row,) = summarise(runs, [THROUGHPUT], ["ours", "peer"])
    assert row.ratios["ours/peer"] == Spread(2.0, 2.0, 2.0)
    assert row.values["peer"] == Spread(median=25.5, low=1.0, high=50.0)


def test_runs_of_another_cell_are_not_mixed_in() -> None:
    other = Cell("throughput", "tcp", "ndarray-64B")
    runs = rates("ours", 1.0) + rates("ours", 1000.0, cell=other)
    rows = summarise(runs, [other, THROUGHPUT], ["ours"])
    assert [(row.cell, row.values["ours"]) for row in rows] == [
        (other.name, Spread(1000.0, 1000.0, 1000.0)),
        (THROUGHPUT.name, Spread(1.0, 1.0, 1.0)),
    ]


def test_without_ours_there_are_values_and_no_ratios() -> None:
    (row,) = summarise(rates("peer", 1.0), [THROUGHPUT], ["peer", "pyzmq"])
    assert row.values == {"peer": Spread(1.0, 1.0, 1.0), "pyzmq": None}
    assert row.ratios == {}


def test_others_divide_ours_and_ours_divides_its_variants() -> None:
    assert pairs(["ours", "ours:trace-all", "peer"]) == [("ours:trace-all", "ours"), ("ours", "peer")]
    runs = rates("ours", 100.0, 10.0) + rates("ours:trace-all", 75.0, 5.0)
    (row,) = summarise(runs, [THROUGHPUT], ["ours", "ours:trace-all"])
    assert row.ratios == {"ours:trace-all/ours": Spread(median=0.625, low=0.5, high=0.75)}


def test_a_round_trip_has_a_row_for_its_median_and_one_for_its_p99() -> None:
    runs = [Run(0, ROUNDTRIP.name, "ours", {"median": 100.0, "p99": 250.0, "messages": 9.0})]
    rows = summarise(runs, [ROUNDTRIP], ["ours"])
    assert [(row.metric, row.unit, row.higher_is_better) for row in rows] == [
        ("median", "µs", False),
        ("p99", "µs", False),
    ]


def test_the_table_shows_values_ratios_and_failures_in_straight_columns() -> None:
    runs = rates("ours", 20000.0, 30000.0, 10000.0) + rates("peer", 10000.0, 10000.0, 10000.0)
    text = table(summarise(runs, [THROUGHPUT], ["ours", "peer", "pyzmq"]))
    header, rule, line, *_ = text.splitlines()
    assert header.split() == ["cell", "unit", "ours", "peer", "pyzmq", "ours/peer", "ours/pyzmq"]
    assert set(rule) == {"─", " "}
    assert line.split("  ")[0] == "throughput-shm-ndarray-64B"
    for column, shown in {
        "unit": "msgs/s ↑",
        "ours": "20,000 (10,000..30,000)",
        "peer": "10,000 ",
        "pyzmq": "failed",
        "ours/peer": "2.00 (1.00..3.00)",
        "ours/pyzmq": "-",
    }.items():
        assert line[header.index(f" {column}") + 1 :].startswith(shown)


def test_a_cell_that_is_not_for_a_rival_has_no_figure_and_has_not_failed() -> None:
    runs = rates("ours", 1000.0) + rates("zenoh", 500.0)
    other_cell = Cell("throughput", "tcp", "ndarray-64B")
    _, _, line, other, *_ = table(summarise(runs, [THROUGHPUT, other_cell], ["ours", "zenoh"])).splitlines()
    assert line.split()[-3:] == ["1,000", "500", "2.00"]
    assert other.split()[-3:] == ["failed", "-", "-"]


def test_lost_messages_are_marked() -> None:
    lossy = [Run(number, THROUGHPUT.name, "zenoh", {"rate": 500.0, "lost": 600}) for number in range(2)]
    text = table(summarise(rates("ours", 1000.0) + lossy, [THROUGHPUT], ["ours", "zenoh"]))
    assert "500 !1,200" in text
    assert "were lost" in text
    assert "were lost" not in table(summarise(rates("ours", 1000.0), [THROUGHPUT], ["ours"]))


def test_a_table_of_nothing_says_so() -> None:
    assert table([]) == "nothing was measured\n"


def test_every_round_runs_each_cell_with_everyone_and_another_one_goes_first() -> None:
    names = ["ours", "peer", "pyzmq"]
    jobs = list(schedule((THROUGHPUT, ROUNDTRIP), names, rounds=3))
    assert Counter(jobs) == Counter(
        (number, cell, name) for number in range(3) for cell in (THROUGHPUT, ROUNDTRIP) for name in names
    )
    of_one_cell = [(number, name) for number, cell, name in jobs if cell == THROUGHPUT]
    assert of_one_cell[0::3] == [(0, "ours"), (1, "peer"), (2, "pyzmq")]


def test_the_implementations_of_a_cell_follow_each_other_directly() -> None:
    jobs = list(schedule(DEFAULT, ["ours", "peer"], rounds=2))
    for one, other in zip(jobs[0::2], jobs[1::2], strict=True):
        assert one[:2] == other[:2]
        assert one[2] != other[2]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ([], [cell.name for cell in DEFAULT]),
        (["roundtrip-shm"], ["roundtrip-shm-ndarray-64B"]),
        (["throughput-*-ndarray-8MB"], [f"throughput-{kind}-ndarray-8MB" for kind in ("local", "shm", "tcp")]),
        (["nothing like it"], []),
    ],
)
def test_cells_are_chosen_by_a_part_of_their_name_or_a_pattern(patterns: list[str], names: list[str]) -> None:
    assert [cell.name for cell in select(DEFAULT, patterns)] == names


def test_rivals_run_only_the_cells_for_them() -> None:
    jobs = list(schedule((THROUGHPUT, ROUNDTRIP), ["ours", "zenoh"], rounds=1))
    assert [(cell, name) for _, cell, name in jobs] == [
        (THROUGHPUT, "ours"),
        (THROUGHPUT, "zenoh"),
        (ROUNDTRIP, "ours"),
    ]


def test_names_of_cells_are_unique_and_their_payloads_known() -> None:
    assert len(BY_NAME) == len(ALL)
    assert {cell.payload for cell in ALL} == PAYLOADS.keys()
    assert all(BY_NAME[cell.name] == cell for cell in SMOKE)
    assert all(cell.share * cell.receiving == cell.subscribers for cell in ALL)


@pytest.mark.parametrize(
    ("cell", "name", "roles"),
    [
        (THROUGHPUT, "throughput-shm-ndarray-64B", ["source-0"]),
        (ROUNDTRIP, "roundtrip-tcp-ndarray-64B", ["hop-0"]),
        (
            Cell("fanout", "tcp", "ndarray-1MB", subscribers=6, receiving=3),
            "fanout6in3-tcp-ndarray-1MB",
            ["receivers-1", "receivers-2", "source-0"],
        ),
        (Cell("fanin", "local", "ndarray-64B", publishers=4), "fanin4-local-ndarray-64B", ["source-0"]),
        (Cell("relay", "shm", "ndarray-64B", hops=2), "relay2-shm-ndarray-64B", ["hop-1", "hop-0", "source-0"]),
        (Cell("relaytime", "shm", "ndarray-64B", hops=2), "relaytime2-shm-ndarray-64B", ["hop-1", "hop-0"]),
        (Cell("handoff", "local", "ndarray-64B"), "handoff-local-ndarray-64B", []),
        (Cell("throughput", "shm", "x", num_buffers=1), "throughput-shm-x-buffers1", ["source-0"]),
    ],
)
def test_a_cell_has_a_name_and_roles_from_its_end_to_its_source(cell: Cell, name: str, roles: list[str]) -> None:
    assert (cell.name, cell.roles) == (name, roles)


def test_the_tail_of_an_error_leaves_out_source_lines_and_the_beginning() -> None:
    stderr = 'Traceback:\n  File "a.py", line 1, in f\n    secret()\nValueError: no\n\n'
    assert tail_of(stderr) == 'Traceback:\n  File "a.py", line 1, in f\nValueError: no'
    assert tail_of(stderr, limit=1) == "ValueError: no"
