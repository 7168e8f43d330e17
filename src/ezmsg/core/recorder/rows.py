"""The layout of rows: eight 64-bit integers, in rings, in stores and on the wire.

A measurement is one row. One that belongs to a trace is followed by an extra row with ids. The first word of a row
(`meta`) packs, from the low end: kind (4 bits), channel kind (3), flags (9), label (16) and endpoint index (31). The
other words, by kind:

    PUBLISH  message id, origin, start, end, wait, serialize, size
    PROCESS  message id, origin, publish, channel, start, end, size
    LEASE    message id, 0, 0, 0, start, end, 0           (record_lease_time)
    SPAN     message id, 0, 0, 0, start, end, 0           (a span of the user; the label names it, and the
                                                          blame label tells the type of an error)
    WAIT     message id, 0, start, end, wait, 0, 0        (record_backpressure_wait)
    LINK     message id, 0, 0, 0, 0, 0, 0                 (right behind a publish, or the processing it was in)
    CONTROL_CLIENT, CONTROL_SERVER, SETTINGS: as SPAN, of the process itself; the label names the operation or event,
             the blame label tells an error, the process or field, and the unit (see `operations`). Never in a ring.
    DELIVER, QUEUE: as SPAN, between a publish and its PROCESS; the blame label tells whose clock it began by (see
             `details`). Never in a ring.
    ATTRIBUTE  bits of a float, 0, 0, 0, 0, 0, type       (right behind a span of the user; the label is its key)
    EXTRA    trace id (16 bytes as W3C has it), span id, parent span id, previous publish start, fanout, blame label

In the extra row of an ATTRIBUTE, parent is the span it belongs to, fanout a whole number, and blame label a text; which
of them its value is tells the type, a position in `ATTRIBUTE_TYPES`. In the extra row of a LINK, trace and span are
those of what the publish follows from; its parent is the span it is right behind.

A row that a native trace selected says which metrics it owes to it, and the generation of the control that selected it.
One with an extra row says so there: in the label bits and the index bits. A publish or a processing without one, which
needs no label, says it in its own label bits: the metrics in the low half, in the high half the generation, of which no
more fits. The origin of such a publish, which nobody asks for, gives way to the start of the previous one (see
`selected`).

Times and durations are nanoseconds, except where rows are written: the writer packs seconds as float64, and `Ring.take`
makes nanoseconds of a whole column at once. A float of the clock costs its writer a third of what a whole number of
more than 30 bits does, and is exact to 1 ns for 52 days of uptime (docs/adr/0004-float-clock.md).
"""

from __future__ import annotations

import struct
import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.graphmeta import ProfileChannelType

ROW_BYTES: Final = 64
ROW_WORDS: Final = 8

PUBLISH: Final = 1
PROCESS: Final = 2
LEASE: Final = 3
SPAN: Final = 4
WAIT: Final = 5
LINK: Final = 6
CONTROL_CLIENT: Final = 7
CONTROL_SERVER: Final = 8
SETTINGS: Final = 9
ATTRIBUTE: Final = 10
DELIVER: Final = 11
QUEUE: Final = 12
EXTRA: Final = 15

KIND_MASK: Final = 0xF
CHANNEL_SHIFT: Final = 4
CHANNEL_MASK: Final = 0x7
CHANNEL_BITS: Final = CHANNEL_MASK << CHANNEL_SHIFT
SAMPLED: Final = 1 << 7
"""The message belongs to a trace; its ids are in the extra row. Those of a publish or a processing without one are
calculated (see `calculated`). Such a publish began a chain: its origin, which is its start, gives way to the fanout.
Its label is the blame label."""
SELECTED: Final = 1 << 8
"""A native trace selected the message; the extra row, or the label without one, says which metrics it owes."""
EXTENDED: Final = 1 << 9
"""An extra row is right behind."""
FOREIGN: Final = 1 << 10
"""Origin and publish time come from another host's clock."""
ERROR: Final = 1 << 11
"""The operation failed; the label is the error type, where it is not said otherwise above."""
INSTANT: Final = 1 << 12
"""A point in time: the row has no duration."""
HOP: Final = 1 << 13
"""A PROCESS row that speaks for the publish as well, which took from publish to channel; its last word is the endpoint
index of the publisher. One process and loop: what lies between is a hand-over, and transport takes no time. In its
extra row, parent is the span of the publish, and the word of the fanout the parent of that."""
LABEL_SHIFT: Final = 16
LABEL_MASK: Final = 0xFFFF
LABEL_BITS: Final = LABEL_MASK << LABEL_SHIFT
INDEX_SHIFT: Final = 32
SEPARATOR: Final = "\0"
"""Between several texts in one label, or name of a counter."""
PROCESS_INDEX: Final = 0
"""Where endpoints are named by index: the process itself."""

NO_MESSAGE: Final = -1
"""Message id of a row whose caller did not name one."""
NO_PREVIOUS_S: Final = -float(1 << 32)
NO_PREVIOUS: Final = -(1 << 32) * 1_000_000_000
"""In the extra row of a publish: the publisher had not published before."""

