"""Every error this runtime raises on purpose, in one tree.

Each class carries its facts as fields, and also inherits the builtin that callers already catch for that kind of
failure. `code` names the class on the wire: a server refuses with a code, and the client raises the same class.
"""

from __future__ import annotations

import errno
import signal
from typing import Any, ClassVar


class EzmsgError(Exception):
    """Root of the tree."""

    code: ClassVar[str] = "ERROR"

    def fields(self) -> dict[str, Any]:
        """The facts of this error as values that travel in a refusal."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def __reduce__(self) -> tuple[Any, ...]:
        # Not through __init__: each class has its own arguments, and the text is made already.
        return _restored, (type(self), self.args), vars(self)


def _restored(error_type: type[EzmsgError], args: tuple[Any, ...]) -> EzmsgError:
    error = error_type.__new__(error_type, *args)
    error.args = args
    return error


class ConfigError(EzmsgError, ValueError):
    """An environment variable or argument has a value that cannot be used."""

    code = "CONFIG"

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(f"{name}={value!r} cannot be used: expected {expected}")
        self.name, self.value, self.expected = name, str(value), expected


# -- connections --------------------------------------------------------------------------------------------------


class ConnectionFailed(EzmsgError, ConnectionError):
    """A connection could not be opened, or was lost."""

    code = "CONNECTION_FAILED"


class ServerUnreachable(ConnectionFailed):
    """Nothing answers at the address of a GraphServer."""

    code = "SERVER_UNREACHABLE"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"no GraphServer answers at {address} ({reason}): start one there, or set EZMSG_GRAPHSERVER_ADDR"
        )
        self.address, self.reason = address, reason


class ConnectionLost(ConnectionFailed):
    """The peer of an open connection went away; what was pending on it has failed."""

    code = "CONNECTION_LOST"

    def __init__(self, peer: str, reason: str = "the connection was closed") -> None:
        super().__init__(f"connection to {peer} lost: {reason}")
        self.peer, self.reason = peer, reason


class CannotConnect(ConnectionFailed):
    """Nothing accepts connections at an address."""

    code = "CANNOT_CONNECT"

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(f"cannot connect to {peer}: {reason}")
        self.peer, self.reason = peer, reason


class HandshakeError(ConnectionFailed):
    """Two peers could not agree to talk; see the subclasses for why."""

    code = "HANDSHAKE"

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(f"handshake with {peer} failed: {reason}")
        self.peer, self.reason = peer, reason


class AuthenticationFailed(HandshakeError):
    """The peer does not hold our key (or we not its)."""

    code = "AUTHENTICATION_FAILED"


class VersionMismatch(HandshakeError):
    """The peer speaks another version of the protocol."""

    code = "VERSION_MISMATCH"

    def __init__(self, peer: str, ours: int, theirs: int) -> None:
        super().__init__(
            peer,
            f"it speaks version {theirs} of the protocol, this process version {ours}: "
            "all processes of a graph need the same release",
        )
        self.ours, self.theirs = ours, theirs


class ForeignPeer(HandshakeError):
    """The peer does not speak this protocol at all."""

    code = "FOREIGN_PEER"


class HandshakeTimeout(HandshakeError, TimeoutError):
    """The peer did not finish its handshake in time."""

    code = "HANDSHAKE_TIMEOUT"


class HandshakeAbandoned(HandshakeError):
    """The peer lost interest: it said nothing at all, or that it gives up. Counted, but nothing to warn of."""

    code = "HANDSHAKE_ABANDONED"


class TlsFailed(HandshakeError):
    """Two peers could not agree on TLS; see the subclasses for why."""

    code = "TLS_FAILED"


class TlsRequired(TlsFailed):
    """The peer uses TLS, and this process does not."""

    code = "TLS_REQUIRED"


class TlsNotSpoken(TlsFailed):
    """This process uses TLS, and the peer does not."""

    code = "TLS_NOT_SPOKEN"


class CertificateMissing(TlsFailed):
    """A certificate was asked for, and none was given."""

    code = "CERTIFICATE_MISSING"


class CertificateUntrusted(TlsFailed):
    """A certificate was issued by nobody whom the other side trusts."""

    code = "CERTIFICATE_UNTRUSTED"


class CertificateExpired(TlsFailed):
    """A certificate, or that of its CA, is too old."""

    code = "CERTIFICATE_EXPIRED"


class CertificateNotYetValid(TlsFailed):
    """A certificate, or that of its CA, begins to be valid later."""

    code = "CERTIFICATE_NOT_YET_VALID"


class CertificateNameMismatch(TlsFailed):
    """The certificate of a server is for another host than the one that was dialled."""

    code = "CERTIFICATE_NAME_MISMATCH"


class CertificateRefused(TlsFailed):
    """A certificate cannot be used for another reason."""

    code = "CERTIFICATE_REFUSED"


class TlsIncomplete(EzmsgError, ValueError):
    """Some of the variables that turn TLS on are set, and not all."""

    code = "TLS_INCOMPLETE"

    def __init__(self, given: list[str], missing: list[str]) -> None:
        super().__init__(
            f"TLS needs EZMSG_TLS_CERT, EZMSG_TLS_KEY and EZMSG_TLS_CA, and {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set: set all three, or none"
        )
        self.given, self.missing = given, missing


class TlsFileError(EzmsgError, OSError):
    """A file that TLS needs cannot be used."""

    code = "TLS_FILE"

    def __init__(self, variable: str, path: str, reason: str) -> None:
        super().__init__(f"cannot use {variable}={path}: {reason}")
        self.variable, self.path, self.reason = variable, path, reason


class AuthKeyError(EzmsgError, OSError):
    """No key for the handshake could be found or made."""

    code = "AUTH_KEY"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"cannot use the key file {path}: {reason}. Set EZMSG_AUTHKEY_FILE to a file only you can read, "
            "or EZMSG_AUTHKEY to the key itself"
        )
        self.path, self.reason = path, reason


class InsecureBind(EzmsgError, ValueError):
    """Listening beyond loopback was asked for without a key of one's own."""

    code = "INSECURE_BIND"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"refusing to listen on {host}: peers of other hosts need a shared key. "
            "Set EZMSG_AUTHKEY (or EZMSG_AUTHKEY_FILE) to the same secret on every host, or listen on 127.0.0.1"
        )
        self.host = host


