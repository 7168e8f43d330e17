"""The newest samples of somebody, most of them as the rows they are made of until somebody reads them."""

from __future__ import annotations

from ezmsg.core.recorder.rows import SAMPLE_ROW
from ezmsg.core.recorder.selected import owed_by, samples_of
from ezmsg.core.recorder.unmadelog import UnmadeLog


class SampleLog(UnmadeLog):
    """The newest `limit` samples. The last of them may be rows that are selected and alone (see `selected`)."""

    __slots__ = ()

    def __init__(self, limit: int, end: int = 0) -> None:
        """Make an empty log, whose first sample is at position `end`."""
        super().__init__(SAMPLE_ROW, limit, owed_by, lambda part: samples_of(part.rows), end=end)
