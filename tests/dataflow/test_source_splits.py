"""Which splits are read, from where, and what they make of the watermark. No waiting here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.snapshot import SplitState
from flowrt.contract.source import Split
from flowrt.contract.time import WatermarkStrategy
from flowrt.dataflow.source_splits import SplitRun, Splits

MONOTONOUS = WatermarkStrategy.monotonous()


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
    runs = known.update(listed(*ids))
    for run in runs:
        run.reading = True
    return known, runs


def observe(run: SplitRun, timestamp: int) -> None:
    assert run.generator is not None
    run.generator.observe([timestamp])


def test_new_splits_come_in_the_order_of_the_list_and_only_once() -> None:
    known = splits()
    assert ids(known.update(listed("c", "a", "c"))) == ["c", "a"]
    assert ids(known.update(listed("c", "a", "b"))) == ["b"]


def test_every_split_belongs_to_one_subtask_at_any_parallelism() -> None:
    for parallelism in (1, 2, 7):
        subtasks = [Splits(None, n, parallelism, ()) for n in range(parallelism)]
        for split in listed(*map(str, range(50))):
            assert sum(subtask.owns(split) for subtask in subtasks) == 1


def test_a_snapshot_brings_everything_back() -> None:
    known, (a, b) = reading("a", "b")
    a.position, a.records, a.ended = 3, 30, True
    b.position, b.records, b.idle = {"x": 1}, 5, True
    observe(b, 77)
    again = splits(MONOTONOUS, known.snapshot())
    again.update(listed("a", "b"))

    assert again.snapshot() == known.snapshot()
    assert again.positions() == {"a": 3, "b": {"x": 1}}
    assert again.records() == 35


def test_a_restored_split_that_is_gone_is_read_on_unless_it_ended() -> None:
    restored = [SplitState("gone", "data", 4), SplitState("done", None, 9, ended=True)]
    known = splits(restored=restored)
    (gone, new) = known.update(listed("new"))

    assert (gone.split, gone.position) == (Split("gone", "data"), 4)
    assert new.split.id == "new"
    assert [*known.runs] == ["gone", "new"]


def test_an_ended_split_is_remembered_while_it_is_listed() -> None:
    known, (a, b) = reading("a", "b")
    a.ended = True
    assert known.update(listed("a")) == []
    assert known.update(listed()) == []
    assert [*known.runs] == ["b"]
    assert not b.ended
    # It comes back as a new one.
    assert ids(known.update(listed("a"))) == ["a"]


def test_finished_is_when_all_are_read_to_their_end() -> None:
    known, (a, b) = reading("a", "b")
    a.ended = True
    assert not known.finished()
    b.ended = True
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
    a.ended = True
    assert known.advance() == 19


def test_a_split_that_is_not_read_yet_holds_nobody_up() -> None:
    known, (a, b) = reading("a", "b")
    b.reading = False
    observe(a, 10)
    assert known.advance() == 9


def test_without_a_strategy_there_is_no_watermark_and_no_idleness() -> None:
    known = splits()
    (run,) = known.update(listed("a"))
    run.reading = True
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
    a.ended = True
    assert known.all_idle()
