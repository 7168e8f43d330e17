"""Rows of a profiling stream, or of a telemetry batch, as spans and samples: the door for readers outside a process."""

from ezmsg.core.recorder.expand import expand_samples, expand_spans

__all__ = ["expand_samples", "expand_spans"]
