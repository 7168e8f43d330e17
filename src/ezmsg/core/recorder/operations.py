"""Rows of spans that belong to no message: operations, and settings that are applied."""

from __future__ import annotations

import numpy as np

from ezmsg.core.recorder.labels import Labels
from ezmsg.core.recorder.rowlog import RowArray
from ezmsg.core.recorder.rows import (
    ERROR,
    EXTENDED,
    EXTRA,
    LABEL_SHIFT,
    NO_MESSAGE,
    PROCESS_INDEX,
    SAMPLED,
    SEPARATOR,
    SPAN_ROW,
    meta_word,
)


def operation_row(
    labels: Labels,
    kind: int,
    name: str,
    unit: str,
    detail: str,
    start_ns: int,
    end_ns: int,
    trace: tuple[bytes, int, int],
    error: str,
) -> RowArray:
    """One row of SPAN_ROW.

    Args:
        labels: Where texts get their numbers.
        kind: CONTROL_CLIENT, CONTROL_SERVER or SETTINGS.
        name: The operation or event.
        unit: The unit it is about.
        detail: The process that is asked, or the field that is changed.
        start_ns: When it began.
        end_ns: When it ended.
        trace: Trace id, its span id, that of its parent.
        error: What went wrong, or empty.
    """
    made = np.zeros(1, SPAN_ROW)
    flags = SAMPLED | EXTENDED | (ERROR if error else 0)
    made["meta"] = meta_word(kind, PROCESS_INDEX, flags=flags) | labels.code(name) << LABEL_SHIFT
    made["message_id"], made["extra_meta"] = NO_MESSAGE, EXTRA
    made["d"], made["e"] = start_ns, end_ns
    made["trace_id"] = np.frombuffer(trace[0], "V16")
    made["span_id"], made["parent_id"] = trace[1:]
    made["blame"] = labels.code(SEPARATOR.join((error, detail, unit)), is_free=True)
    return made
