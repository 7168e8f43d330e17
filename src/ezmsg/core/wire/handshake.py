"""How two peers begin: versions, names, and proof that both hold the same key. Bytes in, bytes out.

    client                                    server
      hello: nonce, who I am          ──▶
                                      ◀──     challenge: nonce, who I am, HMAC(key, "server", all so far)
      proof: HMAC(key, "client", all so far) ──▶
                                      ◀──     verdict

The client proves itself only to a server that has proved itself first; the labels keep one side's HMAC from serving as
the other's. This tells friend from stranger, it does not hide or protect what follows: between hosts that takes TLS or
a tunnel. Inside TLS both HMACs also cover the server's certificate, so that nobody can stand between the two and pass
their proofs on. Whoever reaches the port gets an HMAC to try keys on, so a key must not be guessable.

Every message but the proof begins with a magic, the protocol version and its length; this much never changes, so that
peers of any two versions can tell each other apart. All sizes are known in advance: `wanted` is how many bytes to read
next, and nothing beyond the handshake is ever read.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from ezmsg.core.errors import (
    AuthenticationFailed,
    ForeignPeer,
    HandshakeAbandoned,
    HandshakeError,
    ProtocolError,
    TlsNotSpoken,
    TlsRequired,
    VersionMismatch,
)
from ezmsg.core.wire.limits import HANDSHAKE_BYTES

MAGIC = b"\x93EZMSG\r\n"
PROTOCOL_VERSION = 4

_PREFIX = struct.Struct("<8sHH")
# Nonce, pid, boot id, version of the distribution.
_WHO = struct.Struct("<32sI40s32s")
_NONCE_BYTES = 32
_MAC_BYTES = 32
_PROOF = struct.Struct("<B32s")
_VERDICT = struct.Struct("<B")
_CHALLENGE_BYTES = _WHO.size + _MAC_BYTES

# Verdicts, and the first byte of a proof.
ACCEPTED = 0
WRONG_KEY = 1
WRONG_VERSION = 2
MALFORMED = 3
TLS_ONLY = 4
NO_TLS = 5
ABANDONED = 6

_SERVER_LABEL = b"ezmsg handshake, the server proves itself\0"
_CLIENT_LABEL = b"ezmsg handshake, the client proves itself\0"
# How a TLS handshake begins: type of the record, major version.
_TLS_HELLO = b"\x16\x03"
SHOWN_BYTES = 32
_OTHER_KEY = (
    "it holds another key. Both processes must find the same one in EZMSG_AUTHKEY, EZMSG_AUTHKEY_FILE "
    "or the key file of the user"
)
SET_UP_TLS = "set EZMSG_TLS_CERT, EZMSG_TLS_KEY and EZMSG_TLS_CA"


class PeerInfo(NamedTuple):
    """Who a process says it is: pid, boot id of its host, version of its distribution."""

    pid: int
    boot_id: str
    version: str


class _Handshake:
    """What both sides share: collecting bytes, and the transcript."""

    def __init__(self, key: bytes, me: PeerInfo, name: str, nonce: bytes | None, binding: bytes) -> None:
        self._key = key
        self._binding = binding
        self._name = name
        self._who = _pack_who(nonce or os.urandom(_NONCE_BYTES), me)
        self._received = b""
        self._expected = _PREFIX.size
        self._budget = HANDSHAKE_BYTES
        self._transcript = b""
        self._peer: PeerInfo | None = None
        self._is_done = False
        # Not bound: a method that its own object keeps would be left to the garbage collector.
        self._step: Callable[[Any, bytes], bytes] = type(self)._prefix

    @property
    def wanted(self) -> int:
        """How many bytes to read at most before the next `receive`; 0 when done."""
        return 0 if self._is_done else self._expected - len(self._received)

    @property
    def done(self) -> bool:
        """Whether both sides are sure of each other."""
        return self._is_done

    @property
    def peer(self) -> PeerInfo:
        """Who the other side is; only when done."""
        assert self._peer is not None, "the handshake is not done"
        return self._peer

    def receive(self, data: bytes) -> bytes:
        """Take what was read, at most `wanted` bytes, and return what to send (maybe nothing).

        Raises:
            HandshakeError: The handshake failed; see its subclasses. Send `farewell` and close.
        """
        self._budget -= len(data)
        if len(data) > self.wanted or self._budget < 0:
            raise HandshakeError(self._name, "it sent more than a handshake takes")
        self._received += data
        if self._step is type(self)._prefix and not MAGIC.startswith(self._received[: len(MAGIC)]):
            raise self._foreign()
        if len(self._received) < self._expected:
            return b""
        received, self._received = self._received, b""
        return self._step(self, received)

    def hung_up(self) -> HandshakeError:
        """The error of a peer that closed the connection before the handshake was done, or before it heard so."""
        if self._is_done:
            return HandshakeAbandoned(self._name, "it hung up when it was let in")
        if self._step is not type(self)._prefix:
            return HandshakeError(self._name, "it hung up in the middle of the handshake")
        if not self._received:
            return HandshakeAbandoned(self._name, "it hung up")
        return HandshakeError(self._name, f"it hung up after it sent {self._received!r}")

    @property
    def farewell(self) -> bytes:
        """What to send to a peer after `receive` raised: the reason, where the peer can use it."""
        return b""

    def _prefix(self, received: bytes) -> bytes:
        _, version, length = _PREFIX.unpack(received)
        self._take_prefix(version, length)
        self._transcript += received
        self._expected = length
        return b""

    def _take_prefix(self, version: int, length: int) -> None:
        raise NotImplementedError

    def _foreign(self) -> HandshakeError:
        return ForeignPeer(
            self._name,
            f"it sent {self._received[:SHOWN_BYTES]!r}, which is not this protocol: something else lives there. Take "
            "another address; ezmsg doctor tells what it is",
        )

    def _take_who(self, received: bytes) -> None:
        _, pid, boot_id, version = _WHO.unpack(received)
        try:
            self._peer = PeerInfo(pid, _unpad(boot_id), _unpad(version))
        except UnicodeDecodeError:
            raise HandshakeError(self._name, "it gives its name in no known encoding") from None

    def _mac(self, label: bytes) -> bytes:
        return hmac.digest(self._key, label + self._binding + self._transcript, "sha256")


class ClientHandshake(_Handshake):
    """The side that opened the connection. Send `hello` first.

    Args:
        key: The secret, 32 bytes.
        me: Who this process is.
        name: How the peer is called in errors.
        nonce: 32 random bytes; only tests give them.
        binding: What both sides know of the channel they talk over: the hash of the server's certificate, if any.
    """

    def __init__(
        self, key: bytes, me: PeerInfo, name: str = "peer", nonce: bytes | None = None, *, binding: bytes = b""
    ) -> None:
        super().__init__(key, me, name, nonce, binding)
        self.hello = _PREFIX.pack(MAGIC, PROTOCOL_VERSION, _WHO.size) + self._who
        self._transcript = self.hello
        self._farewell = b""

    @property
    def farewell(self) -> bytes:
        """Tells a server that its proof was wrong."""
        return self._farewell

    @property
    def excuse(self) -> bytes:
        """What to send before hanging up for a reason of one's own; nothing once the server has what it waits for."""
        return b"" if self._peer is not None else _PROOF.pack(ABANDONED, bytes(_MAC_BYTES))

    def _take_prefix(self, version: int, length: int) -> None:
        if version != PROTOCOL_VERSION:
            raise VersionMismatch(self._name, PROTOCOL_VERSION, version)
        if length not in (_CHALLENGE_BYTES, _VERDICT.size):
            raise HandshakeError(self._name, f"it announces a message of {length} bytes")
        self._step = ClientHandshake._challenge if length == _CHALLENGE_BYTES else ClientHandshake._verdict

    def _challenge(self, received: bytes) -> bytes:
        if self._peer is not None:
            raise HandshakeError(self._name, "it sent a second challenge")
        who, mac = received[: _WHO.size], received[_WHO.size :]
        self._transcript += who
        if not hmac.compare_digest(mac, self._mac(_SERVER_LABEL)):
            self._farewell = _PROOF.pack(WRONG_KEY, bytes(_MAC_BYTES))
            raise AuthenticationFailed(self._name, _OTHER_KEY)
        self._transcript += mac
        self._take_who(who)
        proof = _PROOF.pack(ACCEPTED, self._mac(_CLIENT_LABEL))
        self._step, self._expected = ClientHandshake._prefix, _PREFIX.size
        return proof

    def _verdict(self, received: bytes) -> bytes:
        (code,) = _VERDICT.unpack(received)
        if code == WRONG_KEY:
            raise AuthenticationFailed(self._name, _OTHER_KEY)
        if code == TLS_ONLY:
            raise TlsRequired(self._name, f"it uses TLS, this process does not: {SET_UP_TLS} here as well")
        if code != ACCEPTED or self._peer is None:
            raise HandshakeError(self._name, f"it refused with code {code}")
        self._is_done = True
        return b""


