"""The handshake without a socket: who learns what, and when."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core.errors import AuthenticationFailed, ForeignPeer, HandshakeAbandoned, HandshakeError, VersionMismatch
from ezmsg.core.wire import handshake
from ezmsg.core.wire.handshake import MAGIC, PROTOCOL_VERSION, ClientHandshake, PeerInfo, ServerHandshake
from ezmsg.core.wire.limits import HANDSHAKE_BYTES

KEY = hashlib.sha256(b"a key").digest()
OTHER_KEY = hashlib.sha256(b"another key").digest()
ALICE = PeerInfo(101, "11111111-1111-1111-1111-111111111111", "3.9.0+otel.1")
BOB = PeerInfo(202, "22222222-2222-2222-2222-222222222222", "3.9.0+otel.2")

HELLO_BYTES = 120
CHALLENGE_BYTES = HELLO_BYTES + 32
PROOF_BYTES = 33
VERDICT_BYTES = 13


def pair(client_key: bytes = KEY, server_key: bytes = KEY) -> tuple[ClientHandshake, ServerHandshake]:
    client = ClientHandshake(client_key, ALICE, "the server", nonce=bytes(range(32)))
    server = ServerHandshake(server_key, BOB, "the client", nonce=bytes(range(32, 64)))
    return client, server


def deliver(data: bytes, receiver: ClientHandshake | ServerHandshake, step: int = HANDSHAKE_BYTES) -> bytes:
    """Hand over bytes as a socket would: never more than wanted, and not always all at once."""
    answer = b""
    while data:
        size = min(receiver.wanted, step)
        assert size > 0
        answer += receiver.receive(data[:size])
        data = data[size:]
    return answer


@pytest.mark.parametrize("step", [1, 7, HANDSHAKE_BYTES])
def test_peers_with_one_key_learn_who_the_other_is(step: int) -> None:
    client, server = pair()
    challenge = deliver(client.hello, server, step)
    proof = deliver(challenge, client, step)
    assert not server.done
    verdict = deliver(proof, server, step)
    assert server.done
    assert not client.done
    assert deliver(verdict, client, step) == b""
    assert client.done
    assert (client.peer, server.peer) == (BOB, ALICE)
    assert (client.wanted, server.wanted) == (0, 0)


def test_the_conversation_is_these_bytes() -> None:
    client, server = pair()
    challenge = deliver(client.hello, server)
    proof = deliver(challenge, client)
    verdict = deliver(proof, server)
    assert [len(said) for said in (client.hello, challenge, proof, verdict)] == [
        HELLO_BYTES,
        CHALLENGE_BYTES,
        PROOF_BYTES,
        VERDICT_BYTES,
    ]
    assert client.hello[:48].hex() == "93455a4d53470d0a04006c00" + bytes(range(32)).hex() + "65000000"
    assert client.hello[48:] == ALICE.boot_id.encode() + bytes(4) + ALICE.version.encode().ljust(32, b"\0")
    assert challenge[:12].hex() == "93455a4d53470d0a04008c00"
    assert challenge[-32:].hex() == GOLDEN_SERVER_MAC
    assert proof.hex() == "00" + GOLDEN_CLIENT_MAC
    assert verdict.hex() == "93455a4d53470d0a04000100" + "00"


GOLDEN_SERVER_MAC = "8f804b421cd61d161a380396fc55856d71d10b92b4721067855a212ccea9d179"
GOLDEN_CLIENT_MAC = "9532f91f50f0ce528e6194aac03c99960e8b6cb13aeb894fbc84fcb0085ca676"


# -- keys -----------------------------------------------------------------------------------------------------------


def test_a_client_with_another_key_does_not_prove_itself_and_says_why_it_leaves() -> None:
    client, server = pair(client_key=OTHER_KEY)
    challenge = deliver(client.hello, server)
    with pytest.raises(AuthenticationFailed, match="with the server failed: it holds another key"):
        deliver(challenge, client)
    # No HMAC of the client's key goes out.
    assert client.farewell == b"\x01" + bytes(32)
    with pytest.raises(AuthenticationFailed, match="with the client failed: it holds another key"):
        deliver(client.farewell, server)
    assert not server.done


def test_a_client_that_skips_the_check_is_refused_with_a_verdict() -> None:
    client, server = pair()
    deliver(client.hello, server)
    with pytest.raises(AuthenticationFailed):
        deliver(bytes(PROOF_BYTES), server)
    verdict = server.farewell
    honest, other = pair()
    deliver(deliver(honest.hello, other), honest)
    with pytest.raises(AuthenticationFailed, match="the server failed: it holds another key"):
        deliver(verdict, honest)


def test_a_verdict_without_a_challenge_does_not_make_a_server() -> None:
    client, _ = pair()
    with pytest.raises(HandshakeError, match="refused with code 0"):
        deliver(MAGIC + b"\x04\x00\x01\x00\x00", client)
    assert not client.done


def test_a_server_cannot_answer_with_the_clients_own_words() -> None:
    """Reflection: what one side says never proves the other."""
    client, _ = pair()
    with pytest.raises(HandshakeError, match="announces a message of 108 bytes"):
        deliver(client.hello, client)
    client, server = pair()
    challenge = deliver(client.hello, server)
    with pytest.raises(AuthenticationFailed):
        deliver(b"\x00" + challenge[-32:], server)


def test_a_proof_serves_once() -> None:
    client, server = pair()
    proof = deliver(deliver(client.hello, server), client)
    replayed_to = ServerHandshake(KEY, BOB, nonce=b"n" * 32)
    deliver(client.hello, replayed_to)
    with pytest.raises(AuthenticationFailed):
        deliver(proof, replayed_to)


@settings(deadline=None)
@given(st.integers(12, HELLO_BYTES - 1), st.integers(1, 255))
def test_a_changed_hello_is_noticed(position: int, change: int) -> None:
    client, server = pair()
    hello = bytearray(client.hello)
    hello[position] ^= change
    try:
        challenge = deliver(bytes(hello), server)
    except HandshakeError:
        return
    with pytest.raises(AuthenticationFailed):
        deliver(challenge, client)


@settings(deadline=None)
@given(st.integers(12, CHALLENGE_BYTES - 1), st.integers(1, 255))
def test_a_changed_challenge_is_noticed(position: int, change: int) -> None:
    client, server = pair()
    challenge = bytearray(deliver(client.hello, server))
    challenge[position] ^= change
    with pytest.raises(AuthenticationFailed):
        deliver(bytes(challenge), client)


def test_nonces_are_fresh() -> None:
    assert ClientHandshake(KEY, ALICE).hello != ClientHandshake(KEY, ALICE).hello


# -- versions -------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_version(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda version: monkeypatch.setattr(handshake, "PROTOCOL_VERSION", version)


@pytest.mark.parametrize("length", [1, 60, 108, 1000, HANDSHAKE_BYTES - 12])
def test_both_sides_name_both_versions_whatever_the_other_format_is(length: int) -> None:
    _, server = pair()
    hello = MAGIC + b"\x07\x00" + length.to_bytes(2, "little") + bytes(length)
    with pytest.raises(VersionMismatch, match="speaks version 7 of the protocol, this process version 4") as refused:
        deliver(hello, server)
    assert (refused.value.ours, refused.value.theirs) == (PROTOCOL_VERSION, 7)
    # All of the hello was read, so that closing does not discard the answer.
    assert server.farewell == MAGIC + b"\x04\x00\x01\x00\x02"


def test_a_client_learns_the_version_of_the_server(in_version: Callable[[int], None]) -> None:
    _, server = pair()
    in_version(7)
    client, _ = pair()
    hello = client.hello
    in_version(1)
    with pytest.raises(VersionMismatch):
        deliver(hello, server)
    farewell = server.farewell
    in_version(7)
    with pytest.raises(VersionMismatch, match="speaks version 1 of the protocol, this process version 7"):
        client.receive(farewell[: client.wanted])


# -- strangers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [ClientHandshake, ServerHandshake])
@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", b"\0", b"\x93EZMSX", b"SSH-2.0-OpenSSH_9.6\r\n"])
def test_something_else_is_named_as_soon_as_it_speaks(side: type[ServerHandshake], said: bytes) -> None:
    stranger = side(KEY, ALICE, "10.0.0.1:80")
    with pytest.raises(ForeignPeer, match=r"handshake with 10\.0\.0\.1:80 failed: it sent b") as error:
        stranger.receive(said[: stranger.wanted])
    assert repr(said[: stranger.wanted])[:-1] in str(error.value)
    assert stranger.farewell == b""


@pytest.mark.parametrize("length", [0, 107, 109, HANDSHAKE_BYTES - 11, 0xFFFF])
def test_a_hello_of_another_size_is_refused_before_it_is_read(length: int) -> None:
    _, server = pair()
    with pytest.raises(HandshakeError, match=f"of {length} bytes"):
        server.receive(MAGIC + b"\x04\x00" + length.to_bytes(2, "little"))


def test_more_than_wanted_is_refused() -> None:
    client, server = pair()
    with pytest.raises(HandshakeError, match="sent more than a handshake takes"):
        server.receive(client.hello)


def test_a_name_in_no_encoding_is_refused() -> None:
    client, server = pair()
    hello = bytearray(client.hello)
    hello[50] = 0xFF
    with pytest.raises(HandshakeError, match="no known encoding"):
        deliver(bytes(hello), server)


def test_a_peer_that_hangs_up_is_named() -> None:
    client, server = pair()
    assert str(server.hung_up()) == "handshake with the client failed: it hung up"
    deliver(client.hello[:10], server)
    assert str(server.hung_up()).endswith(r"it hung up after it sent b'\x93EZMSG\r\n\x04\x00'")
    deliver(client.hello[10:50], server)
    assert str(server.hung_up()).endswith("it hung up in the middle of the handshake")
    deliver(deliver(deliver(client.hello[50:], server), client), server)
    assert isinstance(server.hung_up(), HandshakeAbandoned)  # it held the key


@settings(deadline=None)
@given(st.lists(st.binary(max_size=64), max_size=30), st.booleans())
def test_garbage_gets_nobody_in(chunks: list[bytes], is_after_a_hello: bool) -> None:
    client, server = pair()
    if is_after_a_hello:
        deliver(client.hello, server)
    try:
        for chunk in chunks:
            server.receive(chunk[: server.wanted])
    except HandshakeError:
        pass
    assert not server.done


def test_a_boot_id_that_does_not_fit_is_refused_by_its_owner() -> None:
    with pytest.raises(ValueError, match="cannot greet"):
        ServerHandshake(KEY, PeerInfo(1, "x" * 41, "1"))
