"""What the processes of the demo send one another."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class EcgBlock:
    """A piece of one lead.

    Attributes:
        data_mv: (time,) float32, millivolts.
        first_sample: Its first sample, counted from the start of the recording.
        fs_hz: Samples per second.
        is_last: Nothing follows.
    """

    data_mv: NDArray[np.float32]
    first_sample: int
    fs_hz: float
    is_last: bool = False


@dataclass
class Heart:
    """What the detector knows after a block.

    Attributes:
        beats_s: Beats found since the last message, seconds in the recording.
        heart_rate_bpm: Running heart rate; None until a few beats are known.
        is_last: Nothing follows.
    """

    beats_s: list[float] = field(default_factory=list[float])
    heart_rate_bpm: float | None = None
    is_last: bool = False
