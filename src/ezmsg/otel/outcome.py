"""What became of one export, and the seam between those who send and those who decide what to send when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

Batch_contra = TypeVar("Batch_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fate of a batch.

    `taken`: the receiver has it, all but `rejected` items. `retry`: it does not, and may take it later. `lost`:
    it will not take it, or may have taken it already. `reason` is a word to count by, `detail` is for people. With
    `retry`, `retry_after_s` is what the receiver asked for.
    """

    verdict: Literal["taken", "retry", "lost"]
    reason: str = ""
    detail: str = ""
    rejected: int = 0
    retry_after_s: float = 0.0

    def then(self, other: Outcome) -> Outcome:
        """The fate of a batch that went in two requests: the first failure, or both counts."""
        if self.verdict != "taken":
            return self
        return Outcome(other.verdict, other.reason, other.detail, self.rejected + other.rejected)


TAKEN = Outcome("taken")


class Sender(Protocol[Batch_contra]):
    """Sends batches of one signal to one receiver; used by one thread."""

    @property
    def target(self) -> str:
        """Where to, for people."""
        ...

    def send(self, batch: Batch_contra) -> Outcome:
        """Try once; may take as long as the configured timeout, or longer where the system hangs."""
        ...

    def close(self) -> None:
        """Release what is held, and make a running `send` end where that is possible. From any thread."""
        ...