class ProtocolError(EzmsgError, ValueError):
    """Bytes that are no frame, record or message of this protocol."""

    code = "PROTOCOL"


class FrameTooLarge(ProtocolError):
    """A frame announces more bytes than its limit allows."""

    code = "FRAME_TOO_LARGE"

    def __init__(self, opcode: int, size: int, limit: int) -> None:
        super().__init__(f"a frame with opcode {opcode} announces {size} bytes, the limit is {limit}")
        self.opcode, self.size, self.limit = opcode, size, limit


class InvalidRecord(ProtocolError):
    """A record has a field that no such record has; a request is refused, and the connection goes on."""

    code = "INVALID_RECORD"

    def __init__(self, record: str, reason: str) -> None:
        super().__init__(f"the body of {record} cannot be read: {reason}")
        self.record, self.reason = record, reason


class Unanswerable(ProtocolError):
    """A request of a kind that this peer does not answer."""

    code = "UNANSWERABLE"

    def __init__(self, record: str) -> None:
        super().__init__(f"{record} is no request that is answered here")
        self.record = record


# -- requests -----------------------------------------------------------------------------------------------------


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
        super().__init__(f"Process control command failed: {operation}: already owned: {owned}")
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


# -- the command line ---------------------------------------------------------------------------------------------


class DashboardDependencyError(EzmsgError, RuntimeError):
    """The dashboard is not installed, or cannot be imported."""

    code = "DASHBOARD_DEPENDENCY"

    def __init__(self, hint: str, reason: str = "") -> None:
        super().__init__(f"{hint} (it cannot be imported: {reason})" if reason else hint)
        self.hint, self.reason = hint, reason


class ServerDidNotStart(EzmsgError, RuntimeError):
    """A GraphServer that was started in the background does not serve."""

    code = "SERVER_DID_NOT_START"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"the GraphServer at {address} did not start: {reason}. Try ezmsg serve --address {address}")
        self.address, self.reason = address, reason


