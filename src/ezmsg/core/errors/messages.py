"""What can go wrong with a message, on its way or in a log."""

from __future__ import annotations

from ezmsg.core.errors.root import EzmsgError

__all__ = [
    "LogLineUnreadable",
    "MessageNotReadable",
    "MessageNotSerializable",
    "MessageTooLarge",
    "PublisherClosed",
    "SubscriberClosed",
    "UndersizedMemory",
    "UninitializedMemory",
    "UnknownMessageType",
]


class PublisherClosed(EzmsgError, RuntimeError):
    """A publisher was used after it was closed."""

    code = "PUBLISHER_CLOSED"

    def __init__(self, topic: str) -> None:
        super().__init__(f"the publisher on {topic!r} is closed")
        self.topic = topic


class SubscriberClosed(EzmsgError, RuntimeError):
    """A subscriber was used after it was closed, or was closed while waiting."""

    code = "SUBSCRIBER_CLOSED"

    def __init__(self, topic: str) -> None:
        super().__init__(f"the subscriber on {topic!r} is closed")
        self.topic = topic


class MessageTooLarge(EzmsgError, ValueError):
    """A message is larger than the limit; nothing was sent."""

    code = "MESSAGE_TOO_LARGE"

    def __init__(self, topic: str, size: int, limit: int) -> None:
        super().__init__(
            f"a message on {topic!r} takes {size} bytes, the limit is {limit}: "
            "send it in parts, or raise EZMSG_MAX_MESSAGE_BYTES in every process"
        )
        self.topic, self.size, self.limit = topic, size, limit


class MessageNotSerializable(EzmsgError, TypeError):
    """A message cannot be pickled for a subscriber of another process; nothing was sent."""

    code = "MESSAGE_NOT_SERIALIZABLE"

    def __init__(self, topic: str, type_name: str, reason: str) -> None:
        super().__init__(f"a message of type {type_name} on {topic!r} cannot be sent to another process: {reason}")
        self.topic, self.type_name, self.reason = topic, type_name, reason


class MessageNotReadable(EzmsgError, ValueError):
    """A received message cannot be decoded in this process (say, its class cannot be imported)."""

    code = "MESSAGE_NOT_READABLE"

    def __init__(self, topic: str, message_id: int, reason: str) -> None:
        super().__init__(f"message {message_id} on {topic!r} cannot be read here: {reason}")
        self.topic, self.message_id, self.reason = topic, message_id, reason


class UndersizedMemory(EzmsgError, ValueError):
    """A message does not fit the memory it was to be written to; nothing was written."""

    code = "UNDERSIZED_MEMORY"

    def __init__(self, req_size: int) -> None:
        super().__init__(f"the message takes {req_size} bytes: pass a memoryview of at least that size")
        self.req_size = req_size


class UninitializedMemory(EzmsgError, ValueError):
    """No message was written to this memory."""

    code = "UNINITIALIZED_MEMORY"

    def __init__(self, size: int) -> None:
        super().__init__(f"there is no message in these {size} bytes: write one with Marshal.to_mem")
        self.size = size


class UnknownMessageType(EzmsgError, ImportError):
    """A log has a message of a class that cannot be imported in this process."""

    code = "UNKNOWN_MESSAGE_TYPE"

    def __init__(self, type_name: str, reason: str) -> None:
        super().__init__(f"messages of type {type_name!r} cannot be read here: {reason}")
        self.type_name, self.reason = type_name, reason


class LogLineUnreadable(EzmsgError, ValueError):
    """A line of a log of messages cannot be read; the lines around it may well be."""

    code = "LOG_LINE_UNREADABLE"

    def __init__(self, path: str, line: int, reason: str) -> None:
        super().__init__(f"line {line} of {path} cannot be read: {reason}")
        self.path, self.line, self.reason = path, line, reason
