"""Named shared memory."""

from __future__ import annotations

from ezmsg.core.wire.records.fields import Name, Record

__all__ = ["AttachShm", "CreateShm", "ShmOpened"]


class CreateShm(Record, frozen=True):
    """Opens a role: this connection holds new shared memory, which it enlarges itself from 0 bytes.

    `as_file`: the memory has a name in the file system, for a holder that cannot open a descriptor of the server.
    """

    num_buffers: int
    buf_size: int
    as_file: bool = False


class AttachShm(Record, frozen=True):
    """Opens a role: this connection holds the shared memory of that name, too."""

    name: Name


class ShmOpened(Record, frozen=True):
    """The memory is held. It is at `path` for who finds `device` and `inode` there; else that is something else."""

    name: str
    num_buffers: int
    buf_size: int
    path: str
    device: int
    inode: int
