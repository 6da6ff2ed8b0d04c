"""What a source task knows of its splits: positions, ends, watermarks.

Decides; waits for nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Final

from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.snapshot import SplitState
from flowrt.contract.source import UNKNOWN, Split
from flowrt.contract.time import WatermarkGenerator, WatermarkStrategy

FORGET_AFTER_MS: Final = 24 * 60 * 60 * 1_000
"""How long an ended split is remembered that is not listed any more (1 day).

A folder may be gone for a while, and come back: what is in it must not be read a second time.
"""


class SplitRun:
    """One split of this subtask."""

    __slots__ = (
        "busy",
        "ended",
        "generator",
        "idle",
        "last_ms",
        "missing_since",
        "position",
        "reading",
        "records",
        "split",
    )

    def __init__(self, split: Split, generator: WatermarkGenerator | None) -> None:
        self.split = split
        self.generator = generator
        self.position: Any = None
        self.ended = False
        self.idle = False
        self.reading = False
        # Records were read and wait for the throttle or for room: not idle, however long it takes.
        self.busy = False
        self.records = 0
        self.last_ms = 0
        self.missing_since: int | None = None

    def snapshot(self) -> SplitState:
        """Return the split as plain data."""
        generator = None if self.generator is None else self.generator.snapshot()
        return SplitState(
            self.split.id,
            self.split.data,
            self.position,
            self.ended,
            generator,
            self.records,
            self.idle,
            self.split.version,
            self.missing_since,
        )

    def restore(self, state: SplitState) -> None:
        """Take back what `snapshot` returned."""
        self.position = state.position
        self.ended = state.ended
        self.missing_since = state.missing_since
        self.records = state.records
        self.idle = state.idle
        if self.generator is not None and state.watermark is not None:
            self.generator.restore(state.watermark)


def twice_listed(listed: Sequence[Split]) -> str | None:
    """Return an id that two different splits have; None where there is none."""
    seen: dict[str, Split] = {}
    return next((s.id for s in listed if seen.setdefault(s.id, s) != s), None)


def _may_have_more(split: Split, data: Any, version: Any) -> bool:
    """Say whether a split that ended may have more than when data and version were these."""
    if split.version is None:
        return False
    return split.version == UNKNOWN or (split.data, split.version) != (data, version)


def _is_another(run: SplitRun, listed: Mapping[str, Split]) -> bool:
    """Say whether a split that ended and was away has come back as another one of that name."""
    split = listed.get(run.split.id)
    if split is None or run.missing_since is None:
        return False
    return _may_have_more(split, run.split.data, run.split.version)


class Splits:
    """The splits of one subtask, in the order in which to read them."""

    def __init__(
        self,
        strategy: WatermarkStrategy[Any] | None,
        subtask: int,
        parallelism: int,
        restored: Iterable[SplitState],
    ) -> None:
        self._strategy = strategy
        self._subtask = subtask
        self._parallelism = parallelism
        self._restored = {state.id: state for state in restored}
        self.runs: dict[str, SplitRun] = {}
        self.watermark = MIN_TIMESTAMP

    def owns(self, split: Split) -> bool:
        """Say whether this subtask reads a split; the same at every restart."""
        return zlib.crc32(split.id.encode()) % self._parallelism == self._subtask

    def knows_others_only(self, listed: Sequence[Split]) -> bool:
        """Say whether the snapshot has lasting splits, and the source lists others only."""
        lasting = {s.id for s in self._restored.values() if s.version is not None}
        return bool(lasting and listed) and lasting.isdisjoint(split.id for split in listed)

    def update(self, listed: Sequence[Split], now_ms: int) -> list[SplitRun]:
        """Take the source's list of splits; return those that are new here.

        A split that ended and is not listed any more is forgotten after a day, so that a folder
        watched for years costs no more than the files in it. When it is listed again before, it is
        a new one only if its version says so. One that is under way is kept: its reader knows what
        became of it.
        """
        by_id = {split.id: split for split in listed}
        for run in [run for run in self.runs.values() if _is_another(run, by_id)]:
            del self.runs[run.split.id]
        gone = [state for state in self._restored.values() if state.id not in by_id]
        every = [*(Split(state.id, state.data, state.version) for state in gone), *listed]
        new = {split.id: split for split in every if split.id not in self.runs and self.owns(split)}
        found = [self._add(split, listed=split.id in by_id) for split in new.values()]
        self._restored = {}
        self._forget_missing(by_id, now_ms)
        return [run for run in found if run.split.id in self.runs]

    def _add(self, split: Split, *, listed: bool) -> SplitRun:
        generator = self._strategy.generator() if self._strategy is not None else None
        run = SplitRun(split, generator)
        self.runs[split.id] = run
        state = self._restored.get(split.id)
        if state is None:
            return run
        changed = listed and state.ended and _may_have_more(split, state.data, state.version)
        if changed and state.missing_since is not None:
            return run  # it was away, and this is another one of its name
        run.restore(state)
        run.ended = state.ended and not changed
        return run

    def _forget_missing(self, listed: Container[str], now_ms: int) -> None:
        for run in [run for run in self.runs.values() if run.ended]:
            if run.split.id in listed:
                run.missing_since = None
            elif run.missing_since is None:
                run.missing_since = now_ms
            elif now_ms - run.missing_since >= FORGET_AFTER_MS:
                del self.runs[run.split.id]

    def advance(self) -> int | None:
        """Return the watermark if it grew.

        It is the minimum over the splits being read that are not idle; where there are none,
        nobody is held up any more and it is the maximum of all.
        """
        active = [run for run in self._reading() if not run.idle]
        watermarks = [run.generator.watermark() for run in active if run.generator is not None]
        if active:
            smallest = min(watermarks, default=MIN_TIMESTAMP)
        else:
            smallest = max(self._watermarks(), default=MIN_TIMESTAMP)
        if smallest <= self.watermark:
            return None
        self.watermark = smallest
        return smallest

    def _watermarks(self) -> list[int]:
        generators = (run.generator for run in self.runs.values())
        return [generator.watermark() for generator in generators if generator is not None]

    def rest(self, now_ms: int) -> None:
        """Mark the splits idle that sent nothing for the strategy's time."""
        after_ms = self._strategy.idle_after_ms if self._strategy is not None else None
        if after_ms is not None:
            for run in self._resting():
                run.idle = now_ms >= run.last_ms + after_ms

    def rest_at(self) -> int | None:
        """Return when the next split may become idle (ms of processing time); None for never."""
        after_ms = self._strategy.idle_after_ms if self._strategy is not None else None
        if after_ms is None:
            return None
        return min((run.last_ms + after_ms for run in self._resting()), default=None)

    def all_idle(self) -> bool:
        """Say whether nothing will come for now: every split that is being read is idle."""
        return all(run.idle for run in self._reading())

    def _resting(self) -> list[SplitRun]:
        return [run for run in self._reading() if not run.idle and not run.busy]

    def _reading(self) -> list[SplitRun]:
        return [run for run in self.runs.values() if run.reading and not run.ended]

    def snapshot(self) -> list[SplitState]:
        """Return all splits as plain data."""
        return [run.snapshot() for run in self.runs.values()]

    def positions(self) -> dict[str, Any]:
        """Return the position of each split."""
        return {run.split.id: run.position for run in self.runs.values()}

    def records(self) -> int:
        """Return how many records the splits known now gave, over all lives of the job."""
        return sum(run.records for run in self.runs.values())

    def finished(self) -> bool:
        """Say whether every split is read to its end."""
        return all(run.ended for run in self.runs.values())
