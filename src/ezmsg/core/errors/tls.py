"""What can go wrong with TLS and its certificates."""

from __future__ import annotations

from ezmsg.core.errors.connections import HandshakeError
from ezmsg.core.errors.root import EzmsgError

__all__ = [
    "CertificateExpired",
    "CertificateMissing",
    "CertificateNameMismatch",
    "CertificateNotYetValid",
    "CertificateRefused",
    "CertificateUntrusted",
    "TlsFailed",
    "TlsFileError",
    "TlsIncomplete",
    "TlsNotSpoken",
    "TlsRequired",
]


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
