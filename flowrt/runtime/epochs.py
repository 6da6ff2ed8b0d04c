"""How the epochs of a job went, over all its attempts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flowrt.checkpoint.coordinator import EpochStatistics
from flowrt.contract.logs import flow_log
from flowrt.runtime.status import EpochMetrics, EpochTotals, TaskEpochMetrics

log = flow_log()


class Epochs:
    """Adds up what the coordinators tell, and passes it on to whoever wants to hear it."""

    def __init__(self) -> None:
        self.last: EpochMetrics | None = None
        self.totals = EpochTotals()
        self._listeners: list[Callable[[EpochMetrics], None]] = []

    def listen(self, call: Callable[[EpochMetrics], None]) -> Callable[[], None]:
        """Call `call` after each commit; returns what ends that, and may be called twice."""
        self._listeners.append(call)

        def leave() -> None:
            if call in self._listeners:
                self._listeners.remove(call)

        return leave

    def committed(self, statistics: EpochStatistics) -> None:
        """Take an epoch that was committed."""
        self.last = epoch = _metrics(statistics)
        before = self.totals
        self.totals = EpochTotals(
            before.committed + 1,
            before.failed,
            before.seconds + epoch.duration_ms / 1e3,
            before.align_seconds + epoch.align_ms / 1e3,
            before.freeze_seconds + epoch.freeze_ms / 1e3,
            before.write_seconds + epoch.write_ms / 1e3,
            before.commit_seconds + epoch.commit_ms / 1e3,
        )
        for call in list(self._listeners):
            try:
                call(epoch)
            except Exception:
                # The epoch is committed, whatever somebody who watches makes of it.
                log.exception("a listener for epochs failed at epoch %d", epoch.epoch)

    def failed(self) -> None:
        """Take note that the flow failed while an epoch was under way."""
        self.totals = replace(self.totals, failed=self.totals.failed + 1)


def _metrics(statistics: EpochStatistics) -> EpochMetrics:
    return EpochMetrics(
        statistics.epoch,
        duration_ms=statistics.duration_ns / 1e6,
        align_ms=statistics.align_ns / 1e6,
        freeze_ms=statistics.freeze_ns / 1e6,
        write_ms=statistics.write_ns / 1e6,
        commit_ms=statistics.commit_ns / 1e6,
        size=statistics.size,
        opened_ms=statistics.opened_ms,
        tasks=tuple(
            TaskEpochMetrics(
                part.task,
                part.subtask,
                part.acknowledged_ns / 1e6,
                part.align_ns / 1e6,
                part.freeze_ns / 1e6,
                part.write_ns / 1e6,
            )
            for part in statistics.tasks
        ),
    )
