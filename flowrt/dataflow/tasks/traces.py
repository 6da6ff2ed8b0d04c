"""Passes traces on: from the run that is traced to what it became, task by task.

Records carry nothing with them, so what belongs to a trace stands between two marks in a channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from flowrt.contract.elements import Sampled
from flowrt.contract.tracing import Tracer
from flowrt.dataflow.channels.outputs import Outputs


class Traces:
    """The traces that go through one task.

    Without `outputs` they end here: in a sink, and where records leave in another order.
    """

    def __init__(self, tracer: Tracer, task: str, subtask: int, outputs: Outputs | None) -> None:
        self._tracer = tracer
        self._task = task
        self._subtask = subtask
        self._outputs = outputs

    def sample(self, records: int) -> AbstractContextManager[None] | None:
        """Return what is to be held while a source sends a run; None for one not traced."""
        span = self._tracer.sample(self._task, self._subtask, records)
        return None if span is None else self._marking(span)

    def follow(self, trace: object, records: int) -> AbstractContextManager[None]:
        """Return what is to be held while the task has a run that belongs to a trace."""
        return self._marking(self._tracer.follow(trace, self._task, self._subtask, records))

    @contextmanager
    def _marking(self, span: AbstractContextManager[object]) -> Iterator[None]:
        with span as trace:
            self._mark(trace)
            try:
                yield
            finally:
                self._mark(None)

    def _mark(self, trace: object | None) -> None:
        if self._outputs is not None:
            self._outputs.broadcast(Sampled(trace))
