"""What a source task knows of its splits: positions, ends, watermarks.

Decides; waits for nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any, Final

from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.snapshot import SplitState
from flowrt.contract.source import UNKNOWN, Split
from flowrt.contract.time import WatermarkStrategy
from flowrt.dataflow.sources.split_run import SplitRun

FORGET_AFTER_MS: Final = 24 * 60 * 60 * 1_000
"""How long an ended split is remembered that is not listed any more (1 day).

A folder may be gone for a while, and come back: what is in it must not be read a second time.
"""


def twice_listed(listed: Sequence[Split]) -> str | None:
    """Return an id that two different splits have; None where there is none."""
    seen: dict[str, Split] = {}
    for split in listed:
        first = seen.setdefault(split.id, split)
        if first is not split and first != split:
            return split.id
    return None


def _may_have_more(split: Split, state: SplitState) -> bool:
    """Say whether a split that ended may have more than when this was its state."""
    if not state.ended or split.version is None:
        return False
    return split.version == UNKNOWN or (split.data, split.version) != (state.data, state.version)


class Splits:
    """The splits of one subtask, in the order in which to read them.

    Thousands may have ended, or wait: what a record or the end of a split costs grows with those
    that are being read alone.
    """

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
        self._open: dict[str, SplitRun] = {}
        self._ended: dict[str, SplitRun] = {}
        self._missing: dict[str, SplitRun] = {}
        """Those of the ended that are not listed."""
        # Of all that are not open: how many records they gave, how far their event time is at most.
        self._records_at_rest = 0
        self._watermark_at_rest = MIN_TIMESTAMP
        self.watermark = MIN_TIMESTAMP

    def owns(self, split: Split) -> bool:
        """Say whether this subtask reads a split; the same at every restart."""
        return zlib.crc32(split.id.encode()) % self._parallelism == self._subtask

    def knows_others_only(self, listed: Sequence[Split]) -> bool:
        """Say whether the snapshot has lasting splits, and the source lists others only."""
        lasting = {s.id for s in self._restored.values() if s.version is not None}
        return bool(lasting and listed) and lasting.isdisjoint(split.id for split in listed)

    def come_back(self, listed: Sequence[Split]) -> list[tuple[Split, Any]]:
        """Return the splits that ended, were away and have more now, each with its position.

        Whether one goes on there, or is another one of its name, only the source knows.
        """
        known = [*(run.snapshot() for run in self._missing.values()), *self._restored.values()]
        away = {state.id: state for state in known if state.missing_since is not None}
        return [
            (split, away[split.id].position)
            for split in (listed if away else ())
            if split.id in away and self.owns(split) and _may_have_more(split, away[split.id])
        ]

    def update(
        self, listed: Sequence[Split], now_ms: int, go_on: Container[str] = ()
    ) -> list[SplitRun]:
        """Take the source's list of splits; return those that are new here.

        A split that ended and is not listed any more is forgotten after a day, so that a folder
        watched for years costs no more than the files in it. When it is listed again before, and
        its version says that it has more, it goes on if it is among those that `go_on`, and is a
        new one otherwise. One that was listed all the time goes on, as it does after a restart. One
        that is under way is kept: its reader knows what became of it.
        """
        by_id = {split.id: split for split in listed}
        back = self._take_back(by_id, go_on) | self._take_on(by_id)
        gone = [state for state in self._restored.values() if state.id not in by_id]
        every = [*(Split(state.id, state.data, state.version) for state in gone), *listed]
        new = {split.id: split for split in every if split.id not in self.runs and self.owns(split)}
        for split in new.values():
            self._add(split, listed=split.id in by_id, goes_on=split.id in go_on)
        self._restored = {}
        self._forget_missing(by_id, now_ms)
        found = dict.fromkeys(s.id for s in every if s.id in new or s.id in back)
        return [self.runs[id] for id in found if id in self.runs]

    def _take_back(self, listed: Mapping[str, Split], go_on: Container[str]) -> set[str]:
        """Let splits go on that were away; forget those that came back as others."""
        changed = {
            id
            for id, run in self._missing.items()
            if id in listed and _may_have_more(listed[id], run.snapshot())
        }
        back = {id for id in changed if id in go_on}
        for id in back:
            del self._missing[id]
            self._ended.pop(id).go_on(listed[id])
        self._forget(changed - back)
        return back

    def _take_on(self, listed: Mapping[str, Split]) -> set[str]:
        """Let splits go on that ended, were listed all the time, and have more now."""
        grown = {
            id: listed[id]
            for id, run in self._ended.items()
            # What has not changed is the same object, as a rule, and there may be thousands.
            if id in listed
            and listed[id] is not run.split
            and id not in self._missing
            and listed[id].version != UNKNOWN
            and _may_have_more(listed[id], run.snapshot())
        }
        for id, split in grown.items():
            self._ended.pop(id).go_on(split)
        return set(grown)

    def _add(self, split: Split, *, listed: bool, goes_on: bool) -> None:
        generator = self._strategy.generator() if self._strategy is not None else None
        run = self.runs[split.id] = SplitRun(split, generator)
        state = self._restored.get(split.id)
        changed = listed and state is not None and _may_have_more(split, state)
        if state is not None and (not changed or state.missing_since is None or goes_on):
            run.restore(state)
            if changed:
                run.go_on(split)
        self._to_rest(run)

    def begin(self, run: SplitRun, now_ms: int) -> None:
        """Note that a split is being read: from now on it holds the watermark up."""
        run.last_ms = now_ms
        self._open[run.split.id] = run
        self._records_at_rest -= run.records

    def end(self, run: SplitRun) -> None:
        """Note that a split is read to its end."""
        run.ended = True
        del self._open[run.split.id]
        self._to_rest(run)

    def _to_rest(self, run: SplitRun) -> None:
        self._records_at_rest += run.records
        self._watermark_at_rest = max(self._watermark_at_rest, run.watermark())
        if run.ended:
            self._ended[run.split.id] = run
            if run.missing_since is not None:
                self._missing[run.split.id] = run

    def _forget_missing(self, listed: Mapping[str, Split], now_ms: int) -> None:
        for id in self._missing.keys() & listed.keys():
            self._missing.pop(id).miss(None)
        for id in self._ended.keys() - listed.keys() - self._missing.keys():
            run = self._missing[id] = self._ended[id]
            run.miss(now_ms)
        self._forget(
            [id for id, run in self._missing.items() if now_ms - _since(run) >= FORGET_AFTER_MS]
        )

    def _forget(self, ids: Collection[str]) -> None:
        for id in ids:
            self._records_at_rest -= self.runs[id].records
            del self.runs[id], self._ended[id], self._missing[id]
        if ids:
            at_rest = (run.watermark() for id, run in self.runs.items() if id not in self._open)
            self._watermark_at_rest = max(at_rest, default=MIN_TIMESTAMP)

    def advance(self) -> int | None:
        """Return the watermark if it grew.

        It is the minimum over the splits being read that are not idle; where there are none,
        nobody is held up any more and it is the maximum of all.
        """
        opened = self._open.values()
        smallest = min((run.watermark() for run in opened if not run.idle), default=None)
        if smallest is None:
            smallest = max([self._watermark_at_rest, *(run.watermark() for run in opened)])
        if smallest <= self.watermark:
            return None
        self.watermark = smallest
        return smallest

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
        return all(run.idle for run in self._open.values())

    def _resting(self) -> list[SplitRun]:
        return [run for run in self._open.values() if not run.idle and not run.busy]

    def snapshot(self) -> list[SplitState]:
        """Return all splits as plain data."""
        return [run.snapshot() for run in self.runs.values()]

    def positions(self) -> dict[str, Any]:
        """Return the position of each split."""
        return {id: run.position for id, run in self.runs.items()}

    def records(self) -> int:
        """Return how many records the splits known now gave, over all lives of the job."""
        return self._records_at_rest + sum(run.records for run in self._open.values())

    def finished(self) -> bool:
        """Say whether every split is read to its end."""
        return len(self._ended) == len(self.runs)


def _since(run: SplitRun) -> int:
    assert run.missing_since is not None
    return run.missing_since
