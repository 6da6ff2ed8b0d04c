"""Which splits are read, from where, and what they make of the watermark. No waiting here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.snapshot import SplitState
from flowrt.contract.source import UNKNOWN, Split
from flowrt.contract.time import WatermarkStrategy
from flowrt.dataflow.sources.source_splits import FORGET_AFTER_MS, Splits, twice_listed
from flowrt.dataflow.sources.split_run import SplitRun

MONOTONOUS = WatermarkStrategy.monotonous()
NOW = 1_000


def splits(
    strategy: WatermarkStrategy[Any] | None = None, restored: Iterable[SplitState] = ()
) -> Splits:
    return Splits(strategy, 0, 1, restored)


def listed(*ids: str) -> list[Split]:
    return [Split(id) for id in ids]


def ids(runs: Iterable[SplitRun]) -> list[str]:
    return [run.split.id for run in runs]


def reading(
    *ids: str, strategy: WatermarkStrategy[Any] = MONOTONOUS
) -> tuple[Splits, list[SplitRun]]:
    known = splits(strategy)
    runs = known.update(listed(*ids), NOW)
    for run in runs:
        known.begin(run, 0)
    return known, runs


def end(known: Splits, run: SplitRun, *, at: int, records: int = 0) -> None:
    known.begin(run, NOW)
    run.position, run.records = at, records
    known.end(run)


def observe(run: SplitRun, timestamp: int) -> None:
    assert run.generator is not None
    run.generator.observe([timestamp])


def test_new_splits_come_in_the_order_of_the_list_and_only_once() -> None:
    known = splits()
    assert ids(known.update(listed("c", "a", "c"), NOW)) == ["c", "a"]
    assert ids(known.update(listed("c", "a", "b"), NOW)) == ["b"]


def test_every_split_belongs_to_one_subtask_at_any_parallelism() -> None:
    for parallelism in (1, 2, 7):
        subtasks = [Splits(None, n, parallelism, ()) for n in range(parallelism)]
        for split in listed(*map(str, range(50))):
            assert sum(subtask.owns(split) for subtask in subtasks) == 1


def test_a_snapshot_brings_everything_back() -> None:
    known, (a, b) = reading("a", "b")
    a.position, a.records = 3, 30
    known.end(a)
    b.position, b.records, b.idle = {"x": 1}, 5, True
    observe(b, 77)
    again = splits(MONOTONOUS, known.snapshot())
    again.update(listed("a", "b"), NOW)

    assert again.snapshot() == known.snapshot()
    assert again.positions() == {"a": 3, "b": {"x": 1}}
    assert again.records() == 35


def test_a_restored_split_that_is_gone_is_read_on_unless_it_ended() -> None:
    restored = [SplitState("gone", "data", 4), SplitState("done", None, 9, ended=True)]
    known = splits(restored=restored)
    (gone, done, new) = known.update(listed("new"), NOW)

    assert (gone.split, gone.position) == (Split("gone", "data"), 4)
    assert (gone.ended, done.ended) == (False, True)
    assert new.split.id == "new"
    assert [*known.runs] == ["gone", "done", "new"]


def test_an_ended_split_is_remembered_for_a_day_after_it_was_listed() -> None:
    known, (a, b) = reading("a", "b")
    known.end(a)
    assert known.update(listed("a"), NOW) == []
    assert known.update([], NOW) == []
    assert known.update(listed("a"), NOW + 1) == []
    assert known.update([], NOW + 2) == []
    assert known.update([], NOW + 1 + FORGET_AFTER_MS) == []
    assert [*known.runs] == ["a", "b"]
    assert known.update([], NOW + 2 + FORGET_AFTER_MS) == []
    assert [*known.runs] == ["b"]
    assert not b.ended
    # It comes back as a new one.
    assert ids(known.update(listed("a"), NOW)) == ["a"]


def test_the_day_goes_on_over_restarts() -> None:
    known, (a,) = reading("a")
    known.end(a)
    known.update([], NOW)

    again = splits(restored=known.snapshot())
    again.update([], NOW + FORGET_AFTER_MS - 1)
    assert [*again.runs] == ["a"]
    again = splits(restored=again.snapshot())
    assert again.update([], NOW + FORGET_AFTER_MS) == []
    assert again.runs == {}


@pytest.mark.parametrize(
    ("before", "now", "goes_on"),
    [
        (Split("a"), Split("a"), False),
        (Split("a", "data", 5), Split("a", "data", 5), False),
        (Split("a", "data", 5), Split("a", "data", 6), True),
        (Split("a", "data", 5), Split("a", "other", 5), True),
        (Split("a", "data"), Split("a", "other"), False),
        (Split("a", "data", 5), Split("a", "other", None), False),
        (Split("a", None, UNKNOWN), Split("a", None, UNKNOWN), True),
    ],
)
def test_after_a_restart_an_ended_split_goes_on_where_its_version_says_so(
    before: Split, now: Split, goes_on: bool
) -> None:
    known = splits()
    (run,) = known.update([before], NOW)
    end(known, run, at=7, records=3)

    again = splits(restored=known.snapshot())
    (run,) = again.update([now], NOW)
    assert (run.ended, run.position, run.records) == (not goes_on, 7, 3)
    assert run.split == now

    # So it does without a restart, where it is known that there is more.
    found = known.update([now], NOW)
    assert [(run.ended, run.position, run.records) for run in found] == [(False, 7, 3)] * (
        goes_on and now.version != UNKNOWN
    )
    assert known.update([now], NOW) == []


def test_a_split_that_was_away_is_another_one_if_its_version_is() -> None:
    known = splits()
    runs = known.update([Split("a", None, 5), Split("b", None, 5)], NOW)
    for run in runs:
        end(known, run, at=5)
    known.update([], NOW)
    back = [Split("a", None, 5), Split("b", None, 3)]
    again = splits(restored=known.snapshot())

    (b,) = known.update(back, NOW)
    assert (b.split, b.position, b.ended) == (Split("b", None, 3), None, False)
    assert known.runs["a"].position == 5
    (a, b) = again.update(back, NOW)
    assert (a.position, a.ended, b.position, b.ended) == (5, True, None, False)


def test_one_that_was_away_goes_on_where_the_source_says_that_it_is_the_same() -> None:
    known = splits(MONOTONOUS)
    (a, b) = known.update([Split("a", None, 5), Split("b", None, 5)], NOW)
    end(known, a, at=5, records=2)
    end(known, b, at=7)
    known.update([], NOW)
    back = [Split("c"), Split("b", None, 5), Split("a", None, 9)]
    again = splits(restored=known.snapshot())
    for splits_ in (known, again):
        assert splits_.come_back([]) == []
        assert splits_.come_back(back) == [(Split("a", None, 9), 5)]
        splits_.update(back, NOW + 1, go_on={"a"})

        run = splits_.runs["a"]
        assert (run.split, run.position, run.records) == (Split("a", None, 9), 5, 2)
        assert (run.ended, run.missing_since) == (False, None)
        assert splits_.runs["b"].ended
        assert splits_.come_back(back) == []
        assert splits_.records() == 2
    assert not known.finished()


def test_those_that_go_on_are_read_in_the_order_of_the_list() -> None:
    known = splits()
    (b,) = known.update([Split("b", None, 5)], NOW)
    end(known, b, at=5)
    known.update([], NOW)

    found = known.update([Split("a"), Split("b", None, 6), Split("c")], NOW, go_on={"b"})

    assert ids(found) == ["a", "b", "c"]


def test_one_that_is_forgotten_does_not_come_back() -> None:
    known = splits()
    (a,) = known.update([Split("a", None, 5)], NOW)
    end(known, a, at=5)
    known.update([], NOW)
    known.update([], NOW + FORGET_AFTER_MS)

    assert known.come_back([Split("a", None, 6)]) == []


def test_an_ended_split_is_one_object_in_every_snapshot_until_it_changes() -> None:
    known, (a, _) = reading("a", "b")
    known.end(a)
    before, after = known.snapshot(), known.snapshot()
    assert before[0] is after[0]
    assert before[1] is not after[1]

    known.update(listed("b"), NOW)
    assert known.snapshot()[0].missing_since == NOW
    known.update(listed("a", "b"), NOW)
    assert known.snapshot()[0] == before[0]


def test_it_is_noticed_when_a_source_lists_only_what_the_snapshot_does_not_know() -> None:
    known = splits(restored=[SplitState("a", None, 1, version=1), SplitState("b", None, 1)])
    assert known.knows_others_only([Split("c")])
    assert known.knows_others_only([Split("b")])
    assert not known.knows_others_only([Split("a"), Split("c")])
    assert not known.knows_others_only([])
    known.update([Split("c")], NOW)
    assert not known.knows_others_only([Split("c")])


def test_two_splits_with_one_id_are_noticed() -> None:
    assert twice_listed([Split("a", 1), Split("b"), Split("a", 1)]) is None
    assert twice_listed([Split("a", 1), Split("b"), Split("a", 2)]) == "a"


def test_finished_is_when_all_are_read_to_their_end() -> None:
    known, (a, b) = reading("a", "b")
    known.end(a)
    assert not known.finished()
    known.end(b)
    assert known.finished()
    assert splits().finished()


def test_the_watermark_is_the_minimum_and_is_told_only_when_it_grew() -> None:
    known, (a, b) = reading("a", "b")
    assert known.advance() is None
    observe(a, 10)
    assert known.advance() is None
    observe(b, 5)
    assert known.advance() == 4
    assert known.advance() is None
    observe(b, 20)
    assert known.advance() == 9
    known.end(a)
    assert known.advance() == 19


def test_a_split_that_is_not_read_yet_holds_nobody_up() -> None:
    known = splits(MONOTONOUS)
    (a, _) = known.update(listed("a", "b"), NOW)
    known.begin(a, NOW)
    observe(a, 10)
    assert known.advance() == 9


def test_without_a_strategy_there_is_no_watermark_and_no_idleness() -> None:
    known = splits()
    (run,) = known.update(listed("a"), NOW)
    known.begin(run, NOW)
    known.rest(10**9)
    assert known.advance() is None
    assert known.watermark == MIN_TIMESTAMP
    assert known.rest_at() is None
    assert not known.all_idle()


def test_idle_splits_are_left_out_and_the_watermark_never_goes_back() -> None:
    strategy = MONOTONOUS.with_idleness("10ms")
    known, (a, b) = reading("a", "b", strategy=strategy)
    observe(a, 50)
    a.last_ms = 5
    assert known.rest_at() == 10

    known.rest(10)
    assert (a.idle, b.idle, known.all_idle()) == (False, True, False)
    assert known.advance() == 49
    assert known.rest_at() == 15

    b.idle = False
    observe(b, 3)
    assert known.advance() is None


def test_when_all_are_idle_none_is_held_up_by_another() -> None:
    known, (a, b) = reading("a", "b", strategy=MONOTONOUS.with_idleness("10ms"))
    observe(a, 50)
    observe(b, 30)
    assert known.advance() == 29
    known.rest(100)
    assert known.all_idle()
    assert known.advance() == 49
    assert known.rest_at() is None


def test_a_split_with_records_at_hand_is_not_idle_however_long_they_wait() -> None:
    known, (a,) = reading("a", strategy=MONOTONOUS.with_idleness("10ms"))
    a.busy = True
    known.rest(1_000)
    assert not a.idle
    assert known.rest_at() is None


def test_where_nothing_is_read_all_is_idle() -> None:
    known, (a,) = reading("a")
    assert not known.all_idle()
    known.end(a)
    assert known.all_idle()
