"""The key that all processes of a graph share: given in the environment, or a file of the user, made on first use."""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import stat
from pathlib import Path
from typing import NamedTuple

from ezmsg.core import config
from ezmsg.core.errors import AuthKeyError

KEY_BYTES = 32
_FILE_BYTES_MAX = 4096


class AuthKey(NamedTuple):
    """The secret, 32 bytes, and whether somebody chose it: only then may peers of other hosts be let in."""

    secret: bytes
    explicit: bool

    def __repr__(self) -> str:
        return f"AuthKey(<secret>, explicit={self.explicit})"


_inherited: AuthKey | None = None


def load_key() -> AuthKey:
    """The key of this process: inherited, else EZMSG_AUTHKEY, EZMSG_AUTHKEY_FILE, or the user's key file.

    Raises:
        AuthKeyError: There is none and none can be made, or others could read it.
    """
    if _inherited is not None:
        return _inherited
    if text := config.authkey():
        return AuthKey(_digest(text.encode(errors="surrogateescape")), explicit=True)
    if path := config.authkey_file():
        return AuthKey(_read_or_make(path), explicit=True)
    return AuthKey(_read_or_make(default_key_file()), explicit=False)


class KeySource(NamedTuple):
    """Where the key of this process comes from: a variable, a file, or both if the variable names the file.

    `characters` is the length of a key that the variable itself holds.
    """

    variable: str | None
    path: Path | None
    characters: int = 0


def key_source() -> KeySource:
    """Where `load_key` finds the key, which need not be there yet.

    Raises:
        AuthKeyError: This user has no home to keep it in.
    """
    if text := config.authkey():
        return KeySource("EZMSG_AUTHKEY", None, len(text.strip()))
    if path := config.authkey_file():
        return KeySource("EZMSG_AUTHKEY_FILE", path)
    return KeySource(None, default_key_file())


def inherit_key(key: AuthKey | None) -> None:
    """Use this key from now on, also in children that are forked: the one this process was started with."""
    global _inherited
    _inherited = key


def default_key_file() -> Path:
    """The key file of the user: `ezmsg/authkey` in the configuration directory."""
    return config.user_config_dir(_home()) / "ezmsg" / "authkey"


def _home() -> Path:
    if home := os.environ.get("HOME"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        raise AuthKeyError("~/.config/ezmsg/authkey", f"HOME is not set and user {os.geteuid()} has no home") from None


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(b"ezmsg key\0" + secret.strip()).digest()


def _read_or_make(path: Path) -> bytes:
    try:
        secret = _read(path)
        if secret is None:
            _make(path)
            secret = _read(path)
    except OSError as error:
        if isinstance(error, AuthKeyError):
            raise
        raise AuthKeyError(str(path), error.strerror or str(error)) from None
    if secret is None:
        raise AuthKeyError(str(path), "it was removed while it was read")
    return _digest(secret)


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        # The open file, not the path: what is checked is what is read.
        _check(path, os.fstat(descriptor))
        secret = os.read(descriptor, _FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if not secret.strip():
        raise AuthKeyError(str(path), "it is empty")
    if len(secret) > _FILE_BYTES_MAX:
        raise AuthKeyError(str(path), f"it is larger than {_FILE_BYTES_MAX} bytes")
    return secret


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise AuthKeyError(str(path), "it is no regular file")
    if status.st_uid != os.geteuid():
        raise AuthKeyError(str(path), f"it belongs to user {status.st_uid}, this process runs as {os.geteuid()}")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise AuthKeyError(str(path), f"others can read it (mode {mode:o}): run chmod 600 on it")


def _make(path: Path) -> None:
    """Make the file with a new key, unless another process was faster: then its key stands."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_hex(KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or not at all, and never replaces.
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not path.exists():
                temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
