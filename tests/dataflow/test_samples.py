"""Close looks: what they see, that they change nothing, and what is worked out from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowrt.contract.elements import Records
from flowrt.contract.operator import Context
from flowrt.contract.steps import Filter, FlatMap, Fold, KeyBy, Map, one, one_more
from flowrt.contract.world import World
from flowrt.dataflow.chains import samples
from flowrt.dataflow.chains.chain import Chain
from flowrt.dataflow.chains.samples import (
    FAR_BEYOND,
    FIRST_LOOK,
    LOOK_ONE_IN,
    LOOK_RECORDS,
    LineSamples,
    StepFigures,
    step_figures,
)
from flowrt.testing import manual_world
from flowrt.testing.world import ManualClock
from tests.dataflow.kit import Collected, chain_of, process, setup

MS = 1_000_000


def is_even(value: int) -> bool:
    return value % 2 == 0


def twice(value: Any) -> list[Any]:
    return [value, value]


def emit_twice(value: Any, ctx: Context) -> None:
    ctx.emit(value)
    ctx.emit(value)


def stopped_world() -> tuple[World, ManualClock]:
    world = manual_world()
    assert isinstance(world.clock, ManualClock)
    return world, world.clock


def rows(figures: list[StepFigures]) -> list[tuple[int, int]]:
    return [(figure.records_in, figure.records_out) for figure in figures]


@pytest.fixture
def only_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at every record but those of the first run."""
    monkeypatch.setattr(samples, "FIRST_LOOK", 0)
    monkeypatch.setattr(samples, "LOOK_ONE_IN", 0)
    monkeypatch.setattr(samples, "_FIRST_ONE_IN", 0)


LINES: dict[str, Callable[[], list[Any]]] = {
    "maps": lambda: [Map(str), Map(len)],
    "filter": lambda: [Map(abs), Filter(is_even), Map(str)],
    "flat map": lambda: [FlatMap(twice), Filter(is_even), FlatMap(twice)],
    "process": lambda: [Map(abs), process(emit_twice), Filter(is_even), process(emit_twice)],
    "fold": lambda: [KeyBy(is_even), setup("count", Fold(one, one_more)), Map(str)],
}


@pytest.mark.anyio
@pytest.mark.usefixtures("only_looks")
@pytest.mark.parametrize("name", LINES)
async def test_a_look_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def results() -> list[Any]:
        out = Collected()
        chain = chain_of(out, *LINES[name]())
        for start in range(0, 300, 100):
            await chain.run(Records([*range(start, start + 100)]))
        values: list[Any] = out.values
        return values

    looked = await results()
    monkeypatch.setattr(samples, "FIRST_LOOK", 10**9)

    assert looked == await results()