# -- components ---------------------------------------------------------------------------------------------------


class NotAddressed(EzmsgError, AssertionError):
    """The name or location of a component or stream was asked for before it had one."""

    code = "NOT_ADDRESSED"

    def __init__(self, subject: str, part: str) -> None:
        super().__init__(f"{subject} has no {part} yet: it gets one when it is part of a run")
        self.subject, self.part = subject, part


class AlreadyAddressed(EzmsgError, AssertionError):
    """A component or stream was to be named or placed a second time."""

    code = "ALREADY_ADDRESSED"

    def __init__(self, subject: str, part: str, wanted: str) -> None:
        super().__init__(
            f"{subject} has its {part} already and cannot get another ({wanted!r}): make an object of its own for "
            "each place and each run"
        )
        self.subject, self.part, self.wanted = subject, part, wanted


class DeclarationError(EzmsgError, TypeError, ValueError):
    """A class of components, settings or state has a mistake in its body; `field` is None if it is in no single one."""

    code = "DECLARATION"

    def __init__(self, owner: type, field: str | None, reason: str) -> None:
        name = owner.__qualname__
        super().__init__(f"class {name}: {reason}" if field is None else f"{name}.{field}: {reason}")
        self.owner, self.field, self.reason = name, field, reason


class DecoratorError(EzmsgError, ValueError):
    """A decorator of `ezmsg.core` was given, or put on, something it is not for."""

    code = "DECORATOR"

    def __init__(self, decorator: str, function: str | None, reason: str) -> None:
        super().__init__(f"@{decorator}{f' on {function}' if function else ''}: {reason}")
        self.decorator, self.function, self.reason = decorator, function, reason


class SettingsNotApplied(EzmsgError, ValueError):
    """A unit was to be set up without settings, and its class of settings has no defaults for all of its fields."""

    code = "SETTINGS_NOT_APPLIED"

    def __init__(self, address: str, settings_type: str) -> None:
        super().__init__(
            f"{address} has not had settings applied before initialization: give it a {settings_type}, "
            "or call apply_settings() in configure() of its collection"
        )
        self.address, self.settings_type = address, settings_type


class StateNotInitialized(EzmsgError, AttributeError):
    """A field of a unit's state has no value after `initialize()`."""

    code = "STATE_NOT_INITIALIZED"

    def __init__(self, address: str, field: str) -> None:
        super().__init__(f"{address}: STATE.{field} was not initialized!")
        self.address, self.field = address, field


class InvalidResult(EzmsgError, TypeError):
    """A method a component must provide returned what a run cannot use."""

    code = "INVALID_RESULT"

    def __init__(self, method: str, value: object, expected: str) -> None:
        super().__init__(f"{method} gave {value!r:.200}: expected {expected}")
        self.method, self.value, self.expected = method, f"{value!r:.200}", expected


class NotAComponent(EzmsgError, TypeError):
    """Something else than a component was to be run."""

    code = "NOT_A_COMPONENT"

    def __init__(self, name: str, value: object) -> None:
        hint = f"; make one: {value.__name__}()" if isinstance(value, type) else ""
        super().__init__(f"{name} is {value!r:.200}, which is no unit or collection{hint}")
        self.name, self.value = name, f"{value!r:.200}"


class NameClash(EzmsgError, ValueError):
    """Two components of a run want the same address."""

    code = "NAME_CLASH"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"two components of this run would have the address {address}: {reason}")
        self.address, self.reason = address, reason


# -- settings -----------------------------------------------------------------------------------------------------


class SettingsInvalid(EzmsgError, ValueError):
    """A patch breaks the schema of the settings it is for; nothing was applied.

    `violations` are dicts of text: `field` (dotted), `value` (its repr), `rule` (`unknown field`, `wrong type`,
    `out of bounds`, `not a choice`, `missing required`, `too deep`, `read only`), and what was `expected`.
    """

    code = "SETTINGS_INVALID"

    def __init__(self, settings_type: str, violations: list[dict[str, str]]) -> None:
        found = "; ".join(f"{v['field']}={v['value']}: {v['rule']}, expected {v['expected']}" for v in violations)
        super().__init__(f"settings {settings_type} cannot take this: {found}")
        self.settings_type, self.violations = settings_type, violations


