"""What a job's tasks did: their counters, added up over all attempts, and rates of the last second.

Only reads what tasks count; nothing is paid for it until somebody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, Literal

from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP
from flowrt.contract.world import Clock
from flowrt.dataflow.chains.samples import StepFigures
from flowrt.dataflow.sources.source_task import SourceTask
from flowrt.dataflow.tasks.async_task import AsyncTask
from flowrt.dataflow.tasks.sink_task import SinkTask
from flowrt.dataflow.tasks.task_times import TaskTimes
from flowrt.runtime.bottleneck import Pressure, Subtask, bottleneck
from flowrt.runtime.status import Bottleneck, OperatorMetrics, TaskMetrics
from flowrt.runtime.wiring import AnyTask

WINDOW_NS: Final = 1_000_000_000
"""Ratios are those of so much time, at least."""

_MARK_NS: Final = WINDOW_NS // 4
"""How far apart the moments are that are remembered for them."""


@dataclass(slots=True)
class OperatorTotals:
    """What one operator of a subtask did."""

    records_in: int = 0
    records_out: int = 0
    busy_ns: float = 0.0
    watermark: int = MIN_TIMESTAMP


@dataclass(slots=True)
class TaskTotals:
    """What one subtask did."""

    records_in: int = 0
    records_out: int = 0
    elapsed_ns: int = 0
    idle_ns: int = 0
    blocked_ns: int = 0
    holds_up_ns: int = 0
    operators: dict[str, OperatorTotals] = field(default_factory=dict)

    @property
    def busy_ns(self) -> int:
        """What is left of the time."""
        return max(0, self.elapsed_ns - self.idle_ns - self.blocked_ns)

    def add(self, other: TaskTotals) -> None:
        """Add what an earlier attempt did."""
        self.records_in += other.records_in
        self.records_out += other.records_out
        self.elapsed_ns += other.elapsed_ns
        self.idle_ns += other.idle_ns
        self.blocked_ns += other.blocked_ns
        self.holds_up_ns += other.holds_up_ns
        for id, before in other.operators.items():
            mine = self.operators.setdefault(id, OperatorTotals())
            mine.records_in += before.records_in
            mine.records_out += before.records_out
            mine.busy_ns += before.busy_ns


class Observations:
    """Looks at the tasks of a job, attempt after attempt."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: Sequence[AnyTask] = ()
        self._earlier: dict[Subtask, TaskTotals] = {}
        self._marks: deque[tuple[int, Mapping[Subtask, TaskTotals]]] = deque()
        # Exporters ask from threads of their own.
        self._lock = Lock()
        self._told: dict[tuple[str, int], OperatorTotals] = {}

    def begin(self, tasks: Sequence[AnyTask]) -> None:
        """Look at the tasks of a new attempt; the list may still grow."""
        with self._lock:
            # What those of the attempt before counted is kept.
            self._earlier = self._totals()
            self._marks.clear()
            self._tasks = tasks

    def look(self) -> tuple[tuple[TaskMetrics, ...], tuple[OperatorMetrics, ...]]:
        """Return how all tasks and operators stand; from any thread."""
        with self._lock:
            return self._look()

    def _look(self) -> tuple[tuple[TaskMetrics, ...], tuple[OperatorMetrics, ...]]:
        totals = self._totals()
        before = self._before(totals)
        now_ms = self._clock.now_ms()
        tasks: list[TaskMetrics] = []
        operators: list[OperatorMetrics] = []
        for task in list(self._tasks):
            key = task.desk.task, task.desk.subtask
            if key not in totals:  # built this moment
                continue
            rates = _Rates(totals[key], before.get(key, TaskTotals()))
            tasks.append(_task_metrics(task, totals[key], rates, now_ms))
            operators += _operator_metrics(key, totals[key], rates, now_ms)
        return tuple(tasks), tuple(operators)

    def bottleneck(
        self, tasks: Sequence[TaskMetrics], operators: Sequence[OperatorMetrics]
    ) -> Bottleneck | None:
        """Return the operator that holds up those before it."""
        readers = self._readers()
        metrics = {(task.task, task.subtask): task for task in tasks}
        found = bottleneck(
            {
                key: Pressure(
                    task.busy_ratio, task.blocked_ratio, task.holds_up_ratio, readers.get(key, ())
                )
                for key, task in metrics.items()
            }
        )
        if found is None:
            return None
        mine = [one for one in operators if (one.task, one.subtask) == found]
        slowest = max(mine, key=lambda one: one.busy_ratio)
        task = metrics[found]
        return Bottleneck(slowest.operator, *found, task.busy_ratio, task.holds_up_ratio)

    def _totals(self) -> dict[Subtask, TaskTotals]:
        totals = {}
        for task in list(self._tasks):
            key = task.desk.task, task.desk.subtask
            totals[key] = _totals_of(task)
            if key in self._earlier:
                totals[key].add(self._earlier[key])
            self._never_back(key, totals[key])
        return totals

    def _never_back(self, key: Subtask, totals: TaskTotals) -> None:
        """Replace estimates by what was told before, where that was more."""
        for id, now in totals.operators.items():
            told = self._told.setdefault((id, key[1]), OperatorTotals())
            told.records_in = now.records_in = max(told.records_in, now.records_in)
            told.records_out = now.records_out = max(told.records_out, now.records_out)
            told.busy_ns = now.busy_ns = max(told.busy_ns, now.busy_ns)

    def _before(self, totals: Mapping[Subtask, TaskTotals]) -> Mapping[Subtask, TaskTotals]:
        """Return how it was a second ago or more; what was at the start where nobody asked then."""
        now, marks = self._clock.monotonic_ns(), self._marks
        while len(marks) > 1 and now - marks[1][0] >= WINDOW_NS:
            marks.popleft()
        before: Mapping[Subtask, TaskTotals] = self._earlier
        if marks and now - marks[0][0] >= WINDOW_NS:
            before = marks[0][1]
        if not marks or now - marks[-1][0] >= _MARK_NS:
            marks.append((now, totals))
        return before

    def _readers(self) -> dict[Subtask, list[Subtask]]:
        tasks = list(self._tasks)
        owner = {
            id(channel): (task.desk.task, task.desk.subtask)
            for task in tasks
            if not isinstance(task, SourceTask)
            for channel in task.inputs.channels
        }
        return {
            (task.desk.task, task.desk.subtask): [
                owner[id(channel)] for channel in task.outputs.channels if id(channel) in owner
            ]
            for task in tasks
            if not isinstance(task, SinkTask)
        }


