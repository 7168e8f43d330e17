"""The table of all records: their opcodes, their sizes, and their encoding. It is the protocol."""

from __future__ import annotations

import msgspec

from ezmsg.core.errors import InvalidRecord, ProtocolError
from ezmsg.core.wire.limits import CONTROL_FRAME_BYTES, SMALL_RECORD_BYTES
from ezmsg.core.wire.records import (
    answers,
    channels,
    events,
    graph,
    memory,
    processes,
    profiling,
    roles,
    settings,
    telemetry,
)
from ezmsg.core.wire.records.fields import Record

__all__ = [
    "ACK_OPCODE",
    "LARGE_RECORDS",
    "MESSAGE_OPCODE",
    "OPCODES",
    "OPCODE_OF",
    "decode_record",
    "encode_record",
    "name_of",
]

# The table. Numbers are part of the protocol: append, never renumber, never reuse.
OPCODES: dict[int, type[Record]] = {
    1: answers.Done,
    2: answers.Refusal,
    3: answers.Goodbye,
    4: answers.CancelRequest,
    8: answers.GetServerStatus,
    9: answers.ServerStatus,
    10: roles.OpenSession,
    11: roles.SessionOpened,
    12: roles.CloseSession,
    13: roles.OpenPublisher,
    14: roles.PublisherOpened,
    15: roles.OpenSubscriber,
    16: roles.Routing,
    17: roles.OpenProcess,
    18: roles.ProcessOpened,
    19: roles.RevertSession,
    21: events.StreamOpened,
    30: graph.Connect,
    31: graph.Disconnect,
    32: graph.Pause,
    33: graph.Resume,
    34: graph.Sync,
    35: graph.Shutdown,
    36: graph.GetGraph,
    37: graph.GraphEdges,
    38: graph.GetSnapshot,
    39: graph.Snapshot,
    40: settings.RegisterMetadata,
    41: settings.ReportSettings,
    42: settings.GetSettings,
    43: settings.Settings,
    44: settings.GetSettingsInputTopic,
    45: settings.SettingsInputTopic,
    46: events.GetSettingsEvents,
    47: events.SettingsEvents,
    48: events.OpenEventStream,
    49: events.TopologyEvent,
    50: processes.ProcessRegister,
    51: processes.ProcessUpdateOwnership,
    52: processes.ProcessRequest,
    53: processes.ProcessResponse,
    60: memory.CreateShm,
    61: memory.AttachShm,
    62: memory.ShmOpened,
    70: telemetry.OpenTelemetry,
    71: telemetry.TelemetryOpened,
    72: telemetry.TelemetryBatch,
    73: telemetry.OpenTelemetryReader,
    74: telemetry.ProcessTelemetry,
    75: telemetry.GraphState,
    76: telemetry.TelemetryAck,
    77: telemetry.DrainTelemetry,
    78: profiling.OpenProfilingStream,
    79: profiling.ProfilingStreamBatch,
    80: events.SettingsEvent,
    81: events.EventAck,
    82: graph.GetMetadata,
    83: graph.Metadata,
    84: graph.GetCounts,
    85: graph.Counts,
    86: telemetry.ServerTelemetry,
    90: channels.OpenChannel,
    91: channels.ChannelOpened,
    92: channels.SlotHolder,
}
# Frames of the message path that are no records (see `wire.messages`).
MESSAGE_OPCODE = 100
ACK_OPCODE = 101

OPCODE_OF: dict[type[Record], int] = {record: opcode for opcode, record in OPCODES.items()}
_ENCODER = msgspec.msgpack.Encoder()
_DECODERS = {opcode: msgspec.msgpack.Decoder(record) for opcode, record in OPCODES.items()}
# What holds raw values refers to the bytes it was decoded from: they must not be those of a buffer that is used again.
_REFERRING = frozenset(
    OPCODE_OF[record]
    for record in (
        settings.RegisterMetadata,
        settings.ReportSettings,
        graph.Snapshot,
        graph.Metadata,
        settings.Settings,
        events.SettingsEvent,
        events.SettingsEvents,
    )
)
# The records that may be large, in bytes; all others are small. What a peer says it will send is allocated.
LARGE_RECORDS: dict[int, int] = {
    OPCODE_OF[record]: size
    for size, records in {
        CONTROL_FRAME_BYTES: (
            roles.Routing, graph.GraphEdges, graph.Snapshot, settings.RegisterMetadata, settings.ReportSettings,
            settings.Settings, events.SettingsEvents, events.SettingsEvent, events.TopologyEvent,
            processes.ProcessRequest, processes.ProcessResponse, telemetry.TelemetryBatch, telemetry.ProcessTelemetry,
            telemetry.GraphState, telemetry.ServerTelemetry, profiling.ProfilingStreamBatch,
        ),
        CONTROL_FRAME_BYTES + SMALL_RECORD_BYTES: (graph.Metadata,),
        4 * SMALL_RECORD_BYTES: (processes.ProcessRegister, processes.ProcessUpdateOwnership),
    }.items()
    for record in records
}  # fmt: skip


def encode_record(record: Record) -> tuple[int, bytes]:
    """The opcode and the body of a record.

    Raises:
        InvalidRecord: A number has more than 64 bits.
    """
    try:
        return OPCODE_OF[type(record)], _ENCODER.encode(record)
    except OverflowError as error:
        raise InvalidRecord(type(record).__name__, str(error)) from None


def decode_record(opcode: int, body: bytes | bytearray | memoryview) -> Record:
    """The record in a frame's body.

    Raises:
        InvalidRecord: It is none, although the body is well formed.
        ProtocolError: The opcode is unknown, or the body is not well formed.
    """
    decoder = _DECODERS.get(opcode)
    if decoder is None:
        raise ProtocolError(f"unknown opcode {opcode}")
    try:
        return decoder.decode(bytes(body) if opcode in _REFERRING else body)
    except msgspec.ValidationError as error:
        raise InvalidRecord(OPCODES[opcode].__name__, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the body of {OPCODES[opcode].__name__} cannot be read: {error}") from None


def name_of(opcode: int) -> str:
    """How the record with an opcode is called."""
    record = OPCODES.get(opcode)
    return f"opcode {opcode}" if record is None else record.__name__
