"""Rows of a profiling stream, or of a telemetry batch, as spans and samples: the door for readers outside a process."""

from ezmsg.core.recorder.columns import Columns
from ezmsg.core.recorder.expand import expand_samples, expand_spans

__all__ = ["Columns", "expand_samples", "expand_spans"]
