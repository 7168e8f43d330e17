"""Writes the table of figures in README.md from what `make bench` measured.

make bench BENCH_ARGS='--json bench.json'
python -m benchmarks.readme bench.json
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import summary

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures: made by benchmarks/readme.py -->\n", "<!-- end of figures -->"
CELL = re.compile(r"(?P<kind>throughput|roundtrip)-(?P<transport>\w+)-(?P<payload>\w+)-(?P<size>\w+)")
TRANSPORTS = {"local": "one process", "shm": "shared memory", "tcp": "TCP"}
PAYLOADS = {"ndarray": "array", "dataclass": "dataclass with an array"}


def table(measured: Mapping[str, Any]) -> str:
    """The figures of one run of `compare.py`, and where they come from."""
    machine, settings, versions = measured["machine"], measured["settings"], measured["versions"]
    head = (
        f"Measured on {measured['date'][:10]} at revision `{measured['revision'][:7]}`: {machine['processor']}, "
        f"{machine['cpus']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}, Python "
        f"{versions['ours']['python']}. Median of {settings['rounds']} rounds, and the lowest and highest ratio "
        "within a round. Ours with its telemetry on.\n"
    )
    columns = f"this | ezmsg {versions['peer']['ezmsg']} | pyzmq {versions['pyzmq']['pyzmq']}"
    lines = [
        f"| | unit | {columns} | faster than ezmsg | than pyzmq |",
        "|---|---|--:|--:|--:|--:|--:|",
        *(_line(row) for row in measured["rows"] if CELL.fullmatch(row["cell"])),
    ]
    return "\n".join([head, *lines, ""])


def _line(row: Mapping[str, Any]) -> str:
    cell = CELL.fullmatch(row["cell"])
    assert cell
    name = f"{TRANSPORTS[cell['transport']]}, {PAYLOADS[cell['payload']]}, {cell['size']}"
    unit = row["unit"] if cell["kind"] == "throughput" else f"{row['unit']} there and back, {row['metric']}"
    values = [_value(row["values"].get(who)) for who in ("ours", "peer", "pyzmq")]
    ratios = [_times(row["ratios"].get(f"ours/{who}"), row["higher_is_better"]) for who in ("peer", "pyzmq")]
    return f"| {' | '.join([name, unit, *values, *ratios])} |"


def _value(spread: Mapping[str, float] | None) -> str:
    return summary.number(spread["median"]) if spread else "–"


def _times(ratio: Mapping[str, float] | None, higher_is_better: bool) -> str:
    if not ratio:
        return "–"
    found = [ratio[name] if higher_is_better else 1 / ratio[name] for name in ("median", "low", "high")]
    middle, *ends = found
    return f"{middle:.1f} × ({min(ends):.1f}–{max(ends):.1f})"


def replaced(readme: str, measured: Mapping[str, Any]) -> str:
    """The README with these figures in place of its own."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{README.name} has no lines {BEGIN.strip()} and {END}")
    return f"{before}{BEGIN}{table(measured)}{end}{after}"


if __name__ == "__main__":
    (path,) = sys.argv[1:] or sys.exit("which file did make bench BENCH_ARGS='--json FILE' write?")
    measured = json.loads(Path(path).read_text(encoding="utf-8"))
    README.write_text(replaced(README.read_text(encoding="utf-8"), measured), encoding="utf-8")
