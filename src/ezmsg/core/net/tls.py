"""Who may talk to whom over TLS: the certificate, key and CA of this process, and what the failures mean."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import re
import ssl
from pathlib import Path

from ezmsg.core.config import TLS_VARIABLES, TlsFiles
from ezmsg.core.errors import (
    CertificateExpired,
    CertificateMissing,
    CertificateNameMismatch,
    CertificateNotYetValid,
    CertificateRefused,
    CertificateUntrusted,
    TlsFailed,
    TlsFileError,
)

logger = logging.getLogger("ezmsg")

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")

# Of X509_verify_cert(3).
_NOT_YET_VALID = 9
_EXPIRED = 10
_UNTRUSTED = {7, 18, 19, 20, 21, 27, 28}
_WRONG_PURPOSE = 26
_NAME_MISMATCH = {62, 64}


class Credentials:
    """What this process proves itself with, and whom it trusts: contexts made once, for many connections.

    Attributes:
        files: What they were read from.
        server: For connections that were accepted.
        fingerprint: SHA-256 of the own certificate.

    Raises:
        TlsFileError: A file cannot be used.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        contents = [_read(variable, path) for variable, path in zip(TLS_VARIABLES, files, strict=True)]
        certificate = _CERTIFICATE.search(contents[0])
        for variable, path, content in zip(TLS_VARIABLES, files, contents, strict=True):
            is_key = path is files.key
            if not (_PRIVATE_KEY if is_key else _CERTIFICATE).search(content):
                what = "private key" if is_key else "certificate"
                raise TlsFileError(variable, str(path), f"there is no {what} in PEM format in it")
        assert certificate is not None
        self.fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate[0])).digest()
        self.server = self._context(ssl.PROTOCOL_TLS_SERVER)
        self._by_name = self._context(ssl.PROTOCOL_TLS_CLIENT)
        self._by_address = self._context(ssl.PROTOCOL_TLS_CLIENT)
        self._by_address.check_hostname = False

    def __repr__(self) -> str:
        return f"<Credentials {self.files.cert}>"

    def client(self, host: str) -> tuple[ssl.SSLContext, str | None]:
        """For a connection to `host`: the context, and the name that the certificate must have, if any."""
        if _is_this_host(host) or _address(host) is not None:
            return self._by_address, None
        return self._by_name, host

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        # Both ends are always of this implementation, and every OpenSSL that Python ≥ 3.11 runs with has it.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # sessions are never resumed
        files = self.files
        try:
            context.load_cert_chain(files.cert, files.key, password=self._no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise TlsFileError(
                    "EZMSG_TLS_KEY", str(files.key), f"it is not the key of the certificate in {files.cert}"
                ) from None
            raise TlsFileError(
                "EZMSG_TLS_CERT", str(files.cert), f"it cannot be loaded with the key in {files.key}: {_text(error)}"
            ) from None
        try:
            context.load_verify_locations(files.ca)
        except ssl.SSLError as error:
            raise TlsFileError("EZMSG_TLS_CA", str(files.ca), f"it cannot be loaded: {_text(error)}") from None
        return context

    def _no_password(self) -> str:
        # Else OpenSSL asks for one on the terminal.
        raise TlsFileError(
            "EZMSG_TLS_KEY", str(self.files.key), "it is encrypted; store it without a passphrase, mode 600"
        )

    def own_fault(self) -> ssl.SSLError | None:
        """Why somebody with the same files would refuse our certificate, as that of a server or of a client."""
        ways = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = (
            self._by_address.wrap_bio(ways[0], ways[1]),
            self.server.wrap_bio(ways[1], ways[0], server_side=True),
        )
        # Client hello; server's answer; client's certificate; the last one for the server to look at it.
        for end in ends * 2:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                return error
        return None


# By files: what they were when they were read, and what was made of them.
_loaded: dict[TlsFiles, tuple[object, Credentials]] = {}


def load_credentials(files: TlsFiles) -> Credentials:
    """What is in these files; those that were replaced since the last call are read again.

    Raises:
        TlsFileError: A file cannot be used.
    """
    stamps = [_stamp(path) for path in files]
    known, credentials = _loaded.get(files, (None, None))
    if credentials is None or known != stamps:
        credentials = Credentials(files)
        if fault := credentials.own_fault():
            logger.warning("peers will refuse the certificate in %s (EZMSG_TLS_CERT): %s", files.cert, _text(fault))
        _loaded[files] = stamps, credentials
    return credentials


def _stamp(path: Path) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(variable: str, path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise TlsFileError(variable, str(path), error.strerror or str(error)) from None


# -- names of hosts ---------------------------------------------------------------------------------------------------


def check_address(tls: ssl.SSLObject, host: str, name: str) -> None:
    """Check the certificate of a server that was dialled by its address; by name OpenSSL does that itself.

    Publishers are dialled by address, and many certificates name hosts only: then it has to do that one of our CA
    belongs to somebody who has the key of the graph. One that does name addresses must name this one.

    Raises:
        CertificateNameMismatch: It names addresses, and not this one.
    """
    if _is_this_host(host):
        return
    subjects = (tls.getpeercert() or {}).get("subjectAltName", ())
    named = [str(value) for kind, value in subjects if kind == "IP Address"]
    if named and _address(host) not in map(_address, named):
        raise _name_mismatch(name, host, f"for {', '.join(named)}")


def _address(host: str) -> object:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_this_host(host: str) -> bool:
    """Whether a connection cannot leave this host: no certificate needs to name it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name_mismatch(name: str, host: str, found: str) -> CertificateNameMismatch:
    return CertificateNameMismatch(
        name,
        f"its certificate is {found}, not for {host}: add that to its subjectAltName, or dial what is there",
    )


# -- failures ---------------------------------------------------------------------------------------------------------


def named_error(error: ssl.SSLError, name: str, credentials: Credentials, host: str = "") -> TlsFailed:
    """What a failure of OpenSSL means.

    Args:
        error: The failure.
        name: The peer.
        credentials: Ours.
        host: What was dialled.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _theirs(error, name, credentials, host)
    reason = error.reason or ""
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return CertificateMissing(name, "it has no certificate: set EZMSG_TLS_CERT and EZMSG_TLS_KEY there")
    if "ALERT" in reason:
        return _ours(reason, name, credentials)
    if reason in ("UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"):
        return TlsFailed(name, "it has no TLS 1.3")
    return TlsFailed(name, f"TLS failed: {_text(error)}")


def _theirs(error: ssl.SSLCertVerificationError, name: str, credentials: Credentials, host: str) -> TlsFailed:
    """We refuse the certificate of the peer."""
    code = error.verify_code
    if code == _EXPIRED:
        return CertificateExpired(name, "its certificate, or that of its CA, has expired: renew it there")
    if code == _NOT_YET_VALID:
        return CertificateNotYetValid(
            name, "its certificate, or that of its CA, is not valid yet: see whether both hosts have the right time"
        )
    if code in _UNTRUSTED:
        return CertificateUntrusted(
            name,
            f"its certificate was not issued by the CA in {credentials.files.ca} ({error.verify_message}): all "
            "processes of a graph need certificates of the CA that EZMSG_TLS_CA names",
        )
    if code in _NAME_MISMATCH:
        return _name_mismatch(name, host, "for other names")
    if code == _WRONG_PURPOSE:
        return CertificateRefused(name, "its certificate needs both serverAuth and clientAuth as extendedKeyUsage")
    return CertificateRefused(name, f"its certificate cannot be used: {error.verify_message}")


def _ours(alert: str, name: str, credentials: Credentials) -> TlsFailed:
    """The peer refuses us; most alerts do not say why, but our own files may."""
    cert = f"our certificate in {credentials.files.cert} (EZMSG_TLS_CERT)"
    if alert == "TLSV13_ALERT_CERTIFICATE_REQUIRED":
        return CertificateMissing(name, "it wants a certificate of ours")
    fault = credentials.own_fault()
    code = fault.verify_code if isinstance(fault, ssl.SSLCertVerificationError) else 0
    if alert == "SSLV3_ALERT_CERTIFICATE_EXPIRED":
        return CertificateExpired(name, f"it says that {cert}, or that of its CA, has expired: renew it")
    if alert == "TLSV1_ALERT_UNKNOWN_CA":
        return CertificateUntrusted(
            name, f"it does not trust the CA of {cert}: EZMSG_TLS_CA must name the same CA there"
        )
    if code == _NOT_YET_VALID:
        return CertificateNotYetValid(
            name, f"it refuses {cert}, which is not valid yet: see whether both hosts have the right time"
        )
    if "CERTIFICATE" in alert:
        why = f" ({_text(fault)})" if fault else ""
        return CertificateRefused(name, f"it refuses {cert}{why}: its log may say why")
    if alert == "TLSV1_ALERT_PROTOCOL_VERSION":
        return TlsFailed(name, "it has no TLS 1.3")
    return TlsFailed(name, f"it broke off TLS: {alert.rpartition('ALERT_')[2].lower().replace('_', ' ')}")


def _text(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).lower().replace("_", " ")
