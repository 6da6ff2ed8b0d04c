"""A job whose state has another type than in the life before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import flowrt
from flowrt import Flow, MemorySink, Operator, StateError, ValueState
from flowrt.testing.script import PAUSE
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import Place, turns, until

pytestmark = pytest.mark.anyio


@dataclass
class Cents:
    cents: int


@dataclass
class Money:
    amount: float
    currency: str


def flow_of(state: ValueState[Any], source: flowrt.Source[Any], seen: list[Any]) -> Flow:
    class Last(Operator[tuple[str, Any], Any]):
        last = state

        def process(self, value: tuple[str, Any], ctx: flowrt.Context) -> None:
            seen.append((value[0], self.last.get()))
            self.last.set(value[1])

    flow = Flow("money")
    keyed = flow.source(source, name="in").key_by(lambda pair: pair[0])
    keyed.process(Last, name="last", parallelism=2).sink(MemorySink(), name="out", parallelism=1)
    return flow


def to_money(plain: dict[str, Any]) -> Money:
    return Money(plain["cents"] / 100, "EUR")


async def first_life(place: Place) -> None:
    source = ScriptedSource[Any]([("a", Cents(150)), ("b", Cents(99)), PAUSE])
    async with place.start(flow_of(ValueState(Cents, name="money"), source, [])) as job:
        await source.paused()
        await place.epoch(job)


async def test_a_change_is_refused_before_any_record_moves() -> None:
    place, seen = Place(), list[Any]()
    await first_life(place)

    with pytest.raises(StateError) as raised:
        source = ScriptedSource[Any]([*[("", None)] * 2, PAUSE, ("a", Money(2.0, "EUR"))])
        async with place.start(flow_of(ValueState(Money, name="money"), source, seen)):
            await turns()

    assert seen == []
    assert str(raised.value).startswith("operator 'last', state 'money': the snapshot holds values")
    for what in ("'cents' (int) is gone", "'amount' (float) is new", "Cents is", "migrate="):
        assert what in str(raised.value)


async def test_migrate_is_asked_once_for_each_value_through_crash_and_compaction() -> None:
    place = Place()
    await first_life(place)
    made: list[Any] = []
    both: list[Any] = ["now", "committed"]

    def migrate(plain: Any) -> Money:
        made.append(plain)
        return to_money(plain)

    script = [*[("", None)] * 2, PAUSE, ("a", Money(2.0, "USD")), PAUSE, ("a", Money(3.0, "USD"))]
    for life in range(3):
        seen: list[Any] = []
        source = ScriptedSource[Any](script)
        state = ValueState(Money, name="money", migrate=migrate)
        async with place.start(flow_of(state, source, seen)) as job:
            live = job.state("last")
            for as_of in both:
                assert await live.get("b", as_of=as_of) == Money(0.99, "EUR")
            if life == 0:
                await job.cancel()  # no epoch was committed: the next life migrates again
            elif life == 1:
                source.release()
                # It is called in this life only, so that the name means what it does now.
                await until(lambda: len(seen) == 1)  # noqa: B023
                await place.epoch(job)
                assert seen == [("a", Money(1.5, "EUR"))]
                source.release()
    assert len([plain for plain in made if plain == {"cents": 99}]) >= 2
    made.clear()
    source = ScriptedSource[Any](script)
    state = ValueState(Money, name="money", migrate=migrate)
    async with place.start(flow_of(state, source, [])) as job:
        found = {key async for key, _ in job.state("last").scan(as_of="committed")}
        assert found == {"a", "b"}
    assert made == []


def sums(create: Any, add: Any, type: Any, source: Any, sink: Any, migrate: Any = None) -> Flow:
    flow = Flow("sums")
    keyed = flow.source(source, name="in").key_by(lambda pair: pair[0])
    keyed.aggregate(create, add, None, type, migrate=migrate, name="sum").sink(sink, name="out")
    return flow


def add_cents(total: Cents, pair: tuple[str, int]) -> Cents:
    return Cents(total.cents + pair[1])


def add_money(total: Money, pair: tuple[str, int]) -> Money:
    return Money(total.amount + pair[1], total.currency)


async def test_running_figures_are_migrated_too() -> None:
    place, sink = Place(), MemorySink[Any]()
    source = ScriptedSource[Any]([("a", 150), PAUSE])
    async with place.start(sums(lambda: Cents(0), add_cents, Cents, source, sink)) as job:
        await source.paused()
        await place.epoch(job)
    script = [("a", 150), PAUSE, ("a", 2)]
    rest = (lambda: Money(0.0, "EUR"), add_money, Money)

    with pytest.raises(StateError, match="operator 'sum', state 'aggregate': the snapshot holds"):
        await place.run(sums(*rest, ScriptedSource[Any](script), sink))
    source, sink = ScriptedSource[Any](script), MemorySink[Any]()
    async with place.start(sums(*rest, source, sink, to_money)) as job:
        assert await job.state("sum").get("a", as_of="committed") == Money(1.5, "EUR")
        source.release()
        await place.finish(job)
    assert sink.rows == [("a", Money(3.5, "EUR"))]
