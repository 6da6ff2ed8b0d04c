"""Whole jobs whose records fail: letters are exactly-once, counted, and make no difference."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

import flowrt
from flowrt import (
    Context,
    DeadLetter,
    FileSink,
    FixedDelay,
    Flow,
    MapState,
    MemorySink,
    OnError,
    Operator,
    OutputTag,
)
from flowrt.testing.script import FAIL, PAUSE
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import Place, turns, until

pytestmark = pytest.mark.anyio

BAD = OutputTag[DeadLetter]("bad")
LETTER = OnError.dead_letter(BAD)


def checked(value: int) -> int:
    if value % 3 == 0:
        raise ValueError(f"{value} is divisible by 3")
    return value


async def asked(value: int) -> int:
    if value % 5 == 0:
        raise LookupError(f"nothing known of {value}")
    return value


class Seen(Operator[int, tuple[int, int]]):
    """Counts by the last digit; sevens fail after they wrote."""

    seen = MapState(int, int)

    def process(self, value: int, ctx: Context) -> None:
        self.seen.put(value, 1)
        ctx.timers.register_event_time(value)
        ctx.emit((value, len(self.seen)))
        if value % 7 == 0:
            raise ValueError("seven")


def flow_of(source: flowrt.Source[int], results: Any, letters: Any, parallelism: int = 1) -> Flow:
    flow = Flow("flow", parallelism=parallelism, on_error=LETTER)
    stream = flow.source(source, name="in").map(checked, name="check")
    stream = stream.map_async(asked, name="ask", capacity=4, ordered=False)
    keyed = stream.key_by(lambda value: value % 10, name="key")
    keyed.process(Seen, name="seen").sink(results, name="results")
    flow.dead_letters(BAD).sink(letters, name="letters")
    return flow


def expected(numbers: range) -> tuple[list[tuple[int, int]], dict[str, list[int]]]:
    results, seen = [], Counter[int]()
    letters: dict[str, list[int]] = {"check": [], "ask": [], "seen": []}
    for value in numbers:
        if value % 3 == 0:
            letters["check"].append(value)
        elif value % 5 == 0:
            letters["ask"].append(value)
        elif value % 7 == 0:
            letters["seen"].append(value)
        else:
            seen[value % 10] += 1
            results.append((value, seen[value % 10]))
    return results, letters


def by_operator(letters: list[Any]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {"check": [], "ask": [], "seen": []}
    for letter in letters:
        found[letter.operator].append(letter.value)
    return {operator: sorted(values) for operator, values in found.items()}


@pytest.mark.parametrize("parallelism", [1, 2])
async def test_results_and_letters_are_exactly_once_through_restarts(parallelism: int) -> None:
    place, results, letters = Place(), MemorySink[Any](), MemorySink[DeadLetter]()
    numbers = range(1, 200)
    story: list[Any] = []
    for number in numbers:
        story.append(number)
        if number in (40, 90, 150):
            story += [PAUSE, FAIL]
    source = ScriptedSource[int](story)
    flow = flow_of(source, results, letters, parallelism)

    async with place.passing_time(), place.start(flow, restart=FixedDelay("1s")) as job:
        for _ in range(3):
            await source.paused()
            await turns(200)
            source.release()
        await job.wait()

    want, lost = expected(numbers)
    assert sorted(results.rows) == sorted(want)
    assert by_operator(letters.rows) == lost
    assert job.status().restarts == 3
    places = {letter.operator: letter.where for letter in letters.rows}
    assert places["check"] is not None
    assert places["check"].startswith("source 'in', split ")
    assert places["ask"] is None


async def test_letters_in_files_are_those_of_the_epochs_that_committed() -> None:
    place = Place()
    results, letters = FileSink("/results"), FileSink("/letters")
    flow = flow_of(ScriptedSource[int]([*range(1, 40), PAUSE, *range(40, 60)]), results, letters)
    async with place.start(flow, on_failure="keep") as job:
        await until(lambda: job.metrics().records_in == 39)
        await turns(200)
        await place.epoch(job)
        await job.cancel()
    # The machine dies with what was not synced; another life goes on from the epoch.
    place.files.crash()
    source = ScriptedSource[int]([*range(1, 40), PAUSE, *range(40, 60)])
    source.release()
    await place.run(flow_of(source, FileSink("/results"), FileSink("/letters")))

    want, lost = expected(range(1, 60))
    assert sorted(map(tuple, await rows(place, "/results"))) == want
    found = [msgspec.convert(row, DeadLetter) for row in await rows(place, "/letters")]
    assert by_operator(found) == lost


async def rows(place: Place, folder: str) -> list[Any]:
    names = [name for name in await place.files.names(folder) if name.startswith("part-")]
    lines = [(await place.files.read(f"{folder}/{name}")).splitlines() for name in sorted(names)]
    return [msgspec.json.decode(line) for part in lines for line in part]


async def test_metrics_count_what_was_passed_over() -> None:
    place, letters = Place(), MemorySink[DeadLetter]()
    flow = Flow("flow")
    stream = flow.source(range(10), name="in").map(checked, name="check", on_error=LETTER)
    stream = stream.map_async(asked, name="ask", on_error=OnError.skip())
    stream.map(lambda value: 1 / (value - 1), name="skip", on_error=OnError.skip()).sink(
        MemorySink()
    )
    flow.dead_letters(BAD).sink(letters)

    job = await place.run(flow)

    assert job.metrics().skipped == {"ask": 1, "skip": 1}
    assert job.metrics().dead_letters == {"check": 4}
    assert [letter.value for letter in letters.rows] == [0, 3, 6, 9]


async def test_a_call_tells_how_often_it_was_tried() -> None:
    place, letters = Place(), MemorySink[DeadLetter]()
    flow = Flow("flow")
    policy = OnError.retry(FixedDelay("1s", attempts=2), then=LETTER)
    stream = flow.source([1, 5, 2], name="in")
    results = MemorySink[int]()
    stream.map_async(asked, name="ask", on_error=policy).sink(results)
    flow.dead_letters(BAD).sink(letters)

    await place.run(flow)

    assert results.rows == [1, 2]
    (letter,) = letters.rows
    assert (letter.value, letter.attempts, letter.error) == (5, 3, "LookupError")


async def test_a_record_that_no_snapshot_can_hold_is_a_letter_of_the_call() -> None:
    class Odd:
        pass

    place, letters, results = Place(), MemorySink[Any](), MemorySink[Any]()
    flow = Flow("flow")
    given: list[Any] = [1, Odd(), 2]
    flow.source(given, name="in").map_async(asked, name="ask", on_error=LETTER).sink(results)
    flow.dead_letters(BAD).map(lambda letter: letter.error).sink(letters)

    await place.run(flow)

    assert results.rows == [1, 2]
    assert letters.rows == ["StateError"]


async def test_of_a_broadcast_record_one_letter_comes() -> None:
    place, letters, results = Place(), MemorySink[Any](), MemorySink[Any]()
    flow = Flow("flow", parallelism=3)
    orders = flow.source([1, 2], name="orders").key_by(lambda value: value)
    rules = flow.source([3], name="rules").broadcast()

    def order(value: int, ctx: Context) -> None:
        ctx.emit(value)

    def rule(value: int, ctx: Context) -> None:
        raise ValueError(value)

    orders.connect(rules).process(order, rule, name="both", on_error=LETTER).sink(results)
    flow.dead_letters(BAD).sink(letters)

    job = await place.run(flow)

    assert [letter.value for letter in letters.rows] == [3]
    assert job.metrics().dead_letters == {"both": 1}
    assert sorted(results.rows) == [1, 2]