class _Rates:
    """What of a time was spent how."""

    def __init__(self, now: TaskTotals, before: TaskTotals) -> None:
        self._now, self._before = now, before
        self._elapsed_ns = now.elapsed_ns - before.elapsed_ns

    def of(self, name: Literal["busy_ns", "idle_ns", "blocked_ns", "holds_up_ns"]) -> float:
        return self._share(getattr(self._now, name) - getattr(self._before, name))

    def of_operator(self, id: str) -> float:
        before = self._before.operators.get(id, OperatorTotals())
        return self._share(self._now.operators[id].busy_ns - before.busy_ns)

    def _share(self, spent_ns: float) -> float:
        if self._elapsed_ns <= 0:
            return 0.0
        return min(1.0, max(0.0, spent_ns / self._elapsed_ns))


def _times(task: AnyTask) -> TaskTimes:
    return task.times if isinstance(task, SourceTask) else task.loop.times


def _totals_of(task: AnyTask) -> TaskTotals:
    statistics, times = task.statistics(), _times(task)
    totals = TaskTotals(
        statistics["records_in"], statistics["records_out"], times.elapsed_ns(), times.idle_ns()
    )
    totals.blocked_ns = times.paused_ns()
    if not isinstance(task, SinkTask):
        totals.blocked_ns += task.outputs.blocked_ns()
    if not isinstance(task, SourceTask):
        totals.holds_up_ns = sum(channel.blocked_ns() for channel in task.inputs.channels)
    totals.operators = dict(_operators_of(task, totals, statistics["watermark"]))
    return totals


def _operators_of(
    task: AnyTask, totals: TaskTotals, watermark: int
) -> Iterator[tuple[str, OperatorTotals]]:
    """Share a task's busy time out among its operators."""
    busy, head = totals.busy_ns, task.desk.task
    if isinstance(task, SinkTask):
        yield head, OperatorTotals(totals.records_in, totals.records_in, busy, watermark)
        return
    outputs = task.outputs
    steps = task.chain.figures(watermark, outputs.main_records, dict(outputs.side_records))
    spent = sum(step.spent_ns for step in steps)
    leads = isinstance(task, SourceTask | AsyncTask)
    # The chain did all there was to do, but for what a source or calls stand for.
    in_chain: float = busy
    if isinstance(task, SourceTask):
        in_chain = min(busy, max(0, task.sent_ns() - outputs.blocked_ns()))
    elif leads:
        in_chain = min(busy, spent)
    scale = in_chain / spent if spent else 0.0
    if leads:
        head_out = steps[0].records_in if steps else outputs.main_records
        head_in = totals.records_in
        if isinstance(task, SourceTask):
            # It counts a run as read once it is sent.
            head_in = head_out = max(head_in, head_out)
        head_out += outputs.side_records.get(head, 0)
        rest = busy - in_chain if steps else busy
        yield head, OperatorTotals(head_in, head_out, rest, watermark)
    for step in steps:
        # Before the first look nobody knows: all alike.
        share = step.spent_ns * scale if spent else in_chain / len(steps)
        yield step.id, _step_totals(step, share)


def _step_totals(step: StepFigures, busy_ns: float) -> OperatorTotals:
    return OperatorTotals(step.records_in, step.records_out, busy_ns, step.watermark)


def _task_metrics(task: AnyTask, totals: TaskTotals, rates: _Rates, now_ms: int) -> TaskMetrics:
    kind: Literal["source", "operators", "sink"]
    kind = "sink" if isinstance(task, SinkTask) else "operators"
    if isinstance(task, SourceTask):
        kind = "source"
    channels = () if isinstance(task, SourceTask) else task.inputs.channels
    statistics = task.statistics()
    watermark = statistics["watermark"]
    return TaskMetrics(
        task.desk.task,
        task.desk.subtask,
        kind,
        () if isinstance(task, SinkTask) else task.operators,
        totals.records_in,
        totals.records_out,
        statistics["queued"],
        watermark,
        sum(channel.capacity for channel in channels),
        _lag_ms(watermark, now_ms),
        totals.busy_ns / 1e9,
        totals.idle_ns / 1e9,
        totals.blocked_ns / 1e9,
        rates.of("busy_ns"),
        rates.of("idle_ns"),
        rates.of("blocked_ns"),
        rates.of("holds_up_ns"),
    )


def _operator_metrics(
    key: Subtask, totals: TaskTotals, rates: _Rates, now_ms: int
) -> Iterator[OperatorMetrics]:
    for id, operator in totals.operators.items():
        yield OperatorMetrics(
            id,
            *key,
            operator.records_in,
            operator.records_out,
            operator.busy_ns / 1e9,
            rates.of_operator(id),
            operator.watermark,
            _lag_ms(operator.watermark, now_ms),
        )


def _lag_ms(watermark: int, now_ms: int) -> int | None:
    return None if watermark in (MIN_TIMESTAMP, MAX_TIMESTAMP) else max(0, now_ms - watermark)
