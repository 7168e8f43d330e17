"""The options of `ezmsg perf`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

COMMON = {
    "payload_sizes": [64, 4096],
    "transports": ["local", "shm", "tcp"],
    "apis": ["async"],
    "num_buffers": 1,
    "seed": 0,
}
DEFAULTS: list[tuple[list[str], dict[str, Any]]] = [
    (
        ["benchmark"],
        {
            "max_duration": 5.0, "num_msgs": 1000, "num_buffers": 1, "iters": 5, "repeats": 10,
            "msg_sizes": [16, 1 << 20], "n_clients": [1, 16],
            "comms": ["local", "shm", "tcp", "shm_spread", "tcp_spread"],
            "configs": ["fanin", "fanout", "relay"], "warmup": 60.0, "name": None, "no_browser": False,
        },
    ),
    (["report", "P"], {"perf": Path("P"), "output": None, "no_browser": False}),
    (["compare", "P", "-b", "B"], {"perf": Path("P"), "baseline": Path("B"), "output": None, "no_browser": False}),
    (["hotpath"], {**COMMON, "count": 5000, "warmup": 500, "samples": 5, "json_out": None, "quiet": False}),
    (
        ["ab"],
        {
            **COMMON, "ref_a": "dev", "ref_b": "CURRENT", "dir_a": None, "dir_b": None, "python_a": None,
            "python_b": None, "env_mode": "shared", "force_shared_env": False, "env": [], "env_a": [], "env_b": [],
            "rounds": 6, "count": 2000, "warmup": 200, "prewarm": 1, "json_out": None,
            "keep_worktrees": False, "quiet": False,
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "expected"), DEFAULTS, ids=lambda it: it[0] if isinstance(it, list) else "")
def test_options_have_their_defaults(
    parser: argparse.ArgumentParser, arguments: list[str], expected: dict[str, Any]
) -> None:
    found = vars(parser.parse_args(["perf", *arguments]))
    assert callable(found.pop("_handler"))
    assert found == {"command": "perf", "perf_command": arguments[0], **expected}


def test_options_take_what_they_are_given(parser: argparse.ArgumentParser) -> None:
    line = "perf ab --env A=1 --env B=2 --env-a C=3 --apis sync async --payload-sizes 8"
    args = parser.parse_args(line.split())
    assert (args.env, args.env_a, args.apis, args.payload_sizes) == (["A=1", "B=2"], ["C=3"], ["sync", "async"], [8])
    line = "perf benchmark -i 1 -r 2 --comms local --msg-sizes 1 2 --configs fanin"
    args = parser.parse_args(line.split())
    assert (args.iters, args.repeats, args.comms, args.msg_sizes) == (1, 2, ["local"], [1, 2])


@pytest.mark.parametrize(
    "line",
    ["", "hotpath --rounds 3", "hotpath --transports udp", "hotpath --count 0", "compare P", "benchmark --warmup -1"],
)
def test_what_makes_no_sense_is_refused(parser: argparse.ArgumentParser, line: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["perf", *line.split()])
