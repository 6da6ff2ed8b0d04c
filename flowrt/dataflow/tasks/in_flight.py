"""The records of a step whose calls are under way, and what must stay behind them. Only decides.

Ordered: results leave in the order of their records. Unordered: as they come, but none passes a
watermark, in either direction, so that nothing becomes late by the order of the answers (as Flink's
async operator has it).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, TypeAlias

from flowrt.contract.elements import Idle, Records, Watermark
from flowrt.dataflow.channels.run_length import RUN_LIMIT

Mark: TypeAlias = Watermark | Idle
"""What leaves once all records before it have left."""

NO_KEY: Final = object()
"""What a record has for a key that has none: None is a key like any other."""

_PENDING: Final = object()


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """A record whose call failed for good; it leaves in its place, for the step's policy."""

    call: Call
    error: BaseException


class Call:
    """A record until its result has left."""

    # Set where they are not these: one is made for each record, and most need none of them.
    key: Hashable = NO_KEY
    result: Any = _PENDING
    segment: _Segment | None = None
    entry: Any = None
    """Its form in snapshots, once one was taken."""

    def __init__(self, value: Any, timestamp: int | None) -> None:
        self.value = value
        self.timestamp = timestamp


class InFlight:
    """Records in the order in which they came: waiting for their call, called, or answered.

    At most `limit` are called or answered and still there: where one call hangs, the answers that
    must stay behind it do not pile up.
    """

    def __init__(self, *, ordered: bool, limit: int) -> None:
        self._line: _Ordered | _Unordered = _Ordered() if ordered else _Unordered()
        self._waiting: deque[Call] = deque()
        self._limit = limit
        self._failed = 0
        self.size = 0
        self.finish: Callable[[Call, Any], bool] = self._line.finish
        """Takes the result of a call; says whether anything may leave now."""

    @property
    def waiting(self) -> int:
        """How many records wait for their call to begin."""
        return len(self._waiting)

    @property
    def may_begin(self) -> int:
        """How many calls may begin now."""
        waiting = len(self._waiting)
        return min(waiting, self._limit - self.size + waiting)

    @property
    def ready(self) -> bool:
        """Whether there is anything that may leave."""
        return self._line.ready

    def add(self, records: Records) -> list[Call]:
        """Take a run of records; return them as they are kept here."""
        calls = list(map(Call, records.values, records.timestamps or repeat(None)))
        if records.keys is not None:
            for call, key in zip(calls, records.keys, strict=True):
                call.key = key
        self._line.add(calls)
        self._waiting += calls
        self.size += len(calls)
        return calls

    def mark(self, mark: Mark) -> None:
        """Take what must leave behind all that is there, and before all that follows.

        With no record between, a watermark takes the place of the marks before it: while a call
        hangs, they must not pile up.
        """
        self._line.mark(mark)

    def next(self) -> Call | None:
        """Return the record whose call is to begin now; None where none may."""
        waiting = self._waiting
        if not waiting or self.size - len(waiting) >= self._limit:
            return None
        return waiting.popleft()

    def fail(self, call: Call, error: BaseException) -> bool:
        """Take the error of a call; say whether anything may leave now."""
        self._failed += 1
        return self.finish(call, Failed(call, error))

    def take(self) -> list[Records | Failed | Mark]:
        """Return what may leave, in order, in runs of at most `RUN_LIMIT`."""
        leaving: list[Records | Failed | Mark] = []
        for one in self._line.leave():
            if not isinstance(one, list):
                leaving.append(one)
                continue
            self.size -= len(one)
            for part in [one] if not self._failed else self._apart(one):
                if isinstance(part, Failed):
                    leaving.append(part)
                    continue
                starts = range(0, len(part), RUN_LIMIT)
                leaving += [_records(part[start : start + RUN_LIMIT]) for start in starts]
        return leaving

    def _apart(self, calls: list[Call]) -> Iterator[list[Call] | Failed]:
        """Tell those that failed from the runs of others between them."""
        run: list[Call] = []
        for call in calls:
            if type(call.result) is not Failed:
                run.append(call)
                continue
            self._failed -= 1
            yield run
            yield call.result
            run = []
        yield run

    def entries(self) -> Iterator[Call | Mark]:
        """Iterate over all that has not left, in order: what a snapshot has to hold."""
        return self._line.entries()


def _records(calls: list[Call]) -> Records:
    times = [call.timestamp for call in calls]
    known = times.count(None) < len(times)
    return Records([call.result for call in calls], times if known else None)


class _Ordered:
    """One line; only its head may leave."""

    def __init__(self) -> None:
        self._line: deque[Call | Mark] = deque()

    @property
    def ready(self) -> bool:
        line = self._line
        return bool(line) and (type(line[0]) is not Call or line[0].result is not _PENDING)

    def add(self, calls: list[Call]) -> None:
        self._line += calls

    def mark(self, mark: Mark) -> None:
        line = self._line
        if type(mark) is Watermark:
            while line and type(line[-1]) is not Call:
                line.pop()
        if not line or line[-1] != mark:
            line.append(mark)

    def finish(self, call: Call, result: Any) -> bool:
        call.result = result
        head = self._line[0]
        return type(head) is not Call or head.result is not _PENDING

    def leave(self) -> Iterator[list[Call] | Mark]:
        line = self._line
        run: list[Call] = []
        while line:
            head = line[0]
            if isinstance(head, Call):
                if head.result is _PENDING:
                    break
                run.append(head)
                line.popleft()
                continue
            line.popleft()
            if run:
                yield run
                run = []
            yield head
        if run:
            yield run

    def entries(self) -> Iterator[Call | Mark]:
        return iter(self._line)


class _Segment:
    """The records between two marks, and the mark behind them."""

    __slots__ = ("answered", "mark", "open")

    def __init__(self) -> None:
        self.open: dict[Call, None] = {}
        self.answered: list[Call] = []
        self.mark: Mark | None = None

    @property
    def empty(self) -> bool:
        return not self.open and not self.answered


class _Unordered:
    """Segments; all answers of the first may leave."""

    def __init__(self) -> None:
        self._segments: deque[_Segment] = deque([_Segment()])

    @property
    def ready(self) -> bool:
        first = self._segments[0]
        return bool(first.answered) or (first.mark is not None and not first.open)

    def add(self, calls: list[Call]) -> None:
        last = self._segments[-1]
        last.open.update(dict.fromkeys(calls))
        for call in calls:
            call.segment = last

    def mark(self, mark: Mark) -> None:
        segments = self._segments
        if type(mark) is Watermark:
            while len(segments) > 1 and segments[-1].empty:
                segments.pop()
        elif len(segments) > 1 and segments[-1].empty and segments[-2].mark == mark:
            return
        segments[-1].mark = mark
        segments.append(_Segment())

    def finish(self, call: Call, result: Any) -> bool:
        call.result = result
        segment = call.segment
        assert segment is not None
        del segment.open[call]
        segment.answered.append(call)
        return segment is self._segments[0]

    def leave(self) -> Iterator[list[Call] | Mark]:
        while self.ready:
            first = self._segments[0]
            answered, first.answered = first.answered, []
            if answered:
                yield answered
            if first.mark is not None and not first.open:
                self._segments.popleft()
                yield first.mark

    def entries(self) -> Iterator[Call | Mark]:
        for segment in self._segments:
            yield from segment.answered
            yield from segment.open
            if segment.mark is not None:
                yield segment.mark
