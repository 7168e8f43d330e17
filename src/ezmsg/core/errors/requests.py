"""What can go wrong with a request, at the peer that asks or at the one that answers."""

from __future__ import annotations

from typing import Any

from ezmsg.core.errors.root import EzmsgError

__all__ = [
    "BacklogFull",
    "CallTimeout",
    "ComponentAddressCollision",
    "ConflictingSettingsTopics",
    "ExporterLeased",
    "IdentityTaken",
    "InvalidTraceControl",
    "NoDynamicSettings",
    "Refused",
    "RequestTimeout",
    "ServerFull",
    "SessionClosed",
    "SettingsTooLarge",
    "StaleSnapshot",
    "SyncContextClosed",
    "SyncContextNotEntered",
    "TooManyProcessRequests",
    "TooManyRequests",
    "UnitAlreadyOwned",
    "UnitNotOwned",
]


class Refused(EzmsgError, RuntimeError):
    """The peer refused a request, for a reason that has no class of its own here."""

    code = "REFUSED"

    def __init__(self, message: str, code: str = "REFUSED", fields: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.refusal_code, self.refusal_fields = code, fields or {}


class TooManyRequests(EzmsgError, RuntimeError):
    """A peer has more requests unanswered than one connection may have."""

    code = "TOO_MANY_REQUESTS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} requests of this connection are unanswered: wait for some of them")
        self.limit = limit


class TooManyProcessRequests(EzmsgError, RuntimeError):
    """So many process requests are in flight that no more are passed on; `refused` counts those that were not."""

    code = "TOO_MANY_PROCESS_REQUESTS"

    def __init__(self, whose: str, limit: int, refused: int) -> None:
        super().__init__(
            f"{limit} requests of {whose} are in flight, as many as may be ({refused} were refused so far): "
            "wait for some of them, or see what keeps the handler"
        )
        self.whose, self.limit, self.refused = whose, limit, refused


class BacklogFull(EzmsgError, BufferError):
    """A peer has not read yet what was sent to it, and this would not fit behind that; it was not sent."""

    code = "BACKLOG_FULL"

    def __init__(self, peer: str, size: int, waiting: int, limit: int) -> None:
        super().__init__(
            f"{size} bytes do not fit behind {waiting} bytes that wait for {peer}, the limit is {limit}: "
            "send less at once, or see why it does not read"
        )
        self.peer, self.size, self.waiting, self.limit = peer, size, waiting, limit


class RequestTimeout(EzmsgError, TimeoutError):
    """A peer did not answer a request in time."""

    code = "REQUEST_TIMEOUT"

    def __init__(self, request: str, peer: str, timeout_s: float) -> None:
        super().__init__(f"{peer} did not answer {request} within {timeout_s:g} s")
        self.request, self.peer, self.timeout_s = request, peer, timeout_s


class SessionClosed(EzmsgError, RuntimeError):
    """A GraphContext was used before it was entered or after it was left."""

    code = "SESSION_CLOSED"

    def __init__(self) -> None:
        super().__init__("GraphContext session is not active: use it inside `async with GraphContext(...)`")


class IdentityTaken(EzmsgError, RuntimeError):
    """A connection opened a role under an id that another one holds, without being the same peer."""

    code = "IDENTITY_TAKEN"

    def __init__(self, role: str, identity: str) -> None:
        super().__init__(f"{role} refused: {identity} is open already, over the connection of another peer")
        self.role, self.identity = role, identity


class SyncContextNotEntered(EzmsgError, RuntimeError):
    """A SyncContext was used outside of its `with` block."""

    code = "SYNC_CONTEXT_NOT_ENTERED"

    def __init__(self) -> None:
        super().__init__("SyncContext must be entered with 'with' before use")


class SyncContextClosed(EzmsgError, RuntimeError):
    """A SyncContext, or what was made in it, was used after it was shut down, or in a forked child."""

    code = "SYNC_CONTEXT_CLOSED"

    def __init__(self) -> None:
        super().__init__(
            "a SyncContext is used once, in one process, and this one was shut down (or entered before): make a new one"
        )


class CallTimeout(EzmsgError, TimeoutError):
    """A call of the synchronous API took longer than it was given; it was taken back."""

    code = "CALL_TIMEOUT"

    def __init__(self, what: str, timeout_s: float) -> None:
        super().__init__(f"{what} took longer than {timeout_s:g} s")
        self.what, self.timeout_s = what, timeout_s


