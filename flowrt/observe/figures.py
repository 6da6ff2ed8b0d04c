"""The figures of a job under the names by which collectors know them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP
from flowrt.runtime.status import ENDED, JobMetrics, JobStatus, OperatorMetrics, TaskMetrics

Labels: TypeAlias = Mapping[str, str]
Sample: TypeAlias = tuple[Labels, float]


class Observed(Protocol):
    """What has figures: a `Job`."""

    @property
    def name(self) -> str:
        """The flow's name."""
        ...

    def metrics(self) -> JobMetrics:
        """Return the counters as they are now."""
        ...

    def status(self) -> JobStatus:
        """Say how it stands."""
        ...


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, of a job or of each of its operators, subtasks or outputs.

    A `counter` only grows while the process lives. `unit` is a base unit: "seconds", "bytes", or
    "" for a plain count.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: Callable[[JobMetrics, JobStatus], Iterator[Sample]]
    unit: Literal["", "seconds", "bytes"] = ""


def samples(job: Observed) -> Iterator[tuple[Figure, list[Sample]]]:
    """Return all figures of a job as they are now, labelled with the flow's name as well."""
    metrics, status = job.metrics(), job.status()
    for figure in FIGURES:
        found: list[Sample] = [
            ({"flow": job.name, **labels}, value)
            for labels, value in figure.samples(metrics, status)
        ]
        if found:
            yield figure, found


# ------------------------------------------------------------------------------------ of what


def _of_job(
    value: Callable[[JobMetrics, JobStatus], float | None],
) -> Callable[..., Iterator[Sample]]:
    def found(metrics: JobMetrics, status: JobStatus) -> Iterator[Sample]:
        if (number := value(metrics, status)) is not None:
            yield {}, number

    return found


def _of_operators(
    value: Callable[[OperatorMetrics], float | None],
) -> Callable[..., Iterator[Sample]]:
    def found(metrics: JobMetrics, status: JobStatus) -> Iterator[Sample]:
        for one in metrics.operators:
            if (number := value(one)) is not None:
                yield {"operator": one.operator, "subtask": str(one.subtask)}, number

    return found


def _of_tasks(value: Callable[[TaskMetrics], float | None]) -> Callable[..., Iterator[Sample]]:
    def found(metrics: JobMetrics, status: JobStatus) -> Iterator[Sample]:
        for one in metrics.tasks:
            if (number := value(one)) is not None:
                yield {"task": one.task, "subtask": str(one.subtask)}, number

    return found


def _by(
    label: str, value: Callable[[JobMetrics], Mapping[str, float]]
) -> Callable[..., Iterator[Sample]]:
    def found(metrics: JobMetrics, status: JobStatus) -> Iterator[Sample]:
        for name, number in value(metrics).items():
            yield {label: name}, number

    return found


def _phases(metrics: JobMetrics) -> Mapping[str, float]:
    totals = metrics.epochs
    return {
        "align": totals.align_seconds,
        "freeze": totals.freeze_seconds,
        "write": totals.write_seconds,
        "commit": totals.commit_seconds,
    }


def _last_phases(metrics: JobMetrics) -> Mapping[str, float]:
    epoch = metrics.epoch
    if epoch is None:
        return {}
    return {
        "align": epoch.align_ms / 1e3,
        "freeze": epoch.freeze_ms / 1e3,
        "write": epoch.write_ms / 1e3,
        "commit": epoch.commit_ms / 1e3,
    }


def _own_counters(metrics: JobMetrics, status: JobStatus) -> Iterator[Sample]:
    for operator, counters in metrics.counters.items():
        for name, count in counters.items():
            yield {"operator": operator, "counter": name}, count


def _bottleneck(metrics: JobMetrics, status: JobStatus) -> Iterator[Sample]:
    if (found := metrics.bottleneck) is not None:
        yield {"operator": found.operator, "subtask": str(found.subtask)}, 1


def _watermark(one: OperatorMetrics) -> float | None:
    at = one.watermark
    return None if at in (MIN_TIMESTAMP, MAX_TIMESTAMP) else at / 1e3


def _lag(one: OperatorMetrics) -> float | None:
    return None if one.watermark_lag_ms is None else one.watermark_lag_ms / 1e3


