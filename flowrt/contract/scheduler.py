"""Schedulers: the policy that decides when an epoch ends."""

from __future__ import annotations

from typing import Protocol


class Scheduler(Protocol):
    """Decides when epochs open. No clock and no I/O inside: time comes in, a decision goes out."""

    def describe(self) -> str:
        """Return a short text for `flowrt explain`."""
        ...

    def next_epoch_ms(self, now_ms: int, last_opened_ms: int | None) -> int:
        """Return when to open the next epoch (ms of processing time).

        At or before `now_ms` means now.

        Asked when the one before is committed. `last_opened_ms` is None before the first.
        """
        ...
