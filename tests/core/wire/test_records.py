"""Every record survives its encoding; the numbers of the table are for ever."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core.errors import InvalidRecord, ProtocolError
from ezmsg.core.wire.records import (
    ACK_OPCODE,
    MESSAGE_OPCODE,
    OPCODE_OF,
    OPCODES,
    HistogramState,
    Record,
    Refusal,
    TelemetryBatch,
    decode_record,
    encode_record,
)
from tests.core.wire.recordmaking import records_of

GOLDEN = {
    1: "Done",
    2: "Refusal",
    3: "Goodbye",
    4: "CancelRequest",
    8: "GetServerStatus",
    9: "ServerStatus",
    10: "OpenSession",
    11: "SessionOpened",
    12: "CloseSession",
    13: "OpenPublisher",
    14: "PublisherOpened",
    15: "OpenSubscriber",
    16: "Routing",
    17: "OpenProcess",
    18: "ProcessOpened",
    19: "RevertSession",
    21: "StreamOpened",
    30: "Connect",
    31: "Disconnect",
    32: "Pause",
    33: "Resume",
    34: "Sync",
    35: "Shutdown",
    36: "GetGraph",
    37: "GraphEdges",
    38: "GetSnapshot",
    39: "Snapshot",
    40: "RegisterMetadata",
    41: "ReportSettings",
    42: "GetSettings",
    43: "Settings",
    44: "GetSettingsInputTopic",
    45: "SettingsInputTopic",
    46: "GetSettingsEvents",
    47: "SettingsEvents",
    48: "OpenEventStream",
    49: "TopologyEvent",
    50: "ProcessRegister",
    51: "ProcessUpdateOwnership",
    52: "ProcessRequest",
    53: "ProcessResponse",
    60: "CreateShm",
    61: "AttachShm",
    62: "ShmOpened",
    70: "OpenTelemetry",
    71: "TelemetryOpened",
    72: "TelemetryBatch",
    73: "OpenTelemetryReader",
    74: "ProcessTelemetry",
    75: "GraphState",
    76: "TelemetryAck",
    77: "DrainTelemetry",
    78: "OpenProfilingStream",
    79: "ProfilingStreamBatch",
    80: "SettingsEvent",
    81: "EventAck",
    82: "GetMetadata",
    83: "Metadata",
    84: "GetCounts",
    85: "Counts",
    86: "ServerTelemetry",
    90: "OpenChannel",
    91: "ChannelOpened",
    92: "SlotHolder",
}


@pytest.mark.parametrize("record_type", OPCODES.values(), ids=lambda record: record.__name__)
def test_a_record_survives_its_encoding(record_type: type[Record]) -> None:
    @settings(max_examples=25, deadline=None)
    @given(records_of(record_type))
    def check(record: Record) -> None:
        opcode, body = encode_record(record)
        assert opcode == OPCODE_OF[record_type]
        assert decode_record(opcode, memoryview(body)) == record

    check()


def test_opcodes_are_what_they_always_were() -> None:
    """Append to this table; a change of a line breaks the conversation with processes that run another release."""
    assert {opcode: record.__name__ for opcode, record in OPCODES.items()} == GOLDEN
    assert not {MESSAGE_OPCODE, ACK_OPCODE} & OPCODES.keys()


def test_every_record_has_one_opcode() -> None:
    assert len(OPCODE_OF) == len(OPCODES)


@settings(deadline=None)
@given(st.sampled_from(sorted(OPCODES)), st.binary(max_size=100))
def test_garbage_is_a_record_or_a_protocol_error(opcode: int, body: bytes) -> None:
    try:
        record = decode_record(opcode, body)
    except ProtocolError:
        return
    assert isinstance(record, OPCODES[opcode])


def test_an_unknown_opcode_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="unknown opcode 9999"):
        decode_record(9999, b"")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", -1),
        ("count", -1),
        ("scale", 1 << 40),
        ("offset", -(1 << 40)),
        ("counts", [1 << 60]),
        ("counts", [1] * 1025),
        ("exemplars", [(1, 1, "no trace", "f" * 16)]),
    ],
)
def test_absurd_telemetry_is_an_invalid_record(field: str, value: Any) -> None:
    honest = HistogramState(1, "process", 1, 1, 1, 1, 0, 3, -80, [1], [(1, 1, "0" * 32, "f" * 16)])
    assert decode_record(*encode_record(TelemetryBatch(0, "", 1, histograms=[honest])))
    absurd = msgspec.structs.replace(honest, **{field: value})
    with pytest.raises(InvalidRecord):
        decode_record(*encode_record(TelemetryBatch(0, "", 1, histograms=[absurd])))


def test_deep_nesting_is_a_protocol_error() -> None:
    honest = msgspec.msgpack.encode({"code": "C", "message": "m", "fields": {"x": 7}})
    assert honest.endswith(b"\xa1x\x07")
    with pytest.raises(ProtocolError, match="Refusal cannot be read"):
        decode_record(OPCODE_OF[Refusal], honest[:-1] + b"\x91" * 100_000 + b"\x07")
