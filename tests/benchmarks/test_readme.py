"""The table of figures in README.md, made from what a comparison measured."""

import pytest

from benchmarks.readme import BEGIN, END, README, replaced

MEASURED = {
    "date": "2026-11-25T20:09:08+00:00",
    "revision": "c25c060f4223",
    "machine": {"system": "Linux 6.18", "processor": "AMD EPYC", "cpus": 2, "memory_bytes": 24 << 30},
    "versions": {"ours": {"python": "3.11.7"}, "peer": {"ezmsg": "3.9.0"}, "pyzmq": {"pyzmq": "27.3.0"}},
    "settings": {"rounds": 5},
    "rows": [
        {
            "cell": "roundtrip-shm-ndarray-64B",
            "metric": "median",
            "unit": "µs",
            "higher_is_better": False,
            "values": {"ours": {"median": 50.0}, "peer": {"median": 100.0}, "pyzmq": None},
            "ratios": {"ours/peer": {"median": 0.5, "low": 0.4, "high": 0.625}},
        },
        {
            "cell": "fanin4-shm",
            "metric": "rate",
            "unit": "msgs/s",
            "higher_is_better": True,
            "values": {},
            "ratios": {},
        },
    ],
}


def test_a_shorter_time_is_told_as_so_many_times_faster() -> None:
    readme = replaced(f"before\n{BEGIN}old\n{END}\nafter\n", MEASURED)
    assert readme.startswith("before\n")
    assert readme.endswith(f"{END}\nafter\n")
    assert "| shared memory, array, 64B | µs there and back, median | 50 | 100 | – | 2.0 × (1.6–2.5) | – |" in readme
    assert "old" not in readme
    assert "fanin4" not in readme


def test_where_the_figures_come_from_is_said() -> None:
    assert "Measured on 2026-11-25 at revision `c25c060`: AMD EPYC, 2 cores, 24 GiB" in replaced(BEGIN + END, MEASURED)


def test_a_readme_without_a_place_for_them_is_refused() -> None:
    with pytest.raises(ValueError, match="no lines"):
        replaced("nothing", MEASURED)


def test_the_readme_has_a_place_for_them() -> None:
    assert END in README.read_text(encoding="utf-8").partition(BEGIN)[2]
