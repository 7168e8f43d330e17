"""Measure one cell of `run.py` once, with the ezmsg of this interpreter; print the result as one line of JSON.

python benchmarks/runworker.py --cell KIND-UNITS-WHERE-BYTES [--seconds S]

KIND is `start` (until the first message has arrived, and from the end of the last unit until `run` returns) or
`pipeline` (messages a second at its end); WHERE is `together` in one process, or `apart`, each unit in its own. Only
what upstream and this project have in common: units, `ez.run`, processes.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import AsyncGenerator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from chain import run_chain

import ezmsg.core as ez

WARM_UP_SHARE = 0.3


class Plan(ez.Settings):
    """What a unit does, and where it tells what it found."""

    path: str
    size: int
    seconds: float


class Source(ez.Unit):
    """Publishes arrays as fast as they are taken."""

    SETTINGS = Plan
    OUTPUT = ez.OutputStream(Any)

    @ez.publisher(OUTPUT)
    async def publish(self) -> AsyncGenerator[Any, None]:
        payload = np.zeros(self.SETTINGS.size, dtype=np.uint8)
        while True:
            yield self.OUTPUT, payload


class Stage(ez.Unit):
    """Hands on what it gets."""

    INPUT = ez.InputStream(Any)
    OUTPUT = ez.OutputStream(Any)

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def hand_on(self, message: Any) -> AsyncGenerator[Any, None]:
        yield self.OUTPUT, message


class Counter(ez.State):
    count: int = 0
    since: float = 0.0
    begin: float = 0.0


class Sink(ez.Unit):
    """Tells when the first message came and, counted after a while, how many come a second; then ends the run."""

    SETTINGS = Plan
    STATE = Counter
    INPUT = ez.InputStream(Any)

    @ez.subscriber(INPUT)
    async def take(self, message: Any) -> None:
        now = time.monotonic()
        state, plan = self.STATE, self.SETTINGS
        if not state.begin:
            state.begin = state.since = now
        if state.since == state.begin and now - state.begin >= WARM_UP_SHARE * plan.seconds:
            state.since, state.count = now, 0
        state.count += 1
        if now - state.begin >= plan.seconds and (now > state.since or not plan.seconds):
            rate = state.count / (now - state.since) if plan.seconds else 0.0
            Path(plan.path).write_text(json.dumps({"first": state.begin, "rate": rate, "end": time.monotonic()}))
            raise ez.NormalTermination


def measure(cell: str, seconds: float) -> dict[str, float]:
    """Run the graph of a cell once."""
    kind, number, where, size = cell.split("-")

    def make(path: str) -> list[Any]:
        plan = Plan(path=path, size=int(size), seconds=0.0 if kind == "start" else seconds)
        return [Source(plan), *(Stage() for _ in range(int(number) - 2)), Sink(plan)]

    found, began_s, over_s = run_chain(make, where)
    if kind == "start":
        return {"start": 1e3 * (found["first"] - began_s), "shutdown": 1e3 * (over_s - found["end"])}
    return {"rate": found["rate"]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cell", required=True)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    logging.getLogger("ezmsg").setLevel(logging.ERROR)
    metrics = measure(options.cell, options.seconds)
    print(json.dumps({"versions": {"ezmsg": version("ezmsg")}, "metrics": metrics}))


if __name__ == "__main__":
    main()
