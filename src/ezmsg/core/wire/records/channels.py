"""The message path: the first frames of a channel's connection."""

from __future__ import annotations

from ezmsg.core.wire.records.fields import Record, Word

__all__ = ["ChannelOpened", "OpenChannel", "SlotHolder"]


class OpenChannel(Record, frozen=True):
    """A channel asks a publisher for its messages, in one process and event loop."""

    channel_id: str
    publisher_id: str
    pid: int
    boot_id: str
    topic: str


class ChannelOpened(Record, frozen=True):
    """The publisher will send; `next_message_id` is the first that may come.

    Ids of traces that begin with its messages are calculated from `trace_ids`.
    """

    topic: str
    num_buffers: int
    next_message_id: int
    trace_ids: tuple[Word, Word, Word]


class SlotHolder(Record, frozen=True):
    """To a publisher: what is acknowledged from here on was held last by a subscriber on this topic."""

    topic: str
