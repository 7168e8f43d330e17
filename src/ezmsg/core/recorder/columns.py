"""Samples and spans as they travel, with all that it takes to make objects of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ezmsg.core.graphmeta import ProfilingTraceSample, TraceSpan
from ezmsg.core.recorder.distinct import distinct
from ezmsg.core.recorder.expand import expand_samples, expand_spans
from ezmsg.core.recorder.rows import INDEX_SHIFT, LABEL_MASK, LABEL_SHIFT, SAMPLE_ROW, SPAN_ROW
from ezmsg.core.wire.records import ClockAnchor, EndpointRecord


class Columns:
    """Rows of samples and spans, and what they name of all that is known.

    Not a dataclass: what writes those without asking them shall fail, and not write this.

    Args:
        samples: Rows of samples.
        spans: Rows of spans.
        endpoints: What indices mean.
        labels: What label numbers mean.
        anchor: Turns PROFILE_TIME into Unix time; without one, spans are left out.
    """

    __slots__ = ("_anchor", "_endpoints", "_labels", "_samples", "_spans")

    def __init__(
        self,
        samples: bytes,
        spans: bytes,
        endpoints: Mapping[int, EndpointRecord],
        labels: Mapping[int, str],
        anchor: ClockAnchor | None,
    ) -> None:
        """Look up now what will be known no longer when somebody asks."""
        of_samples, of_spans = np.frombuffer(samples, dtype=SAMPLE_ROW), np.frombuffer(spans, dtype=SPAN_ROW)
        metas = of_spans["meta"]
        indices = distinct(np.concatenate((of_samples["index"].astype(np.int64), metas >> INDEX_SHIFT)))
        of_metas = metas >> LABEL_SHIFT & LABEL_MASK
        codes = distinct(np.concatenate((of_samples["label"].astype(np.int64), of_metas, of_spans["blame"])))
        self._samples, self._spans, self._anchor = samples, spans, anchor
        self._endpoints = {index: endpoints[index] for index in indices if index in endpoints}
        self._labels = {code: labels[code] for code in codes if code in labels}

    def samples(self) -> list[ProfilingTraceSample]:
        """Make the samples."""
        return expand_samples(self._samples, self._endpoints, self._labels)

    def spans(self) -> list[TraceSpan]:
        """Make the spans."""
        return [] if self._anchor is None else expand_spans(self._spans, self._endpoints, self._labels, self._anchor)