clock: Final = time.perf_counter
"""What the message path reads: PROFILE_TIME in seconds."""
pack_row: Final = struct.Struct("2q5dq").pack_into
pack_extra: Final = struct.Struct("q16s2Qd2q").pack_into
pack_pair: Final = struct.Struct("2q5d2q16s2Qd2q").pack_into
pack_hop_pair: Final = struct.Struct("2q5d2q16s2QdQq").pack_into
NO_TRACE: Final = bytes(16)
FIRST_TIME: Final = 2
LAST_TIME: Final = 6
"""The words of a row that are times, as `pack_row` has them."""
ORIGIN: Final = 2
PUBLISH_START: Final = 3
PUBLISH_END: Final = 4
PROCESS_END: Final = 6
"""Words of rows that are times: when a chain of messages began, and when a publish and a processing ended."""
PREVIOUS: Final = 5
FANOUT: Final = 6
BLAME: Final = 7
"""Words of an extra row."""

METRICS: Final = (
    "publish_delta_ns",
    "backpressure_wait_ns",
    "serialize_ns",
    "lease_time_ns",
    "user_span_ns",
    "transport_ns",
    "queue_wait_ns",
    "age_ns",
)
"""Names of native samples; a sample row names its metric by position, an emit mask by bit."""
PUBLISH_DELTA, BACKPRESSURE_WAIT, SERIALIZE, LEASE_TIME, USER_SPAN, TRANSPORT, QUEUE_WAIT, AGE = range(8)
PUBLISHER_METRICS: Final = 1 << PUBLISH_DELTA | 1 << BACKPRESSURE_WAIT | 1 << SERIALIZE
SUBSCRIBER_METRICS: Final = 0xFF & ~PUBLISHER_METRICS

CHANNELS: Final = (
    ProfileChannelType.LOCAL,
    ProfileChannelType.SHM,
    ProfileChannelType.TCP,
    ProfileChannelType.UNKNOWN,
)
CHANNEL_CODES: Final = {channel: code for code, channel in enumerate(CHANNELS)}
LOCAL_BITS: Final = CHANNEL_CODES[ProfileChannelType.LOCAL] << CHANNEL_SHIFT

SPAN_ROW: Final = np.dtype(
    [
        ("meta", "<i8"),
        ("message_id", "<i8"),
        ("a", "<i8"),
        ("b", "<i8"),
        ("c", "<i8"),
        ("d", "<i8"),
        ("e", "<i8"),
        ("f", "<i8"),
        ("extra_meta", "<i8"),
        ("trace_id", "V16"),
        ("span_id", "<u8"),
        ("parent_id", "<u8"),
        ("previous_ns", "<i8"),
        ("fanout", "<i8"),
        ("blame", "<i8"),
    ]
)
"""A sampled row and its extra row, side by side (128 bytes)."""


FOLLOWERS: Final = (LINK, ATTRIBUTE)
"""Kinds of rows that say nothing without the row before them."""
BEHIND: Final = (EXTRA, *FOLLOWERS)
"""Kinds of rows that are never read apart from the one before them."""
ATTRIBUTE_TYPES: Final = ("str", "int", "float", "bool")
GENERATIONS: Final = 256
"""Generations of controls that a row without an extra row tells apart."""
GENERATION_SHIFT: Final = LABEL_SHIFT + 8
OWED_MASK: Final = 0xFF
"""Of the label bits of such a row: the metrics it owes."""


def are_followers(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows of SPAN_ROW say nothing without the row before them."""
    kinds = rows["meta"] & KIND_MASK
    return (kinds == LINK) | (kinds == ATTRIBUTE)


def count_spans(rows: NDArray[Any]) -> int:
    """How many spans rows of SPAN_ROW are: what follows one is a part of it."""
    return len(rows) - int(np.count_nonzero(are_followers(rows)))


SAMPLE_ROW: Final = np.dtype(
    [
        ("time_ns", "<i8"),
        ("value_ns", "<i8"),
        ("seq", "<i8"),
        ("index", "<u4"),
        ("metric", "u1"),
        ("channel", "u1"),
        ("label", "<u2"),
        ("trace_id", "V16"),
        ("span_id", "<u8"),
        ("spare", "<u8"),
    ]
)
"""One native sample (64 bytes)."""


def selected_flags(emit: int, generation: int) -> int:
    """What the first word of a row without an extra row has, if it owes these metrics to that native trace."""
    return SELECTED | emit << LABEL_SHIFT | generation % GENERATIONS << GENERATION_SHIFT


def meta_word(kind: int, index: int, channel: ProfileChannelType = ProfileChannelType.UNKNOWN, flags: int = 0) -> int:
    """The first word of a row, without a label."""
    return kind | CHANNEL_CODES[channel] << CHANNEL_SHIFT | flags | index << INDEX_SHIFT
