"""What the steps of the message path cost, each by itself, for the table in docs/architecture/message-path.md.

    python -m benchmarks.steps              # prints the table
    python -m benchmarks.steps --write      # and puts it into the page

The steps are measured in turns, so that a busy machine slows all of them; the least of many repetitions counts.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import pickle
import platform
import time
import timeit
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import machine, payloads
from benchmarks.recorder import drain
from ezmsg.core.currentmessage import reset_current_message, set_current_message
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.lease import Lease
from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.messagemarshal import Encoder, decode, encode
from ezmsg.core.profiling import message_clock
from ezmsg.core.recorder.rowlog import opaque
from ezmsg.core.recorder.rows import ROW_BYTES, SPAN_ROW, pack_pair, pack_row

PAGE = Path(__file__).parents[1] / "docs" / "architecture" / "message-path.md"
BEGIN, END = "<!-- steps: made by benchmarks/steps.py -->\n", "<!-- end of steps -->"
REPEATS = 25
TURN_S = 0.002
"""How long one step is repeated before it is the next one's turn."""
MESSAGES = 20_000
"""From a task to another one at a time."""
PAYLOADS = {"array": "ndarray-64B", "AxisArray": "axisarray-64B", "dataclass with an array": "dataclass-64B"}


class Step(NamedTuple):
    """What is measured, as a statement and the names in it; nothing of the loop around it is counted."""

    name: str
    statement: str
    names: Mapping[str, Any]


def steps() -> list[Step]:
    """In the order of the page."""
    row = bytearray(2 * ROW_BYTES)
    rows = np.zeros(1000, dtype=SPAN_ROW)
    found = [
        Step("clock read", "clock()", {"clock": message_clock}),
        Step(
            "context variable set and reset",
            "reset(put(lease))",
            {"put": set_current_message, "reset": reset_current_message, "lease": Lease()},
        ),
        Step("message, made", "M(None, i, None, a, a, a, 0, None, None, 1)", {"M": CachedMessage, "i": 1, "a": 1.0}),
        Step("lease, made", "lease = L(); lease.inbox = None", {"L": Lease}),
        Step("row, packed", "pack(row, 0, 1, 1, a, a, a, a, a, 0)", {"pack": pack_row, "row": row, "a": 1.0}),
        Step(
            "row of a traced message and its extra row, packed",
            "pack(row, 0, 1, 1, a, a, a, a, a, 0, 2, trace, 1, 1, a, 0, 0)",
            {"pack": pack_pair, "row": row, "a": 1.0, "trace": bytes(16)},
        ),
        Step("1000 rows of spans, copied as opaque bytes", "raw.copy()", {"raw": opaque(rows)}),
        Step("1000 rows of spans, copied by numpy field by field", "rows.copy()", {"rows": rows}),
    ]
    for what, name in PAYLOADS.items():
        obj = payloads.make(name)
        encoded, plain = encode(obj), pickle.dumps(obj, protocol=5)
        buffers = encoded.buffers or [memoryview(encoded.data)]
        names = {"codec": encoded.codec, "head": encoded.head, "buffers": buffers}
        found += [
            Step(f"{what}, encoded", "encode(obj)", {"encode": Encoder().encode, "obj": obj}),
            Step(f"{what}, pickled", "dumps(obj, protocol=5)", {"dumps": pickle.dumps, "obj": obj}),
            Step(f"{what}, decoded", "decode(codec, head, buffers)", {"decode": decode, **names}),
            Step(f"{what}, unpickled", "loads(plain)", {"loads": pickle.loads, "plain": plain}),
        ]
    return found


def measure(found: Iterable[Step], repeats: int = REPEATS, turn_s: float = TURN_S) -> dict[str, float]:
    """Nanoseconds of each step, the loop around it taken off."""
    timers = {step.name: timeit.Timer(step.statement, globals=dict(step.names)) for step in found}
    timers[""] = timeit.Timer("pass")
    counts: dict[str, int] = {}
    for name, timer in timers.items():
        counts[name] = max(1, int(turn_s / min(timer.repeat(number=10))) * 10)
    best = dict.fromkeys(timers, float("inf"))
    for _ in range(repeats):
        for name, timer in timers.items():
            best[name] = min(best[name], timer.timeit(counts[name]) / counts[name] * 1e9)
    loop = best.pop("")
    return {name: ns - loop for name, ns in best.items()}


async def whole(messages: int = MESSAGES, repeats: int = 5) -> float:
    """Nanoseconds of the thread for a message from one task to another of the same loop, with the loops around both."""
    server = GraphServer()
    server.start(("127.0.0.1", 0))
    best = float("inf")
    async with GraphContext(server.address) as graph:
        publisher, subscriber = await graph.publisher("STEPS"), await graph.subscriber("STEPS")

        async def receive() -> None:
            for _ in range(messages):
                async with subscriber.recv_zero_copy():
                    pass

        for _ in range(repeats):
            receiving = asyncio.create_task(receive())
            began_s = time.thread_time()
            for number in range(messages):
                await publisher.broadcast(number)
            await receiving
            best = min(best, (time.thread_time() - began_s) / messages * 1e9)
    server.stop()
    return best


def measured() -> dict[str, float]:
    """Every figure of the page, in nanoseconds."""
    return {
        "a message, from one task to another of its loop, recorded": asyncio.run(whole()),
        **measure(steps()),
        "histograms, for each row": drain(1),
    }


def table(found: Mapping[str, float]) -> str:
    """The figures, and where they come from."""
    here, revision = machine.describe(), machine.revision()
    today = datetime.datetime.now(datetime.UTC)
    head = (
        f"Measured on {today:%Y-%m-%d} at revision `{(revision or 'unknown')[:7]}`: "
        f"{here['processor']}, {here['cpus']} cores, {here['system']}, Python {platform.python_version()}. The "
        f"least of {REPEATS} turns. Arrays of 64 bytes."
    )
    lines = [f"| {name} | {ns:,.0f} |" for name, ns in found.items()]
    return "\n".join([head, "", "| step | ns |", "|---|---:|", *lines, ""])


def replaced(page: str, figures: str) -> str:
    """The page with these figures in place of its own."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE.name} has no lines {BEGIN.strip()} and {END}")
    return f"{before}{BEGIN}{figures}{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args()
    figures = table(measured())
    print(figures)
    if options.write:
        PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main()
