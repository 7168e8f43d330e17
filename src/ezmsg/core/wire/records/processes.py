"""Process control: which units a process owns, and operations on them."""

from __future__ import annotations

from ezmsg.core.wire.records.fields import Name, Record

__all__ = ["ProcessRegister", "ProcessRequest", "ProcessResponse", "ProcessUpdateOwnership"]


class ProcessRegister(Record, frozen=True):
    """Replace the set of units this process owns."""

    pid: int
    host: Name
    units: list[Name]


class ProcessUpdateOwnership(Record, frozen=True):
    """Claim and give up units."""

    added_units: list[Name]
    removed_units: list[Name]


class ProcessRequest(Record, frozen=True):
    """An operation for the process that owns `unit_address`, or for process `process_id`; `payload` is opaque.

    `reader` names who keeps its own place in what is measured, `request_id` this request, from end to end;
    `traceparent` is the W3C header of who asks, if that is sampled.
    """

    unit_address: Name
    operation: Name
    payload: bytes | None = None
    timeout_s: float = 2.0
    process_id: Name = ""
    reader: Name = ""
    request_id: Name = ""
    traceparent: Name = ""


class ProcessResponse(Record, frozen=True):
    """The answer of a process, or of the server when none could be had."""

    ok: bool
    payload: bytes | None = None
    error: str | None = None
    error_code: str | None = None
    process_id: str | None = None
