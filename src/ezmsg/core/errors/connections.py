"""What can go wrong between two peers: no way, no agreement, no key, bytes that mean nothing."""

from __future__ import annotations

from ezmsg.core.errors.root import EzmsgError

__all__ = [
    "AuthKeyError",
    "AuthenticationFailed",
    "CannotConnect",
    "ConnectionFailed",
    "ConnectionLost",
    "ForeignPeer",
    "FrameTooLarge",
    "HandshakeAbandoned",
    "HandshakeError",
    "HandshakeTimeout",
    "InsecureBind",
    "InvalidRecord",
    "ProtocolError",
    "ServerUnreachable",
    "Unanswerable",
    "VersionMismatch",
]


class ConnectionFailed(EzmsgError, ConnectionError):
    """A connection could not be opened, or was lost."""

    code = "CONNECTION_FAILED"


class ServerUnreachable(ConnectionFailed):
    """Nothing answers at the address of a GraphServer."""

    code = "SERVER_UNREACHABLE"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"no GraphServer answers at {address} ({reason}): start one there (ezmsg start --address {address}), "
            "or say where it is (EZMSG_GRAPHSERVER_ADDR)"
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
        super().__init__(f"the body of {record} is invalid: {reason}")
        self.record, self.reason = record, reason


class Unanswerable(ProtocolError):
    """A request of a kind that this peer does not answer."""

    code = "UNANSWERABLE"

    def __init__(self, record: str) -> None:
        super().__init__(f"{record} is no request that is answered here")
        self.record = record
