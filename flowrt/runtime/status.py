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
    """One subtask: counters and times since the job started, through its restarts.

    `busy`, `idle` and `blocked` share out the time in which it ran. It is idle while it waits for
    input; blocked while it waits for room in a channel behind it, or gives others their turn though
    it has more to do; else busy: at work, or waiting for what its functions or its sink's writer
    await. The ratios are those of the last second or more: since the last call of `metrics()` that
    was so long ago.
    """

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
    queue_capacity: int = 0
    """Records that may wait in the input channels; 0 where there are none."""
    watermark_lag_ms: int | None = None
    """How far the watermark is behind the clock; None without event time, and at its end."""
    busy_seconds: float = 0.0
    idle_seconds: float = 0.0
    blocked_seconds: float = 0.0
    busy_ratio: float = 0.0
    idle_ratio: float = 0.0
    blocked_ratio: float = 0.0
    holds_up_ratio: float = 0.0
    """For which share of the time a sender waited for room in front of this subtask."""


@dataclass(frozen=True, slots=True)
class OperatorMetrics:
    """One operator in one subtask: counters since the job started, through its restarts.

    What a task takes in and sends is counted exactly; what passes between the operators of one task
    is exact where those on one side of it make one record of one, and else an estimate. Time is
    always one: the task's busy time, shared out by a close look at one record in about a thousand.
    No figure ever goes back.
    """

    operator: str
    task: str
    subtask: int
    records_in: int
    """For a source: what it read."""
    records_out: int
    """With what went to side outputs that somebody reads."""
    busy_seconds: float
    busy_ratio: float
    """Of the last second or more, as in `TaskMetrics`."""
    watermark: int
    """Event time (ms) behind which no record is expected; `MIN_TIMESTAMP` before any."""
    watermark_lag_ms: int | None
    """How far the watermark is behind the clock; None without event time, and at its end."""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The operator that holds up those before it: it does most in a task that waits for nobody.

    Where several in a row are slow it is the last of them, for only that one is never blocked.
    """

    operator: str
    task: str
    subtask: int
    busy_ratio: float
    """For which share of the last second or more its task was busy."""
    holds_up_ratio: float
    """For which share of that time a sender waited for it."""


@dataclass(frozen=True, slots=True)
class TaskEpochMetrics:
    """One subtask's part of an epoch; durations in ms.

    `acknowledged_ms` counts from the beginning of the epoch. The subtask waited for the barrier of
    its slowest input, froze its state (a sink: prepared), and wrote it, in this order.
    """

    task: str
    subtask: int
    acknowledged_ms: float
    align_ms: float
    freeze_ms: float
    write_ms: float


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
    opened_ms: int = 0
    """When it was opened: ms since 1970."""
    tasks: tuple[TaskEpochMetrics, ...] = ()

    @property
    def committed_ms(self) -> int:
        """When its last commit was done: ms since 1970."""
        return self.opened_ms + round(self.duration_ms)


@dataclass(frozen=True, slots=True)
class EpochTotals:
    """All epochs that were committed since the job started; durations in s, added up."""

    committed: int = 0
    failed: int = 0
    """How many were under way when the flow failed."""
    seconds: float = 0.0
    align_seconds: float = 0.0
    freeze_seconds: float = 0.0
    write_seconds: float = 0.0
    commit_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class JobMetrics:
    """Counters of a job. Records are those since the start of the flow: they survive restarts."""

    records_in: int
    """Records that the sources gave to the flow, over all lives of the job."""
    records_out: int
    """Records that reached the sinks since the job started in this process."""
    watermark: int | None
    """The smallest watermark at the sinks (ms); None before any, or without event time."""
    tasks: tuple[TaskMetrics, ...] = ()
    operators: tuple[OperatorMetrics, ...] = ()
    """In the order of the flow, subtask by subtask."""
    bottleneck: Bottleneck | None = None
    """None where nothing waits for anybody."""
    epoch: EpochMetrics | None = None
    epoch_age_ms: int | None = None
    """How long ago the last epoch was committed; None before the first of this life."""
    epochs: EpochTotals = EpochTotals()
    restarts: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Values sent to side outputs that nobody takes, by operator and tag, and those that iterators
    over an output of the job had no room for, by its name."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Records that `OnError.skip()` passed over, by operator, since the job started."""
    dead_letters: dict[str, int] = field(default_factory=dict)
    """Records that became dead letters, by operator, since the job started."""
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    """What sources and sinks count by themselves (`Source.counters`, `Sink.counters`), such as
    skipped lines: by operator and name, since the job started, through its restarts."""
