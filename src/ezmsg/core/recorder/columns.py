"""Samples and spans as they travel, with all that it takes to make objects of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from ezmsg.core.graphmeta import ProfilingTraceSample, TraceSpan
from ezmsg.core.recorder.distinct import distinct
from ezmsg.core.recorder.expand import expand_samples, expand_spans
from ezmsg.core.recorder.rows import INDEX_SHIFT, LABEL_MASK, LABEL_SHIFT, SAMPLE_ROW, SPAN_ROW
from ezmsg.core.wire.records import ClockAnchor, EndpointRecord


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows of samples and spans, and what they name; without an anchor, spans have no times and are left out."""

    sample_rows: bytes
    span_rows: bytes
    endpoints: Mapping[int, EndpointRecord]
    labels: Mapping[int, str]
    anchor: ClockAnchor | None

    @classmethod
    def of(
        cls,
        sample_rows: bytes,
        span_rows: bytes,
        endpoints: Mapping[int, EndpointRecord],
        labels: Mapping[int, str],
        anchor: ClockAnchor | None,
    ) -> Self:
        """Rows, with what they name of all that is known."""
        samples, spans = np.frombuffer(sample_rows, dtype=SAMPLE_ROW), np.frombuffer(span_rows, dtype=SPAN_ROW)
        indices = np.concatenate((samples["index"].astype(np.int64), spans["meta"] >> INDEX_SHIFT))
        of_spans = spans["meta"] >> LABEL_SHIFT & LABEL_MASK
        codes = np.concatenate((samples["label"].astype(np.int64), of_spans, spans["blame"]))
        return cls(
            sample_rows,
            span_rows,
            {index: endpoints[index] for index in distinct(indices) if index in endpoints},
            {code: labels[code] for code in distinct(codes) if code in labels},
            anchor,
        )

    def samples(self) -> list[ProfilingTraceSample]:
        """Make the samples."""
        return expand_samples(self.sample_rows, self.endpoints, self.labels)

    def spans(self) -> list[TraceSpan]:
        """Make the spans."""
        return [] if self.anchor is None else expand_spans(self.span_rows, self.endpoints, self.labels, self.anchor)