@pytest.mark.anyio
@pytest.mark.usefixtures("only_looks")
async def test_each_step_gets_its_own_time_and_counts() -> None:
    world, clock = stopped_world()

    def taking(ms: int, result: Any) -> Any:
        clock.advance(ms)
        return result

    out = Collected()
    chain = chain_of(
        out,
        Map(lambda value: taking(1, value)),
        Filter(lambda value: taking(2, value % 2 == 0)),
        FlatMap(lambda value: taking(4, [value, value])),
        process(lambda value, ctx: taking(8, ctx.emit(value))),
        Map(lambda value: taking(16, value)),
        world=world,
    )

    for _ in range(3):
        await chain.run(Records([1, 2, 3, 4]))

    figures = chain.figures(7, len(out.values), {})
    assert rows(figures) == [(12, 12), (12, 6), (6, 12), (12, 12), (12, 12)]
    assert [figure.spent_ns // MS for figure in figures] == [12, 24, 24, 96, 192]
    assert {figure.watermark for figure in figures} == {7}


@pytest.mark.anyio
@pytest.mark.usefixtures("only_looks")
async def test_the_wait_for_those_behind_is_no_step_of_ours() -> None:
    world, clock = stopped_world()

    class Slow(Collected):
        async def emit(self, records: Records) -> None:
            clock.advance(1_000)
            await super().emit(records)

    async def answer(value: Any) -> Any:
        clock.advance(3)
        return value

    chain = chain_of(Slow(), Map(str), Map(answer), world=world)
    for _ in range(2):
        await chain.run(Records([1, 2]))

    assert [figure.spent_ns // MS for figure in chain.figures(0, 4, {})] == [0, 12]


@pytest.mark.anyio
@pytest.mark.usefixtures("only_looks")
async def test_an_error_in_a_look_names_its_step_and_record() -> None:
    chain = chain_of(Collected(), Map(abs), Map(lambda value: 1 // value))
    await chain.run(Records([1]))

    with pytest.raises(Exception, match=r"'1'.*\b0\b"):
        await chain.run(Records([2, 0]))


@pytest.mark.anyio
async def test_looks_are_few_and_short() -> None:
    chain = chain_of(Collected(), Map(str))
    looked = 0
    for _ in range(200):
        before = looked_at(chain)
        await chain.run(Records([*range(1_024)]))
        assert looked_at(chain) - before <= LOOK_RECORDS
        looked = looked_at(chain)

    # The first few come soon, so that a short flow has figures too.
    assert 0.5 / LOOK_ONE_IN < looked / (200 * 1_024) < 3 / LOOK_ONE_IN
    assert chain.figures(0, 204_800, {})[0].records_in == 204_800


@pytest.mark.anyio
async def test_what_is_short_is_not_looked_at() -> None:
    chain = chain_of(Collected(), Map(str))
    for number in range(FIRST_LOOK):
        await chain.run(Records([number]))
    assert looked_at(chain) == 0

    await chain.run(Records([1]))
    assert looked_at(chain) == 1


def looked_at(chain: Chain) -> int:
    return sum(samples.came[0] for _, samples in chain._lines.samples())


# ------------------------------------------------------------------------------------ worked out


def seen(records: int, *came: int, spent_ns: list[float] | None = None) -> LineSamples:
    line = LineSamples(len(came) - 1, lambda: 0)
    line.records, line.came = records, [*came]
    line.spent_ns = spent_ns or [0.0] * (len(came) - 1)
    return line


def figures_of(
    one_for_one: list[bool], lines: list[tuple[int, LineSamples]], out: int, **sides: int
) -> list[StepFigures]:
    ids = [str(index) for index in range(len(one_for_one))]
    return step_figures(ids, one_for_one, lines, out, sides, [0] * len(ids))


def test_what_makes_one_of_one_is_counted_from_both_ends() -> None:
    # The look saw half go through the filter; in truth it was a third.
    line = seen(900, 10, 10, 5, 5)

    assert rows(figures_of([True, False, True], [(0, line)], 300)) == [
        (900, 900),
        (900, 300),
        (300, 300),
    ]


def test_between_two_that_do_not_it_is_an_estimate() -> None:
    line = seen(1_000, 10, 5, 5, 20)

    assert rows(figures_of([False, True, False], [(0, line)], 1_900)) == [
        (1_000, 500),
        (500, 500),
        (500, 1_900),
    ]


def test_before_the_first_look_it_is_taken_that_each_keeps_all() -> None:
    line = seen(50, 0, 0, 0)

    assert rows(figures_of([False, False], [(0, line)], 20)) == [(50, 50), (50, 20)]


def test_where_a_line_ends_the_next_one_counts() -> None:
    # 1 makes timestamps; the run goes on in a line of its own behind it.
    lines = [(0, seen(800, 8, 4)), (2, seen(390, 8, 8))]

    assert rows(figures_of([False, True, True], lines, 390)) == [(800, 390), (390, 390), (390, 390)]


def test_what_timers_send_begins_in_the_middle() -> None:
    lines = [(0, seen(100, 10, 10, 10)), (1, seen(30, 0, 0))]

    assert rows(figures_of([False, True], lines, 130)) == [(100, 130), (130, 130)]


def test_side_outputs_count_as_what_leaves_a_step() -> None:
    assert rows(figures_of([False], [(0, seen(10, 0, 0))], 4, **{"0": 6})) == [(10, 10)]


def test_time_is_scaled_up() -> None:
    line = seen(1_000, 10, 10, 10, spent_ns=[50.0, 70.0])

    assert [one.spent_ns for one in figures_of([True, True], [(0, line)], 1_000)] == [5_000, 7_000]


def test_what_looking_costs_is_taken_off() -> None:
    now = iter(range(0, 10**9, 40))
    line = LineSamples(2, lambda: next(now))

    line.note([10, 10, 10], [10 * 140, 10 * 40])

    assert line.spent_ns == [1_000.0, 0.0]


def test_one_look_far_beyond_the_usual_does_not_outweigh_all_others() -> None:
    line = LineSamples(1, lambda: 0)
    for _ in range(5):
        line.note([10, 10], [1_000])
    line.note([10, 10], [4_000_000])

    assert line.spent_ns == [5_000 + FAR_BEYOND * 1_000]


def test_a_step_that_waits_may_take_any_time() -> None:
    line = LineSamples(1, lambda: 0, waits=True)
    line.note([1, 1], [1_000])
    line.note([1, 1], [4_000_000])

    assert line.spent_ns == [4_001_000]
