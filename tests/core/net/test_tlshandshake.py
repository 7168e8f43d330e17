"""The TLS handshake: what is at the other end, how much a stranger may cost, and nobody in between."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from ezmsg.core.errors import AuthenticationFailed, CertificateUntrusted, ForeignPeer, HandshakeError, TlsFailed
from ezmsg.core.net import dial, listener
from ezmsg.core.net.dial import connect
from ezmsg.core.net.tls import load_credentials
from ezmsg.core.net.tlshandshake import ClientTls, ServerTls
from ezmsg.core.wire.limits import HANDSHAKE_BYTES, TLS_HANDSHAKE_BYTES
from tests import hostile
from tests.certificates import Authority
from tests.core.net.securing import Dial, Use, accepting, converse, refused, serving_with
from tests.core.net.serving import KEY
from tests.core.net.test_dial import connect_in_a_thread, something_that_says


@pytest.fixture(params=[connect, connect_in_a_thread], ids=["loop", "thread"])
def dialled(request: pytest.FixtureRequest) -> Dial:
    return request.param


async def test_nobody_can_stand_between_with_another_certificate_of_the_ca(authority: Authority, use: Use) -> None:
    """The certificate is good, and all that is said is passed on; but the key is asked for together with it."""
    async with serving_with(authority.issue("server.example"), use) as serving:
        use(authority.issue("middle.example"))

        async def pass_on(sock: socket.socket) -> None:
            loop = asyncio.get_running_loop()
            tls = ServerTls(load_credentials(authority.issue("middle.example")), "victim")
            await converse(sock, tls)
            near = tls.secured(sock)
            far = socket.socket()
            far.setblocking(False)
            with near, far:
                await loop.sock_connect(far, serving.address)
                client = ClientTls(load_credentials(authority.issue("middle.example")), "localhost", "server")
                await loop.sock_sendall(far, client.hello)
                await converse(far, client)
                with client.secured(far) as secured:
                    hello = await loop.sock_recv(near, 148)
                    await loop.sock_sendall(secured, hello)
                    challenge = await loop.sock_recv(secured, 4096)
                    await loop.sock_sendall(near, challenge)
                    await loop.sock_recv(near, 4096)

        async with accepting(pass_on) as address:
            with pytest.raises(AuthenticationFailed, match="holds another key"):
                await connect(address, KEY)


async def test_something_else_at_the_address_is_named(authority: Authority, use: Use, dialled: Dial) -> None:
    use(authority.issue("a.example"))
    async with something_that_says(b"220 mail.example ESMTP\r\n") as address:
        with pytest.raises(ForeignPeer, match=r"it sent b'220 mail\.exa.*, which is not TLS"):
            await dialled(address, KEY)
    async with something_that_says(b"") as address:
        with pytest.raises(HandshakeError, match="it hung up when TLS began"):
            await dialled(address, KEY)
    async with something_that_says(b"\x16\x03\x03") as address:
        with pytest.raises(HandshakeError, match="it hung up in the middle of the TLS handshake"):
            await dialled(address, KEY)
    async with something_that_says(b"\x16\x03\x03\x40\x00\x02\x00\xff\xff" + bytes(100_000)) as address:
        with pytest.raises(HandshakeError, match="it sent more than a TLS handshake takes"):
            await dialled(address, KEY)
    async with something_that_says(None) as address:
        with pytest.raises(dial.HandshakeTimeout, match=r"did not answer within 0\.05 s"):
            await dialled(address, KEY, 0.05)


async def test_a_server_with_another_version_of_tls_is_named(authority: Authority, use: Use, dialled: Dial) -> None:
    files = authority.issue("a.example")
    use(files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.cert, files.key)

    async def talk(sock: socket.socket) -> None:
        tls = context.wrap_bio(incoming := ssl.MemoryBIO(), outgoing := ssl.MemoryBIO(), server_side=True)
        incoming.write(await asyncio.get_running_loop().sock_recv(sock, 4096))
        with pytest.raises(ssl.SSLError):
            tls.do_handshake()
        await hostile.send(sock, outgoing.read())

    async with accepting(talk) as address:
        with pytest.raises(TlsFailed, match=r"it has no TLS 1\.3"):
            await dialled(address, KEY)


# -- what strangers cost ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"], ids=["nothing", "one", "some"]
)
async def test_a_peer_that_stalls_is_cut_off(authority: Authority, use: Use, said: bytes, monkeypatch) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT_S", 0.05)
    async with serving_with(authority.issue("a.example"), use) as serving:

        async def talk(sock: socket.socket) -> None:
            await hostile.send(sock, said)

        assert await hostile.on_raw_socket(serving.address, talk) == b""
        assert await refused(serving) == {"HANDSHAKE_TIMEOUT": 1}


async def test_a_peer_that_is_through_with_tls_and_stalls_then_is_cut_off(authority, use: Use, monkeypatch) -> None:
    files = authority.issue("a.example")
    async with serving_with(files, use) as serving:
        monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT_S", 40.0)
        with socket.socket() as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            passes_s = loop.time
            await loop.sock_connect(sock, serving.address)
            client = ClientTls(load_credentials(files), "localhost", "server")
            await loop.sock_sendall(sock, client.hello)
            await converse(sock, client)
            monkeypatch.setattr(loop, "time", lambda: passes_s() + 40.0)
            assert await hostile.read_to_end(sock) == b""
        assert await refused(serving) == {"HANDSHAKE_TIMEOUT": 1}


def hello_of(size: int) -> bytes:
    """A hello of so many bytes, in records as large as may be."""
    message = b"\x01" + size.to_bytes(3, "big") + bytes(size)
    pieces = [message[start : start + 16384] for start in range(0, len(message), 16384)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


async def test_a_hello_is_bounded(authority: Authority, use: Use) -> None:
    async with serving_with(authority.issue("a.example"), use) as serving:

        async def talk(sock: socket.socket) -> None:
            await hostile.send(sock, hello_of(60_000))

        await hostile.on_raw_socket(serving.address, talk)
        assert await refused(serving) == {"HANDSHAKE": 1}


def test_a_hello_and_the_certificates_after_it_have_bounds_of_their_own(authority: Authority) -> None:
    credentials = load_credentials(authority.issue("a.example"))
    server = ServerTls(credentials, "client")
    server.receive(hello_of(60_000)[:12])
    with pytest.raises(HandshakeError, match="more than a TLS handshake takes"):
        server.receive(bytes(HANDSHAKE_BYTES))
    client, server = ClientTls(credentials, "localhost", "server"), ServerTls(credentials, "client")
    assert server.receive(client.hello[:12]) + server.receive(client.hello[12:])
    more = b"\x17\x03\x03\x40\x00" + bytes(TLS_HANDSHAKE_BYTES - len(client.hello) - 5)
    assert len(more) > HANDSHAKE_BYTES
    assert server.receive(more) == b""
    with pytest.raises(HandshakeError, match="more than a TLS handshake takes"):
        server.receive(b"x")


async def test_silent_peers_beyond_the_limit_wait(authority: Authority, use: Use) -> None:
    async with serving_with(authority.issue("a.example"), use) as serving:
        sockets = [socket.create_connection(serving.address) for _ in range(serving.strangers_at_a_gate + 3)]
        for sock in sockets:
            sock.sendall(b"\x16\x03\x01")
        while serving.listener.unauthenticated < serving.strangers_at_a_gate:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert serving.listener.unauthenticated == serving.strangers_at_a_gate
        await serving.listener.close()
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize("kind", ["garbage", "wrong_proof", "wrong_version", "hangup_in_handshake"])
async def test_strangers_without_tls_are_forgotten(authority: Authority, use: Use, kind: str) -> None:
    codes = {"garbage": "FOREIGN_PEER", "wrong_proof": "TLS_NOT_SPOKEN", "wrong_version": "VERSION_MISMATCH"}
    async with serving_with(authority.issue("a.example"), use) as serving:
        said = await hostile.attack(serving.address, kind, KEY)
        assert await refused(serving) == {codes.get(kind, "HANDSHAKE"): 1}
        assert len(said) <= 13
        sock, _ = await connect(serving.address, KEY)
        sock.close()


async def test_many_strangers_make_one_line_for_each_reason(authority, stranger, use: Use, caplog) -> None:
    async with serving_with(authority.issue("a.example"), use) as serving:
        use(stranger.issue("a.example", ca=authority.ca))
        caplog.clear()
        for _ in range(20):
            with pytest.raises(CertificateUntrusted):
                await connect(serving.address, KEY)
        while serving.listener.refused.total() < 20:
            await asyncio.sleep(0.001)
        assert len([record for record in caplog.records if record.message.startswith("test: ")]) == 1