class EmptyFieldPath(EzmsgError, ValueError):
    """A field of settings was to be changed, and its path names none."""

    code = "EMPTY_FIELD_PATH"

    def __init__(self, field_path: str) -> None:
        super().__init__(f"the path {field_path!r} names no field: give names separated by dots, like 'filter.cutoff'")
        self.field_path = field_path


class UnknownSettingsField(EzmsgError, ValueError):
    """Settings have no such field, or none that can be set."""

    code = "UNKNOWN_SETTINGS_FIELD"

    def __init__(self, field_path: str, settings_type: str, known: list[str]) -> None:
        there = f"the fields are {', '.join(known)}" if known else "it has no fields that can be set"
        super().__init__(f"no field {field_path!r} in {settings_type}: {there}")
        self.field_path, self.settings_type, self.known = field_path, settings_type, known


class SettingsNotKnown(EzmsgError, RuntimeError):
    """A field was to be changed of settings whose current value is not known (or None)."""

    code = "SETTINGS_NOT_KNOWN"

    def __init__(self, field_path: str, missing: str) -> None:
        super().__init__(
            f"cannot set {field_path!r}: there is no current value of {missing}. Send the whole object instead"
        )
        self.field_path, self.missing = field_path, missing


class SettingsRefused(EzmsgError, ValueError):
    """The class of settings did not take a value that its description allows; nothing was applied."""

    code = "SETTINGS_REFUSED"

    def __init__(self, settings_type: str, field_path: str, value: object, reason: str) -> None:
        super().__init__(f"settings {settings_type} cannot take {field_path}={value!r:.200}: {reason}")
        self.settings_type, self.field_path, self.value, self.reason = (
            settings_type,
            field_path,
            f"{value!r:.200}",
            reason,
        )


class SettingsNotTaken(EzmsgError, RuntimeError):
    """New settings were published, but no task of the unit received them; nothing was applied."""

    code = "SETTINGS_NOT_TAKEN"

    def __init__(self, unit: str, reason: str) -> None:
        super().__init__(f"no task of {unit} took the new settings: {reason}")
        self.unit, self.reason = unit, reason


class SettingsTaskFailed(EzmsgError, RuntimeError):
    """The task of a unit that received new settings raised an exception; the settings before count as current."""

    code = "SETTINGS_TASK_FAILED"

    def __init__(self, unit: str, reason: str) -> None:
        super().__init__(f"{unit} could not apply the new settings: {reason}")
        self.unit, self.reason = unit, reason


# -- messages -----------------------------------------------------------------------------------------------------


class PublisherClosed(EzmsgError, RuntimeError):
    """A publisher was used after it was closed."""

    code = "PUBLISHER_CLOSED"

    def __init__(self, topic: str) -> None:
        super().__init__(f"the publisher on {topic!r} is closed")
        self.topic = topic


class SubscriberClosed(EzmsgError, RuntimeError):
    """A subscriber was used after it was closed, or was closed while waiting."""

    code = "SUBSCRIBER_CLOSED"

    def __init__(self, topic: str) -> None:
        super().__init__(f"the subscriber on {topic!r} is closed")
        self.topic = topic


class MessageTooLarge(EzmsgError, ValueError):
    """A message is larger than the limit; nothing was sent."""

    code = "MESSAGE_TOO_LARGE"

    def __init__(self, topic: str, size: int, limit: int) -> None:
        super().__init__(
            f"a message on {topic!r} takes {size} bytes, the limit is {limit}: "
            "send it in parts, or raise EZMSG_MAX_MESSAGE_BYTES in every process"
        )
        self.topic, self.size, self.limit = topic, size, limit


class MessageNotSerializable(EzmsgError, TypeError):
    """A message cannot be pickled for a subscriber of another process; nothing was sent."""

    code = "MESSAGE_NOT_SERIALIZABLE"

    def __init__(self, topic: str, type_name: str, reason: str) -> None:
        super().__init__(f"a message of type {type_name} on {topic!r} cannot be sent to another process: {reason}")
        self.topic, self.type_name, self.reason = topic, type_name, reason


