"""Which key this process would use, where it comes from, whether others can read it (never its bytes); and TLS."""

from __future__ import annotations

import ssl
import stat
import time
from pathlib import Path

from ezmsg.core import config
from ezmsg.core.commands.checks.finding import Finding
from ezmsg.core.errors import AuthKeyError, EzmsgError
from ezmsg.core.net.authkey import KeySource, key_source, load_key
from ezmsg.core.net.tls import load_credentials

TOPIC = "key"
SHORT_KEY = 16
HOW_TO = "see docs/howto/several-hosts.md"
# A process that makes the key file needs its temporary file for a moment only.
LEFT_OVER_S = 60.0


def look_at_key() -> list[Finding]:
    """The key, what is left of attempts to make one, and whether connections are encrypted."""
    return [*_key(), _tls()]


def _key() -> list[Finding]:
    try:
        source = key_source()
    except AuthKeyError as error:
        return [Finding(TOPIC, "source", "problem", str(error), "set EZMSG_AUTHKEY_FILE")]
    if source.path is None:
        return [_of_variable(source)]
    return [_of_file(source, source.path), *_left_over(source.path.parent, source.path.name)]


def _tls() -> Finding:
    try:
        files = config.tls_files()
        if files is None:
            text = "off: nothing is encrypted, which is fine within a host"
            return Finding(TOPIC, "TLS", "info", text, facts={"is_on": False})
        fault = load_credentials(files).own_fault()
    except EzmsgError as error:
        return Finding(TOPIC, "TLS", "problem", str(error), HOW_TO, {"is_on": True})
    if fault is not None:
        reason = fault.verify_message if isinstance(fault, ssl.SSLCertVerificationError) else str(fault)
        text = f"peers will refuse the certificate in {files.cert} (EZMSG_TLS_CERT): {reason}"
        return Finding(TOPIC, "TLS", "problem", text, HOW_TO, {"is_on": True, "certificate": str(files.cert)})
    return Finding(TOPIC, "TLS", "ok", f"on, with {files.cert}", facts={"is_on": True, "certificate": str(files.cert)})


def _of_variable(source: KeySource) -> Finding:
    facts = {"variable": source.variable, "characters": source.characters}
    text = f"the value of {source.variable}, {source.characters} characters"
    if source.characters >= SHORT_KEY:
        return Finding(TOPIC, "source", "ok", text, facts=facts)
    return Finding(
        TOPIC, "source", "warning", f"{text}: short enough to be guessed",
        "take 32 random characters: openssl rand -hex 16", facts,
    )  # fmt: skip


def _of_file(source: KeySource, path: Path) -> Finding:
    named_by = source.variable or "the default"
    facts: dict[str, object] = {"variable": source.variable, "path": str(path), "exists": path.exists()}
    if not path.exists():
        return Finding(TOPIC, "source", "info", f"{path} ({named_by}), made when it is first needed", facts=facts)
    try:
        load_key()
        facts["mode"] = f"{stat.S_IMODE(path.stat().st_mode):o}"
    except OSError as error:
        reason = error.reason if isinstance(error, AuthKeyError) else str(error)
        remedy = f"make {path} a file that only this user can read (chmod 600), or set EZMSG_AUTHKEY_FILE"
        return Finding(TOPIC, "source", "problem", f"{path} ({named_by}) cannot be used: {reason}", remedy, facts)
    return Finding(TOPIC, "source", "ok", f"{path} ({named_by}), mode {facts['mode']}", facts=facts)


def _left_over(directory: Path, name: str) -> list[Finding]:
    found: list[str] = []
    for path in directory.glob(f".{name}.*"):
        try:
            if time.time() - path.stat().st_mtime > LEFT_OVER_S:
                found.append(str(path))
        except OSError:
            continue
    if not found:
        return []
    text = f"left by a process that was killed while it made the key: {', '.join(found)}"
    return [Finding(TOPIC, "left over", "warning", text, f"rm {' '.join(found)}", {"paths": found})]
