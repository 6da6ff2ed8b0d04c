"""Tracing: what a job tells of single runs of records on their way through the flow."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Tracer(Protocol):
    """Begins traces at sources, and follows them from task to task.

    What its context managers give is passed on to the tasks behind, which may be done with it long
    after the task that began it. Called in the event loop; must neither wait nor raise.
    """

    def sample(
        self, source: str, subtask: int, records: int
    ) -> AbstractContextManager[object] | None:
        """Begin a trace with a run that a source has read; None for one that is not traced.

        Asked for each run of each source, so it must cost next to nothing.
        """
        ...

    def follow(
        self, trace: object, task: str, subtask: int, records: int
    ) -> AbstractContextManager[object]:
        """Go on with a trace while a task has records that came of the run."""
        ...