class MessageNotReadable(EzmsgError, ValueError):
    """A received message cannot be decoded in this process (say, its class cannot be imported)."""

    code = "MESSAGE_NOT_READABLE"

    def __init__(self, topic: str, message_id: int, reason: str) -> None:
        super().__init__(f"message {message_id} on {topic!r} cannot be read here: {reason}")
        self.topic, self.message_id, self.reason = topic, message_id, reason


class UndersizedMemory(EzmsgError, ValueError):
    """A message does not fit the memory it was to be written to; nothing was written."""

    code = "UNDERSIZED_MEMORY"

    def __init__(self, req_size: int) -> None:
        super().__init__(f"the message takes {req_size} bytes: pass a memoryview of at least that size")
        self.req_size = req_size


class UninitializedMemory(EzmsgError, ValueError):
    """No message was written to this memory."""

    code = "UNINITIALIZED_MEMORY"

    def __init__(self, size: int) -> None:
        super().__init__(f"there is no message in these {size} bytes: write one with Marshal.to_mem")
        self.size = size


class UnknownMessageType(EzmsgError, ImportError):
    """A log has a message of a class that cannot be imported in this process."""

    code = "UNKNOWN_MESSAGE_TYPE"

    def __init__(self, type_name: str, reason: str) -> None:
        super().__init__(f"messages of type {type_name!r} cannot be read here: {reason}")
        self.type_name, self.reason = type_name, reason


class LogLineUnreadable(EzmsgError, ValueError):
    """A line of a log of messages cannot be read; the lines around it may well be."""

    code = "LOG_LINE_UNREADABLE"

    def __init__(self, path: str, line: int, reason: str) -> None:
        super().__init__(f"line {line} of {path} cannot be read: {reason}")
        self.path, self.line, self.reason = path, line, reason


class MeasurementFailed(EzmsgError, RuntimeError):
    """A program that a benchmark started did not do what it should."""

    code = "MEASUREMENT_FAILED"

    def __init__(self, program: str, reason: str) -> None:
        super().__init__(f"{program} failed: {reason}")
        self.program, self.reason = program, reason


# -- shared memory ------------------------------------------------------------------------------------------------

_REMEDIES = {
    errno.ENOSPC: "Enlarge /dev/shm (docker: --shm-size), or share less",
    errno.ENOMEM: "Raise the memory limit of this container or process (ulimit -v), or share less",
    errno.EFBIG: "Share less, or raise the limit on file sizes (ulimit -f)",
    errno.EMFILE: "Raise the limit on descriptors (ulimit -n), or close what is not needed",
    errno.EDQUOT: "Close what is not needed, or raise EZMSG_SHM_MAX_BYTES where the GraphServer is started",
    errno.ENFILE: "Close what is not needed: the system has no descriptors left",
}


class SharedMemoryUnavailable(EzmsgError, OSError):
    """Memory to share could not be had; what was there before is as it was. `errno` says why."""

    code = "SHARED_MEMORY_UNAVAILABLE"

    def __init__(self, action: str, size: int, number: int, reason: str) -> None:
        remedy = _REMEDIES.get(number, "See whether this system allows shared memory")
        super().__init__(f"cannot {action} shared memory of {size} bytes: {reason}. {remedy}")
        self.action, self.size, self.reason = action, size, reason
        self.errno = number


class SharedMemoryLimit(SharedMemoryUnavailable):
    """The GraphServer keeps as much named shared memory as it may."""

    code = "SHARED_MEMORY_LIMIT"

    def __init__(self, size: int, used: int, limit: int, segments: int, max_segments: int) -> None:
        super().__init__(
            "create", size, errno.EDQUOT,
            f"the GraphServer keeps {used} of at most {limit} bytes, in {segments} of at most {max_segments} segments",
        )  # fmt: skip
        self.used, self.limit, self.segments, self.max_segments = used, limit, segments, max_segments


