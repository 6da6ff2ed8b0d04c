"""What takes back what an operator did with one record, should that record fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class UndoLog:
    """For each change the call that takes it back, in the order of the changes.

    Only where a step goes on after an error: state that knows no log keeps none. Nothing may be cut
    between a change and its end, so that what a snapshot holds is never taken back.
    """

    __slots__ = ("_changes", "is_on", "record")

    def __init__(self) -> None:
        self._changes: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.is_on = False
        """Whether there is a record to which changes belong."""
        self.record = 0
        """A number for each record, and for each try at one."""

    def begin(self) -> None:
        """Let all changes stay: what follows belongs to another record."""
        self._changes.clear()
        self.is_on = True
        self.record += 1

    def rest(self) -> None:
        """Let all changes stay: what follows belongs to no record, and may be much."""
        self._changes.clear()
        self.is_on = False

    def add(self, take_back: Callable[..., object], *arguments: Any) -> None:
        """Note how a change is taken back; not before it is made."""
        if self.is_on:
            self._changes.append((take_back, arguments))

    def take_back(self) -> None:
        """Take back all changes, the last one first."""
        while self._changes:
            take_back, arguments = self._changes.pop()
            take_back(*arguments)
