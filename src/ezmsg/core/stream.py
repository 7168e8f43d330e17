"""The endpoints components declare: streams of units, topics and relays of collections.

They are plain descriptions: what a run makes of them happens elsewhere. All arguments are kept as attributes, which a
unit may change until its subscribers and publishers are made, that is, in `initialize()`.
"""

from __future__ import annotations

import pickle
from copy import deepcopy
from typing import Any

from ezmsg.core.addressable import Addressable, label
from ezmsg.core.wire.records.fields import buffers_of, port_of, queue_of

DEFAULT_NUM_BUFFERS = 32
DEFAULT_BUF_SIZE = 65536


def type_name(tp: Any) -> str:
    """`module.qualname` of a class, the repr of anything else."""
    if isinstance(tp, type) and not hasattr(tp, "__origin__"):
        return f"{tp.__module__}.{tp.__qualname__}"
    try:
        return repr(tp)
    except Exception:  # whatever the author of a class wrote
        return f"<{type(tp).__qualname__}>"


class Stream(Addressable):
    """An endpoint; `msg_type` says what passes through it, and is never enforced."""

    def __init__(self, msg_type: Any) -> None:
        self.msg_type = msg_type

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {label(self)} {type_name(self.msg_type)}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Stream:
        copy = memo[id(self)] = object.__new__(type(self))
        # A type is no data: it stays what it is, also if it cannot be copied.
        copy.__dict__.update({k: v if k == "msg_type" else deepcopy(v, memo) for k, v in vars(self).items()})
        return copy

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        try:
            pickle.dumps(self.msg_type)
        except Exception:  # a type variable or a class of a function: the other process does without
            state["msg_type"] = type_name(self.msg_type)
        return state


class InputStream(Stream):
    """A stream a unit receives from.

    Args:
        msg_type: What it receives.
        leaky: Whether to keep only the newest messages.
        max_queue: How many a leaky one keeps; None for one.
    """

    def __init__(self, msg_type: Any, leaky: bool = False, max_queue: int | None = None) -> None:
        super().__init__(msg_type)
        self.leaky = leaky
        self.max_queue = queue_of(max_queue)


class OutputStream(Stream):
    """A stream a unit publishes on.

    Args:
        msg_type: What it publishes.
        host: Where its publisher listens; None for the loopback interface.
        port: On which port; None for the next free one.
        num_buffers: Messages that may be on their way at the same time.
        buf_size: Initial size of each buffer in shared memory, in bytes.
        force_tcp: Whether to deliver over TCP only; None for `EZMSG_FORCE_TCP`.
        allow_local: Whether to hand objects over within the process; None for `EZMSG_ALLOW_LOCAL`.
    """

    def __init__(
        self,
        msg_type: Any,
        host: str | None = None,
        port: int | None = None,
        num_buffers: int = DEFAULT_NUM_BUFFERS,
        buf_size: int = DEFAULT_BUF_SIZE,
        force_tcp: bool | None = None,
        allow_local: bool | None = None,
    ) -> None:
        super().__init__(msg_type)
        self.host = host
        self.port = port_of(port)
        self.num_buffers = buffers_of(num_buffers)
        self.buf_size = buf_size
        self.force_tcp = force_tcp
        self.allow_local = allow_local


class Topic(Stream):
    """A node of the graph that belongs to a collection: edges in, edges out, nothing at run time."""


class InputTopic(Topic):
    """A topic through which a collection receives."""


class OutputTopic(Topic):
    """A topic through which a collection publishes."""


class InputRelay(InputTopic):
    """An input topic behind which a hidden unit receives every message once, and publishes it inwards.

    Args:
        msg_type: What it forwards.
        leaky: Whether to keep only the newest messages.
        max_queue: How many a leaky one keeps; None for one.
        copy_on_forward: Whether to forward a deep copy of each message instead of the object itself.
    """

    def __init__(
        self, msg_type: Any, leaky: bool = False, max_queue: int | None = None, copy_on_forward: bool = True
    ) -> None:
        super().__init__(msg_type)
        self.leaky = leaky
        self.max_queue = queue_of(max_queue)
        self.copy_on_forward = copy_on_forward


class OutputRelay(OutputTopic):
    """An output topic before which a hidden unit receives every message once, and publishes it outwards.

    Args:
        msg_type: What it forwards.
        host: Where its publisher listens; None for the loopback interface.
        port: On which port; None for the next free one.
        num_buffers: Messages that may be on their way at the same time.
        buf_size: Initial size of each buffer in shared memory, in bytes.
        force_tcp: Whether to deliver over TCP only.
        copy_on_forward: Whether to forward a deep copy of each message instead of the object itself.
    """

    def __init__(
        self,
        msg_type: Any,
        host: str | None = None,
        port: int | None = None,
        num_buffers: int = DEFAULT_NUM_BUFFERS,
        buf_size: int = DEFAULT_BUF_SIZE,
        force_tcp: bool | None = False,
        copy_on_forward: bool = True,
    ) -> None:
        super().__init__(msg_type)
        self.host = host
        self.port = port_of(port)
        self.num_buffers = buffers_of(num_buffers)
        self.buf_size = buf_size
        self.force_tcp = force_tcp
        self.copy_on_forward = copy_on_forward