class SharedMemoryElsewhere(EzmsgError, OSError):
    """The memory exists, but not where this process could open it."""

    code = "SHARED_MEMORY_ELSEWHERE"

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(
            f"shared memory of the GraphServer at {server} cannot be opened here: {reason}. It needs the same host and "
            "user; containers need the same pid namespace (docker: --pid) or the same /dev/shm (docker: --ipc)"
        )
        self.server, self.reason = server, reason


class UnknownSharedMemory(EzmsgError, ValueError):
    """No shared memory of that name exists, or no more."""

    code = "UNKNOWN_SHARED_MEMORY"

    def __init__(self, name: str) -> None:
        super().__init__(f"the GraphServer has no shared memory named {name!r}: it is gone with its last holder")
        self.name = name


class SharedMemoryClosed(EzmsgError, BufferError):
    """Shared memory was used after the end of its context or of the GraphServer."""

    code = "SHARED_MEMORY_CLOSED"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"shared memory {name!r} cannot be used any more: {reason}")
        self.name, self.reason = name, reason


# -- running ------------------------------------------------------------------------------------------------------


class RunnerMisused(EzmsgError, RuntimeError, ValueError):
    """A GraphRunner was asked for what it cannot do in its state: it runs once."""

    code = "RUNNER_MISUSED"


class GraphRunnerStartError(EzmsgError, RuntimeError):
    """A unit could not be set up, so the run did not start; the cause is the unit's own error."""

    code = "GRAPH_RUNNER_START"

    def __init__(self, error_type: str, reason: str) -> None:
        super().__init__(f"the graph did not start: {error_type}: {reason}")
        self.error_type, self.reason = error_type, reason


class InvalidComponents(EzmsgError, ValueError):
    """Components were not given as what `run` takes."""

    code = "INVALID_COMPONENTS"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: give components as keywords, run(A=a, B=b), or as one mapping of names")
        self.reason = reason


class SeveralMains(EzmsgError):
    """Two units of one process have a `main` function; a process has one main thread."""

    code = "SEVERAL_MAINS"

    def __init__(self, units: list[str]) -> None:
        super().__init__(
            f"Process has more than one main-thread functions: those of {', '.join(units)}. Put the units into "
            "different processes, with process_components"
        )
        self.units = units


class NotSpawnable(EzmsgError, TypeError):
    """Units cannot be sent to a process that does not inherit them."""

    code = "NOT_SPAWNABLE"

    def __init__(self, units: list[str], reason: str) -> None:
        super().__init__(
            f"{', '.join(units)} cannot be sent to a spawned process: {reason}. Make what cannot be pickled in "
            "initialize(), or use multiprocessing.set_start_method('fork')"
        )
        self.units, self.reason = units, reason


class RunCancelled(EzmsgError, RuntimeError):
    """Code of a unit cancelled what keeps the units of its process going, although nobody ended the run."""

    code = "RUN_CANCELLED"

    def __init__(self, unit: str | None) -> None:
        what = f"the set-up of {unit}" if unit else "the life of all units of a process"
        super().__init__(f"{what} was cancelled from within: raise NormalTermination to end a run")
        self.unit = unit


class BackendProcessLost(EzmsgError, RuntimeError):
    """A process of a run ended before the run did; the others were stopped."""

    code = "BACKEND_PROCESS_LOST"

    def __init__(self, process: str, exitcode: int | None) -> None:
        super().__init__(f"{process} {_ending(exitcode)}, and the run was ended")
        self.process, self.exitcode = process, exitcode


class BackendProcessFailed(EzmsgError, RuntimeError):
    """A process of a run raised an exception that cannot be raised here; its traceback is in a note."""

    code = "BACKEND_PROCESS_FAILED"

    def __init__(self, process: str, error_type: str) -> None:
        super().__init__(f"{error_type} in {process}")
        self.process, self.error_type = process, error_type


def _ending(exitcode: int | None) -> str:
    if exitcode is None:
        return "stopped answering"
    if exitcode >= 0:
        return f"ended with exit code {exitcode} before it was told to"
    try:
        return f"was killed by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"was killed by signal {-exitcode}"