class UnitAlreadyOwned(EzmsgError, RuntimeError):
    """A process claimed units that another process owns."""

    code = "UNIT_ALREADY_OWNED"

    def __init__(self, operation: str, conflicts: dict[str, str]) -> None:
        owned = ", ".join(f"{unit} (owned by process {owner})" for unit, owner in sorted(conflicts.items()))
        super().__init__(
            f"Process control command failed: {operation}: already owned: {owned}: runs that share a graph need "
            "addresses of their own, as by a root_name"
        )
        self.operation, self.conflicts = operation, conflicts


class UnitNotOwned(EzmsgError, RuntimeError):
    """A process reported the settings of a unit that it does not own; nothing was changed."""

    code = "UNIT_NOT_OWNED"

    def __init__(self, unit: str, process: str, owner: str | None) -> None:
        held = "nobody owns it" if owner is None else f"process {owner} owns it"
        super().__init__(
            f"Process control command failed: PROCESS_SETTINGS_UPDATE: process {process} does not own unit {unit!r} "
            f"({held}): register it first"
        )
        self.unit, self.process, self.owner = unit, process, owner


class ComponentAddressCollision(EzmsgError, RuntimeError):
    """A session registered metadata for components that another session has; the old registration stays."""

    code = "COMPONENT_ADDRESS_COLLISION"

    def __init__(self, addresses: list[str]) -> None:
        super().__init__(
            "another session of this graph has registered such components: use another root name, or end that session. "
            f"Refused for component address collision(s): {', '.join(addresses)}"
        )
        self.addresses = addresses


class NoDynamicSettings(EzmsgError, RuntimeError):
    """A component has no input for settings, or its metadata is not registered (yet)."""

    code = "NO_DYNAMIC_SETTINGS"

    def __init__(self, component: str) -> None:
        super().__init__(f"Component '{component}' does not expose dynamic settings metadata")
        self.component = component


class ConflictingSettingsTopics(EzmsgError, RuntimeError):
    """Metadata names several inputs for the settings of one component."""

    code = "CONFLICTING_SETTINGS_TOPICS"

    def __init__(self, component: str, topics: list[str]) -> None:
        super().__init__(
            f"Conflicting dynamic settings topics for component '{component}': {', '.join(topics)}. "
            "Give the right one as input_topic"
        )
        self.component, self.topics = component, topics


class ServerFull(EzmsgError, RuntimeError):
    """A GraphServer keeps as much of one kind as it may; nothing was changed."""

    code = "SERVER_FULL"

    def __init__(self, kind: str, size: int, used: int, limit: int) -> None:
        super().__init__(
            f"the GraphServer has no room for {size} bytes more of {kind}: {used} of {limit} bytes are taken"
        )
        self.kind, self.size, self.used, self.limit = kind, size, used, limit


class StaleSnapshot(EzmsgError, RuntimeError):
    """The graph changed while a snapshot too large for one answer was read."""

    code = "STALE_SNAPSHOT"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"the metadata of session {session_id} changed while the snapshot was read: take another one")
        self.session_id = session_id


class SettingsTooLarge(EzmsgError, ValueError):
    """The settings of a component are larger than the GraphServer keeps; nothing was changed."""

    code = "SETTINGS_TOO_LARGE"

    def __init__(self, component: str, size: int, limit: int) -> None:
        super().__init__(
            f"the settings of '{component}' take {size} bytes, the limit is {limit}: keep large data out of settings"
        )
        self.component, self.size, self.limit = component, size, limit


class InvalidTraceControl(EzmsgError, ValueError):
    """A ProfilingTraceControl has a field that cannot be used; the trace that was on goes on."""

    code = "INVALID_TRACE_CONTROL"

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"ProfilingTraceControl.{field} is {value!r:.100}: expected {expected}")
        self.field, self.value, self.expected = field, f"{value!r:.100}", expected


class ExporterLeased(EzmsgError, RuntimeError):
    """A second exporter asked for the telemetry of a graph; two would double everything."""

    code = "EXPORTER_LEASED"

    def __init__(self, name: str, pid: int) -> None:
        super().__init__(
            f"the telemetry of this graph is already exported by {name} (process {pid}): end it first, or set "
            "EZMSG_OTEL=off where the graph is started"
        )
        self.name, self.pid = name, pid
