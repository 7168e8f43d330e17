"""TLS: who is let in, and what everybody else is told, on both sides of the connection."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ezmsg.core.config import TLS_VARIABLES, TlsFiles
from ezmsg.core.errors import (
    AuthenticationFailed,
    CertificateExpired,
    CertificateMissing,
    CertificateNameMismatch,
    CertificateNotYetValid,
    CertificateRefused,
    CertificateUntrusted,
    ConnectionLost,
    HandshakeError,
    TlsFileError,
    TlsIncomplete,
    TlsNotSpoken,
    TlsRequired,
)
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.net import dial, listener
from ezmsg.core.net.address import Address
from ezmsg.core.net.authkey import AuthKey
from ezmsg.core.net.dial import connect
from ezmsg.core.net.listener import bind_tcp
from ezmsg.core.net.tls import Credentials, load_credentials, named_error
from ezmsg.core.net.tlshandshake import ClientTls, ServerTls
from ezmsg.core.net.tlssocket import TlsSocket
from ezmsg.core.wire.records import Done, Pause
from tests.certificates import FAR_AHEAD, LONG_AGO, LONG_AGO_TOO, Authority
from tests.core.net.securing import Dial, Use, between, refused, serving_with
from tests.core.net.serving import KEY
from tests.core.net.test_dial import connect_in_a_thread


@pytest.fixture(params=[connect, connect_in_a_thread], ids=["loop", "thread"])
def dialled(request: pytest.FixtureRequest) -> Dial:
    return request.param


# -- friends ----------------------------------------------------------------------------------------------------------


async def test_peers_with_certificates_of_one_ca_talk(authority: Authority, use: Use, dialled: Dial) -> None:
    async with serving_with(authority.issue("server.example"), use) as serving:
        use(authority.issue("client.example"))
        sock, info = await dialled(serving.address, KEY)
        with sock:
            assert isinstance(sock, TlsSocket)
            assert info.pid == os.getpid()
            await serving.peers.get()
        async with serving.both() as (client, server):
            assert await client.request(Pause(), 5) == Done()
            assert await server.request(Pause(), 5) == Done()


async def test_all_may_share_one_certificate_that_signs_itself(tmp_path: Path, use: Use) -> None:
    """The least that works: one pair of files, copied to every host."""
    files = Authority(tmp_path).issue("graph")
    only = files._replace(ca=files.cert)
    make_self_signed(only)
    async with serving_with(only, use) as serving, serving.both() as (client, _):
        assert await client.request(Pause(), 5) == Done()


def make_self_signed(files: TlsFiles) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "graph")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    files.cert.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


async def test_a_certificate_of_an_intermediate_ca_comes_with_its_chain(authority: Authority, use: Use) -> None:
    intermediate = Authority(authority.directory, "intermediate", parent=authority)
    files = intermediate.issue("server.example", ca=authority.ca)
    async with serving_with(files, use) as serving, serving.both() as (client, _):
        assert await client.request(Pause(), 5) == Done()


async def test_nothing_readable_is_on_the_wire(authority: Authority, use: Use) -> None:
    heard = bytearray()
    async with (
        serving_with(authority.issue("server.example"), use) as serving,
        between(serving.address, heard.extend) as address,
        await serving.dial(where=address) as client,
    ):
        assert await client.request(Pause(), 5) == Done()
    assert len(heard) > 1000
    assert b"EZMSG" not in heard


async def test_the_door_of_the_same_host_needs_no_tls(authority: Authority, use: Use) -> None:
    async with serving_with(authority.issue("server.example"), use) as serving:
        if not serving.door:
            pytest.skip("no doors here")
        sock, _ = await connect(serving.door, KEY)
        with sock:
            assert not isinstance(sock, TlsSocket)


async def test_files_that_were_replaced_are_used_by_the_next_connection(
    authority: Authority, stranger: Authority, tmp_path: Path, use: Use
) -> None:
    files = TlsFiles(tmp_path / "cert", tmp_path / "key", tmp_path / "ca")
    for path, source in zip(files, stranger.issue("server.example"), strict=True):
        shutil.copy(source, path)
    async with serving_with(files, use) as serving, serving.both() as (before, _):
        for path, source in zip(files, authority.issue("server.example"), strict=True):
            os.replace(shutil.copy(source, tmp_path / "new"), path)
        use(authority.issue("client.example"))
        async with await serving.dial() as client:
            assert await client.request(Pause(), 5) == Done()
        assert await before.request(Pause(), 5) == Done()


# -- strangers --------------------------------------------------------------------------------------------------------


class Mismatch(NamedTuple):
    """Files of both sides (by name), what the client is told, and what the server counts and logs."""

    server: str
    client: str
    error: type[HandshakeError]
    text: str
    code: str
    line: str


MISMATCHES = {
    "server of another CA": Mismatch(
        "strange", "good", CertificateUntrusted, "was not issued by the CA in .*ca.pem",
        "CERTIFICATE_UNTRUSTED", "it does not trust the CA of our certificate in",
    ),
    "client of another CA": Mismatch(
        "good", "strange but trusting", CertificateUntrusted, "it does not trust the CA of our certificate in .*pem",
        "CERTIFICATE_UNTRUSTED", "was not issued by the CA in",
    ),
    "expired server": Mismatch(
        "expired", "good", CertificateExpired, "its certificate, or that of its CA, has expired",
        "CERTIFICATE_EXPIRED", "it says that our certificate in",
    ),
    "expired client": Mismatch(
        "good", "expired", CertificateExpired, "it says that our certificate in .*pem .*has expired: renew it",
        "CERTIFICATE_EXPIRED", "its certificate, or that of its CA, has expired",
    ),
    "server not yet valid": Mismatch(
        "early", "good", CertificateNotYetValid, "its certificate, or that of its CA, is not valid yet: .* right time",
        "CERTIFICATE_NOT_YET_VALID", "which is not valid yet",
    ),
    "client not yet valid": Mismatch(
        "good", "early", CertificateNotYetValid, "it refuses our certificate in .*pem .*, which is not valid yet",
        "CERTIFICATE_NOT_YET_VALID", "its certificate, or that of its CA, is not valid yet",
    ),
    "plain client": Mismatch(
        "good", "none", TlsRequired, "it uses TLS, this process does not: set EZMSG_TLS_CERT, .* here",
        "TLS_NOT_SPOKEN", "it does not use TLS, this process does: set EZMSG_TLS_CERT, ",
    ),
    "plain server": Mismatch(
        "none", "good", TlsNotSpoken, "it does not use TLS, this process does: set EZMSG_TLS_CERT, .* there",
        "TLS_REQUIRED", "it uses TLS, this process does not: set EZMSG_TLS_CERT, ",
    ),
}  # fmt: skip


@pytest.fixture
def files_of(authority: Authority, stranger: Authority) -> Callable[[str], TlsFiles | None]:
    made = {
        "none": lambda: None,
        "good": lambda: authority.issue("a.example"),
        "strange": lambda: stranger.issue("a.example"),
        "strange but trusting": lambda: stranger.issue("a.example", ca=authority.ca),
        "expired": lambda: authority.issue("a.example", not_before=LONG_AGO, not_after=LONG_AGO_TOO),
        "early": lambda: authority.issue("a.example", not_before=FAR_AHEAD),
    }
    return lambda name: made[name]()


@pytest.mark.parametrize("mismatch", MISMATCHES.values(), ids=MISMATCHES.keys())
async def test_both_sides_name_what_does_not_fit(mismatch: Mismatch, files_of, use: Use, dialled: Dial, caplog) -> None:
    async with serving_with(files_of(mismatch.server), use) as serving:
        use(files_of(mismatch.client))
        caplog.clear()
        with pytest.raises(mismatch.error, match=mismatch.text) as raised:
            await dialled(serving.address, KEY)
        assert type(raised.value) is mismatch.error
        assert raised.value.peer == str(serving.address)
        assert await refused(serving) == {mismatch.code: 1}
        (line,) = [record.message for record in caplog.records if record.message.startswith("test: ")]
        assert mismatch.line in line


async def test_a_wrong_key_is_named_within_tls(authority: Authority, use: Use, dialled: Dial) -> None:
    async with serving_with(authority.issue("server.example"), use) as serving:
        with pytest.raises(AuthenticationFailed, match="EZMSG_AUTHKEY"):
            await dialled(serving.address, AuthKey(b"w" * 32, explicit=True))
        assert await refused(serving) == {"AUTHENTICATION_FAILED": 1}


async def test_a_client_without_certificate_is_named(authority, use: Use, dialled: Dial, monkeypatch) -> None:
    class Without(Credentials):
        def client(self, host: str) -> tuple[ssl.SSLContext, str | None]:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(self.files.ca)
            context.check_hostname = False
            return context, None

    async with serving_with(authority.issue("server.example"), use) as serving:
        monkeypatch.setattr(dial, "load_credentials", Without)
        with pytest.raises(CertificateMissing, match="it wants a certificate of ours"):
            await dialled(serving.address, KEY)
        assert await refused(serving) == {"CERTIFICATE_MISSING": 1}


@pytest.fixture
def named_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names under .example are this host."""
    look_up = socket.getaddrinfo

    def answer(host, *args, **options):
        return look_up("127.0.0.1" if str(host).endswith(".example") else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.mark.usefixtures("named_hosts")
async def test_a_server_that_is_dialled_by_name_must_have_that_name(
    authority: Authority, use: Use, dialled: Dial
) -> None:
    async with serving_with(authority.issue("server.example"), use) as serving:
        try:
            sock, _ = await dialled(Address("server.example", serving.address.port), KEY)
            sock.close()
            with pytest.raises(
                CertificateNameMismatch, match=r"not for other\.example: add that to its subjectAltName"
            ):
                await dialled(Address("other.example", serving.address.port), KEY)
            assert await refused(serving) == {"CERTIFICATE_REFUSED": 1}
        finally:
            await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.parametrize(
    ("names", "is_right"),
    [(["a.example"], True), (["192.0.2.7", "192.0.2.1"], True), (["192.0.2.7", "a.example"], False)],
)
def test_a_server_that_is_dialled_by_address_must_have_it_if_its_certificate_has_any(
    authority: Authority, names: list[str], is_right: bool
) -> None:
    credentials = load_credentials(authority.issue(*names))
    client, server = ClientTls(credentials, "192.0.2.1", "192.0.2.1:1"), ServerTls(credentials, "client")
    hello = client.hello
    heard = server.receive(hello[:12]) + server.receive(hello[12:])
    if is_right:
        client.receive(heard)
        assert client.done
    else:
        with pytest.raises(CertificateNameMismatch, match=r"is for 192\.0\.2\.7, not for 192\.0\.2\.1"):
            client.receive(heard)


# -- the end of a connection ------------------------------------------------------------------------------------------


async def test_an_end_that_was_not_announced_is_a_loss(authority: Authority, use: Use) -> None:
    async with serving_with(authority.issue("a.example"), use) as serving:
        async with serving.both() as (client, server):
            handler = serving.connections[0]
            assert handler is server
            await client.close()
            await server.wait_closed()
            assert server._error is None
        async with serving.both() as (client, server):
            assert client._transport is not None
            # As when the process is killed, or somebody cuts the connection.
            socket.socket.shutdown(client._transport.get_extra_info("socket"), socket.SHUT_WR)
            await server.wait_closed()
            assert isinstance(server._error, ConnectionLost)


# -- what is configured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", TLS_VARIABLES)
async def test_a_partial_set_is_refused_with_what_is_missing(authority, use: Use, missing, monkeypatch) -> None:
    use(authority.issue("a.example"))
    monkeypatch.setenv(missing, "")
    for attempt in (lambda: bind_tcp("127.0.0.1", 0, KEY), lambda: GraphServer().start("127.0.0.1:0")):
        with pytest.raises(TlsIncomplete, match=f"and {missing} is not set: set all three, or none") as raised:
            attempt()
        assert raised.value.missing == [missing]
    with pytest.raises(TlsIncomplete):
        await connect(Address("127.0.0.1", 1), KEY)


@pytest.fixture
def files(authority: Authority) -> TlsFiles:
    return authority.issue("a.example")


def broken(files: TlsFiles, field: str, tmp_path: Path, content: str | bytes | None) -> TlsFiles:
    path = tmp_path / field
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return files._replace(**{field: path})


BROKEN_PEM = "-----BEGIN {0}-----\nAAAA\n-----END {0}-----\n"


@pytest.mark.parametrize(
    ("field", "content", "reason"),
    [
        ("cert", None, "No such file or directory"),
        ("key", None, "No such file or directory"),
        ("ca", None, "No such file or directory"),
        ("cert", b"\x30\x82\xff", "there is no certificate in PEM format in it"),
        ("key", "hello", "there is no private key in PEM format in it"),
        ("ca", "", "there is no certificate in PEM format in it"),
        ("cert", BROKEN_PEM.format("CERTIFICATE"), "it cannot be loaded"),
        ("key", BROKEN_PEM.format("PRIVATE KEY"), "it cannot be loaded with the key in"),
        ("ca", BROKEN_PEM.format("CERTIFICATE"), "it cannot be loaded"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named(files, field, content, reason, tmp_path: Path, use: Use) -> None:
    use(broken(files, field, tmp_path, content))
    with pytest.raises(TlsFileError, match=reason) as raised:
        bind_tcp("127.0.0.1", 0, KEY)
    assert str(tmp_path) in str(raised.value)
    with pytest.raises(TlsFileError, match=reason):
        await connect(Address("127.0.0.1", 1), KEY)


async def test_a_directory_is_no_file(files: TlsFiles, tmp_path: Path, use: Use) -> None:
    use(files._replace(ca=tmp_path))
    with pytest.raises(TlsFileError, match=r"cannot use EZMSG_TLS_CA=.*: Is a directory"):
        bind_tcp("127.0.0.1", 0, KEY)


async def test_a_key_of_another_certificate_is_named(files: TlsFiles, authority: Authority, use: Use) -> None:
    use(files._replace(key=authority.issue("a.example").key))
    with pytest.raises(TlsFileError, match=r"EZMSG_TLS_KEY=.*: it is not the key of the certificate in .*cert\.pem"):
        bind_tcp("127.0.0.1", 0, KEY)


async def test_a_key_with_a_passphrase_is_refused_rather_than_asked_for(files, tmp_path: Path, use: Use) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    use(broken(files, "key", tmp_path, encrypted))
    with pytest.raises(TlsFileError, match="it is encrypted; store it without a passphrase"):
        bind_tcp("127.0.0.1", 0, KEY)


def test_a_server_says_at_once_that_its_own_certificate_will_be_refused(files_of, use: Use, caplog) -> None:
    use(files_of("expired"))
    bind_tcp("127.0.0.1", 0, KEY).close()
    (line,) = caplog.messages
    assert line.endswith("(EZMSG_TLS_CERT): certificate has expired")


def test_other_hosts_need_a_key_also_with_tls_and_are_not_warned_of(files: TlsFiles, use: Use, caplog) -> None:
    use(files)
    with pytest.raises(listener.InsecureBind):
        bind_tcp("0.0.0.0", 0, KEY)
    listener._warn_of_plain_text.cache_clear()
    bind_tcp("0.0.0.0", 0, AuthKey(b"k" * 32, explicit=True)).close()
    assert caplog.messages == []


def test_a_certificate_for_servers_only_is_named(authority: Authority) -> None:
    credentials = load_credentials(authority.issue("a.example"))
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = 26, "unsuitable certificate purpose"
    named = named_error(error, "peer", credentials)
    assert isinstance(named, CertificateRefused)
    assert "serverAuth and clientAuth" in str(named)