FIGURES: tuple[Figure, ...] = (
    Figure(
        "records_in",
        "counter",
        "Records that came to an operator; of a source, those it read.",
        _of_operators(lambda one: one.records_in),
    ),
    Figure(
        "records_out",
        "counter",
        "Records that left an operator; of a sink, those given to its writer.",
        _of_operators(lambda one: one.records_out),
    ),
    Figure(
        "operator_busy",
        "counter",
        "Time in an operator: an estimate, its share of the busy time of its task.",
        _of_operators(lambda one: one.busy_seconds),
        "seconds",
    ),
    Figure(
        "task_busy",
        "counter",
        "Time in which a task was at work, or awaited what its functions call.",
        _of_tasks(lambda one: one.busy_seconds),
        "seconds",
    ),
    Figure(
        "task_idle",
        "counter",
        "Time in which a task waited for input.",
        _of_tasks(lambda one: one.idle_seconds),
        "seconds",
    ),
    Figure(
        "task_blocked",
        "counter",
        "Time in which a task waited for those behind it: this is the backpressure.",
        _of_tasks(lambda one: one.blocked_seconds),
        "seconds",
    ),
    Figure(
        "bottleneck",
        "gauge",
        "1 for the operator that causes the backpressure; nothing where there is none.",
        _bottleneck,
    ),
    Figure(
        "queue_records",
        "gauge",
        "Records that wait in front of a task.",
        _of_tasks(lambda one: None if one.kind == "source" else one.queued),
    ),
    Figure(
        "queue_capacity_records",
        "gauge",
        "Records that may wait in front of a task.",
        _of_tasks(lambda one: None if one.kind == "source" else one.queue_capacity),
    ),
    Figure(
        "watermark_timestamp",
        "gauge",
        "Event time, in seconds since 1970, behind which no record is expected.",
        _of_operators(_watermark),
        "seconds",
    ),
    Figure(
        "watermark_lag",
        "gauge",
        "How far the watermark is behind the clock.",
        _of_operators(_lag),
        "seconds",
    ),
    Figure(
        "epochs",
        "counter",
        "Epochs that were committed.",
        _of_job(lambda metrics, _: metrics.epochs.committed),
    ),
    Figure(
        "epochs_failed",
        "counter",
        "Epochs that were under way when the flow failed.",
        _of_job(lambda metrics, _: metrics.epochs.failed),
    ),
    Figure(
        "epoch_duration",
        "counter",
        "Time of all committed epochs, from opening to the last commit.",
        _of_job(lambda metrics, _: metrics.epochs.seconds),
        "seconds",
    ),
    Figure(
        "epoch_phase",
        "counter",
        "Time of all committed epochs by phase, of the slowest subtask each.",
        _by("phase", _phases),
        "seconds",
    ),
    Figure(
        "last_epoch_duration",
        "gauge",
        "Time of the last committed epoch, from opening to the last commit.",
        _of_job(lambda m, _: None if m.epoch is None else m.epoch.duration_ms / 1e3),
        "seconds",
    ),
    Figure(
        "last_epoch_phase",
        "gauge",
        "Time of the last committed epoch by phase, of the slowest subtask each.",
        _by("phase", _last_phases),
        "seconds",
    ),
    Figure(
        "last_epoch_age",
        "gauge",
        "How long ago an epoch was committed.",
        _of_job(lambda m, _: None if m.epoch_age_ms is None else m.epoch_age_ms / 1e3),
        "seconds",
    ),
    Figure(
        "last_epoch",
        "gauge",
        "Number of the last committed epoch.",
        _of_job(lambda _, status: status.epoch),
    ),
    Figure(
        "checkpoint_size",
        "gauge",
        "State that the last committed epoch refers to.",
        _of_job(lambda m, _: None if m.epoch is None else m.epoch.size),
        "bytes",
    ),
    Figure(
        "restarts",
        "counter",
        "How often the flow failed and went on from its last epoch.",
        _of_job(lambda metrics, _: metrics.restarts),
    ),
    Figure(
        "up",
        "gauge",
        "1 while the flow lives, also between a failure and the next try; 0 once it has ended.",
        _of_job(lambda _, status: float(status.state not in ENDED)),
    ),
    Figure(
        "dropped_values",
        "counter",
        "Values for side outputs that nobody takes, and for iterators without room.",
        _by("output", lambda metrics: metrics.dropped),
    ),
    Figure(
        "skipped_records",
        "counter",
        "Records that failed and were passed over, as the operator's policy says.",
        _by("operator", lambda metrics: metrics.skipped),
    ),
    Figure(
        "dead_letters",
        "counter",
        "Records that failed and became dead letters, as the operator's policy says.",
        _by("operator", lambda metrics: metrics.dead_letters),
    ),
    Figure(
        "own_counts",
        "counter",
        "What a source or sink counts by itself, such as lines skipped or events missed.",
        _own_counters,
    ),
)
"""In the order in which they are told."""
