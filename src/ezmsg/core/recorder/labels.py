"""A bounded table of texts that rows name by number: error types, labels of user spans, holders of slots."""

from __future__ import annotations

import threading
from typing import Final

LIMIT: Final = 4096
TEXT_LIMIT: Final = 256
NO_LABEL: Final = 0
OVERFLOW: Final = 1


def portable(text: str) -> str:
    """A text as it can travel: not too long, and without halves of surrogate pairs, as names of files may have."""
    return text[:TEXT_LIMIT].encode(errors="replace").decode()


class Labels:
    """Numbers grow and are never reused. Beyond the limit every new text is `…other`, and counted.

    Attributes:
        overflowed: How often that was so.
        attributes: Attributes of user spans.
        attributes_cut: Those of them that were too many for their span.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        """Make a table that holds `limit` texts."""
        self._limit = limit
        self._codes: dict[str, int] = {"": NO_LABEL, "…other": OVERFLOW}
        self._texts: list[str] = ["", "…other"]
        self._lock = threading.Lock()
        self.overflowed = 0
        self.attributes = self.attributes_cut = 0

    def __len__(self) -> int:
        """How many numbers exist."""
        return len(self._texts)

    def code(self, text: str, *, is_free: bool = False) -> int:
        """The number of a text; makes one when it is new.

        Args:
            text: What to number.
            is_free: It may be anything, another one each time: such texts leave the last eighth of the table to others.
        """
        code = self._codes.get(text)
        if code is not None:
            return code
        short = portable(text)
        if short != text:
            return self.code(short, is_free=is_free)
        with self._lock:
            if len(self._texts) >= self._limit - (self._limit // 8 if is_free else 0):
                self.overflowed += 1
                return OVERFLOW
            if text not in self._codes:
                # Text before number: a reader that sees the number finds its text.
                self._texts.append(text)
                self._codes[text] = len(self._texts) - 1
            return self._codes[text]

    def text(self, code: int) -> str:
        """The text of a number."""
        return self._texts[code]

    def since(self, count: int) -> dict[int, str]:
        """Texts that were added after the table had `count` of them."""
        return dict(enumerate(self._texts[count:], start=count))
