"""Who has still to acknowledge an epoch. Decides only: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping

from flowrt.contract.errors import CheckpointError
from flowrt.contract.snapshot import Acknowledge


class Pending:
    """The acknowledgements of one epoch; `tasks` gives the parallelism of each task."""

    def __init__(self, epoch: int, tasks: Mapping[str, int]) -> None:
        self.epoch = epoch
        self._tasks = tasks
        self._missing = {(task, index) for task, count in tasks.items() for index in range(count)}
        self._taken: list[Acknowledge] = []

    @property
    def missing(self) -> list[tuple[str, int]]:
        """The (task, subtask)s that have not acknowledged, sorted."""
        return sorted(self._missing)

    def acknowledge(self, message: Acknowledge) -> list[Acknowledge] | None:
        """Take an acknowledgement; return all of them, once, when it was the last.

        A second one from the same subtask, and one of an earlier epoch, change nothing.
        `CheckpointError` for a subtask that does not exist or an epoch that was not opened.
        """
        if not 0 <= message.subtask < self._tasks.get(message.task, 0):
            raise CheckpointError(
                f"subtask {message.subtask} of task {message.task!r} acknowledged epoch "
                f"{message.epoch}, but the flow has no such subtask"
            )
        if message.epoch > self.epoch:
            raise CheckpointError(
                f"task {message.task!r} acknowledged epoch {message.epoch}, but the newest that "
                f"was opened is {self.epoch}"
            )
        who = message.task, message.subtask
        if message.epoch < self.epoch or who not in self._missing:
            return None
        self._missing.discard(who)
        self._taken.append(message)
        return None if self._missing else sorted(self._taken, key=_place)


def _place(message: Acknowledge) -> tuple[str, int]:
    return message.task, message.subtask
