"""What another library finds in the recording, and how the beats of the demo compare with it.

The reference is made once by `examples/ecg/data/make_reference.py` and kept beside the recording.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

REFERENCE = Path(__file__).parent / "data" / "reference_beats.json"

EDGE_S = 0.5
"""The end of an excerpt that is not compared. A beat there is still in the filter (0.25 s) or half seen."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Beats found in an excerpt against the reference, both without the last `EDGE_S`.

    Attributes:
        found: Beats of the demo; `matched + extra`.
        expected: Beats of the reference; `matched + missed`.
        matched: Beats of both, each paired with one of the other within the tolerance.
        missed: Beats of the reference only.
        extra: Beats of the demo only.
    """

    found: int
    expected: int
    matched: int
    missed: int
    extra: int

    @property
    def sensitivity(self) -> float:
        """Share of the reference's beats that were found; 1 if there are none."""
        return self.matched / self.expected if self.expected else 1.0

    @property
    def positive_predictivity(self) -> float:
        """Share of the found beats that the reference has too; 1 if there are none."""
        return self.matched / self.found if self.found else 1.0


def load_reference() -> list[float]:
    """Load the reference beats of the whole recording: seconds in the recording, rising."""
    with REFERENCE.open(encoding="utf-8") as file:
        return json.load(file)["beats_s"]


def compare(
    beats: Iterable[float], reference: Sequence[float], seconds: float, tolerance_s: float = 0.15
) -> Comparison:
    """Compare the beats found in the first seconds of the recording with the reference.

    Whether a pair counts is decided by its reference beat alone, so a beat on the edge is not found by one side and
    missed by the other.

    Args:
        beats: Beats found, seconds in the recording, in any order, flushed.
        reference: Beats of the reference, seconds in the recording, rising; it may be longer than the excerpt.
        seconds: Length of the excerpt that was played. The last `EDGE_S` of it are not compared.
        tolerance_s: How far apart a pair may be.

    Returns:
        The counts. Pairs are one to one, and as many as there can be.
    """
    end_s = seconds - EDGE_S
    waiting = sorted(beats)
    extra = matched = missed = 0
    for expected_s in reference:
        # All references are after those before: what lies too early for this one has no pair.
        while waiting and waiting[0] < expected_s - tolerance_s:
            extra += waiting.pop(0) < end_s
        pair = bool(waiting) and waiting[0] <= expected_s + tolerance_s
        if pair:
            waiting.pop(0)
        if expected_s < end_s:
            matched += pair
            missed += not pair
    extra += sum(beat_s < end_s for beat_s in waiting)
    return Comparison(matched + extra, matched + missed, matched, missed, extra)