class ServerHandshake(_Handshake):
    """The side that accepted the connection.

    Args:
        key: The secret, 32 bytes.
        me: Who this process is.
        name: How the peer is called in errors.
        nonce: 32 random bytes; only tests give them.
        binding: As for the client.
        tls_only: Send the peer away once it said hello, because it should have begun with TLS.
    """

    def __init__(
        self,
        key: bytes,
        me: PeerInfo,
        name: str = "peer",
        nonce: bytes | None = None,
        *,
        binding: bytes = b"",
        tls_only: bool = False,
    ) -> None:
        super().__init__(key, me, name, nonce, binding)
        self._tls_only = tls_only
        self._theirs = PROTOCOL_VERSION
        self._verdict = MALFORMED

    @property
    def farewell(self) -> bytes:
        """A verdict, with our version; nothing for a peer that speaks neither this protocol nor TLS."""
        return self._say(self._verdict) if self._transcript or self._verdict == NO_TLS else b""

    def _foreign(self) -> HandshakeError:
        if self._tls_only or not _TLS_HELLO.startswith(self._received[: len(_TLS_HELLO)]):
            return super()._foreign()
        self._verdict = NO_TLS
        return TlsRequired(self._name, f"it uses TLS, this process does not: {SET_UP_TLS} here as well")

    def _take_prefix(self, version: int, length: int) -> None:
        if version == PROTOCOL_VERSION and length != _WHO.size:
            raise HandshakeError(self._name, f"it announces a message of {length} bytes")
        if not 0 < length <= HANDSHAKE_BYTES - _PREFIX.size:
            raise HandshakeError(self._name, f"it announces a hello of {length} bytes")
        # Also a hello of another version is read to its end: closing with bytes unread would discard our answer.
        self._theirs = version
        self._step = ServerHandshake._hello

    def _hello(self, received: bytes) -> bytes:
        if self._theirs != PROTOCOL_VERSION:
            self._verdict = WRONG_VERSION
            raise VersionMismatch(self._name, PROTOCOL_VERSION, self._theirs)
        if self._tls_only:
            self._verdict = TLS_ONLY
            raise TlsNotSpoken(self._name, f"it does not use TLS, this process does: {SET_UP_TLS} there as well")
        self._take_who(received)
        challenge = _PREFIX.pack(MAGIC, PROTOCOL_VERSION, _CHALLENGE_BYTES) + self._who
        self._transcript += received + challenge
        mac = self._mac(_SERVER_LABEL)
        self._transcript += mac
        self._step, self._expected = ServerHandshake._proof, _PROOF.size
        return challenge + mac

    def _proof(self, received: bytes) -> bytes:
        code, mac = _PROOF.unpack(received)
        if code == ABANDONED:
            raise HandshakeAbandoned(self._name, "it gave up")
        if code != ACCEPTED or not hmac.compare_digest(mac, self._mac(_CLIENT_LABEL)):
            self._verdict = WRONG_KEY
            raise AuthenticationFailed(self._name, _OTHER_KEY)
        self._is_done = True
        return self._say(ACCEPTED)

    def _say(self, verdict: int) -> bytes:
        return _PREFIX.pack(MAGIC, PROTOCOL_VERSION, _VERDICT.size) + _VERDICT.pack(verdict)


def _pack_who(nonce: bytes, me: PeerInfo) -> bytes:
    boot_id, version = me.boot_id.encode(), me.version.encode()[:32]
    if len(nonce) != _NONCE_BYTES or len(boot_id) > 40:
        raise ProtocolError(f"cannot greet with a nonce of {len(nonce)} bytes and the boot id {me.boot_id!r}")
    return _WHO.pack(nonce, me.pid, boot_id, version)


def _unpad(text: bytes) -> str:
    return text.rstrip(b"\0").decode()
