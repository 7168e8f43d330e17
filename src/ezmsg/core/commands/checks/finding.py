"""One thing the doctor found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "info", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the doctor found.

    Attributes:
        topic: What it is about: `server`, `key`, `limits`, `environment`, `clocks` or `stale`.
        name: Which thing of that topic, in a word or two.
        state: `problem`: something does not work; `warning`: something may not; `info` and `ok` need nothing.
        text: What was found, for people.
        remedy: What to do about it.
        facts: What was found, for programs.
    """

    topic: str
    name: str
    state: State
    text: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


def human_bytes(size: int) -> str:
    """A size for people: `1.5 GiB`."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
