"""What a job tells about itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

JobState: TypeAlias = Literal[
    "starting",
    "running",
    "draining",
    "restarting",
    "finished",
    "drained",
    "cancelled",
    "failed",
]
"""`finished`: the input ended; `drained`: stopped on request after a last epoch."""

ENDED: frozenset[JobState] = frozenset({"finished", "drained", "cancelled", "failed"})


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job stands."""

    name: str
    state: JobState
    epoch: int | None
    """The last committed epoch, of this life or the one restored; None before the first."""
    restored_epoch: int | None
    """The epoch this life (or the last restart) continued from; None when it began from nothing."""
    restarts: int
    generation: int
    notes: tuple[str, ...] = ()
    """What recovery had to say, such as a torn snapshot that was passed over."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TaskMetrics:
    """Counters of one subtask, since the last start or restart."""

    task: str
    subtask: int
    kind: Literal["source", "operators", "sink"]
    operators: tuple[str, ...]
    records_in: int
    records_out: int
    queued: int
    """Records waiting in the input channels."""
    watermark: int
    """Event time (ms) behind which no record is expected; `MIN_TIMESTAMP` before any."""


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """How the last committed epoch went. Durations in ms; the longest over the subtasks."""

    epoch: int
    duration_ms: float
    align_ms: float
    freeze_ms: float
    write_ms: float
    commit_ms: float
    size: int
    """Bytes of state that the snapshot refers to."""


@dataclass(frozen=True, slots=True)
class JobMetrics:
    """Counters of a job. Records are those since the start of the flow: they survive restarts."""

    records_in: int
    """Records that the sources gave to the flow, over all lives of the job."""
    records_out: int
    """Records that reached the sinks since the last start or restart."""
    watermark: int | None
    """The smallest watermark at the sinks (ms); None before any, or without event time."""
    tasks: tuple[TaskMetrics, ...] = ()
    epoch: EpochMetrics | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    """Values sent to side outputs that nobody takes, by operator and tag, and those that iterators
    over an output of the job had no room for, by its name."""
