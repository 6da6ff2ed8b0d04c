"""What a source task knows of its splits, against one that looks at all of them each time."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.source import Split
from flowrt.contract.time import WatermarkStrategy
from flowrt.dataflow.sources.source_splits import FORGET_AFTER_MS, Splits
from flowrt.dataflow.sources.split_run import SplitRun

IDS = ["a", "b", "c", "d"]
IDLE_AFTER_MS = 10
STRATEGY: WatermarkStrategy[Any] = WatermarkStrategy.monotonous().with_idleness(
    f"{IDLE_AFTER_MS}ms"
)

LISTED = st.dictionaries(st.sampled_from(IDS), st.integers(0, 2))
EVENTS = st.one_of(
    st.tuples(st.just("list"), LISTED, st.sets(st.sampled_from(IDS))),
    st.tuples(st.just("restart"), LISTED, st.sets(st.sampled_from(IDS))),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 20, FORGET_AFTER_MS])),
    st.tuples(st.sampled_from(["begin", "records", "busy", "end"]), st.integers(0, 3)),
)


class Naive:
    """The answers of `Splits`, each from a look at every split."""

    def __init__(self, watermark: int = MIN_TIMESTAMP) -> None:
        self.reading: set[str] = set()
        self.watermark = watermark

    def open(self, splits: Splits) -> list[SplitRun]:
        return [splits.runs[id] for id in sorted(self.reading)]

    def waiting(self, splits: Splits) -> list[SplitRun]:
        runs = splits.runs.values()
        return [run for run in runs if not run.ended and run.split.id not in self.reading]

    def advance(self, splits: Splits) -> int | None:
        active = [run.watermark() for run in self.open(splits) if not run.idle]
        every = [run.watermark() for run in splits.runs.values()]
        smallest = min(active) if active else max(every, default=MIN_TIMESTAMP)
        grew = smallest > self.watermark
        self.watermark = max(self.watermark, smallest)
        return smallest if grew else None

    def rest_at(self, splits: Splits) -> int | None:
        awake = [run for run in self.open(splits) if not run.idle and not run.busy]
        return min((run.last_ms + IDLE_AFTER_MS for run in awake), default=None)


def agree(splits: Splits, naive: Naive) -> None:
    runs = splits.runs.values()
    assert splits.finished() == all(run.ended for run in runs)
    assert splits.all_idle() == all(run.idle for run in naive.open(splits))
    assert splits.rest_at() == naive.rest_at(splits)
    assert splits.records() == sum(run.records for run in runs)
    assert splits.advance() == naive.advance(splits)
    for run, state in zip(runs, splits.snapshot(), strict=True):
        assert (state.id, state.version) == (run.split.id, run.split.version)
        assert (state.position, state.ended) == (run.position, run.ended)
        assert (state.records, state.missing_since) == (run.records, run.missing_since)


def split_list(versions: dict[str, int]) -> list[Split]:
    return [Split(id, None, version) for id, version in versions.items()]


@given(st.lists(EVENTS, max_size=40))
def test_its_answers_are_those_of_a_look_at_every_split(history: list[tuple[Any, ...]]) -> None:
    splits, naive, now_ms, time = Splits(STRATEGY, 0, 1, ()), Naive(), 0, 0
    for what, *how in history:
        if what in ("list", "restart"):
            if what == "restart":
                naive = Naive()
                splits = Splits(STRATEGY, 0, 1, splits.snapshot())
            listed = split_list(how[0])
            back = {split.id for split, _ in splits.come_back(listed)}
            found = splits.update(listed, now_ms, back & how[1])
            assert {run.split.id for run in found if not run.ended} <= {*how[0], *splits.runs}
        elif what == "wait":
            now_ms += how[0]
            splits.rest(now_ms)
        elif what == "begin":
            if waiting := naive.waiting(splits)[how[0] :]:
                splits.begin(waiting[0], now_ms)
                naive.reading.add(waiting[0].split.id)
        elif run := next(iter(naive.open(splits)[how[0] :]), None):
            if what == "records":
                time += 1
                run.records, run.position, run.last_ms = run.records + 1, time, now_ms
                run.idle = run.busy = False
                assert run.generator is not None
                run.generator.observe([time])
            elif what == "busy":
                run.busy = True
            else:
                naive.reading.discard(run.split.id)
                splits.end(run)
        agree(splits, naive)


@given(st.lists(LISTED, min_size=1, max_size=8), st.data())
def test_each_split_is_found_once_until_it_is_forgotten_or_goes_on(
    lists: list[dict[str, int]], data: st.DataObject
) -> None:
    splits = Splits(None, 0, 1, ())
    for now_ms, versions in enumerate(lists):
        before = {id: (run, run.missing_since) for id, run in splits.runs.items()}
        grown = {
            id
            for id, (run, missing_since) in before.items()
            if missing_since is None and versions.get(id, run.split.version) != run.split.version
        }
        back = {split.id for split, _ in splits.come_back(split_list(versions))}
        go_on = data.draw(st.sets(st.sampled_from(sorted(back)))) if back else set()
        found = splits.update(split_list(versions), now_ms, go_on)

        assert [run.split.id for run in found] == [
            id for id in versions if id not in before or id in back or id in grown
        ]
        for run in found:
            known, missing_since = before.get(run.split.id, (None, None))
            assert (run is known) == (run.split.id in go_on or run.split.id in grown)
            assert known is None or missing_since is not None or run.split.id in grown
            splits.begin(run, now_ms)
            splits.end(run)
