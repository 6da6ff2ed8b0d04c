"""Types flow through a flow: mypy checks the assertions, and running shows that the calls exist."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, assert_type

import pytest

from flowrt import (
    BroadcastState,
    BroadcastStream,
    Cache,
    ConnectedStreams,
    Context,
    CoOperator,
    FixedDelay,
    Flow,
    GraphError,
    IterableSource,
    Job,
    JobOutput,
    KeyedStream,
    MemorySink,
    Operator,
    OutputTag,
    Stream,
    WatermarkStrategy,
)
from flowrt.contract.state import BroadcastHandle


@dataclass
class Flight:
    origin: str
    carrier: str
    delay: float
    at: int


LATE = OutputTag[int]("late")


class Delays(Operator[Flight, float]):
    def process(self, value: Flight, ctx: Context) -> None:
        ctx.emit(value.delay)


def flights() -> Stream[Flight]:
    return Flow("types").source(list[Flight]())


def by_carrier() -> KeyedStream[str, Flight]:
    return flights().key_by(lambda flight: flight.carrier)


def test_sources() -> None:
    async def later() -> AsyncIterator[int]:
        yield 1

    flow = Flow("types")

    assert_type(flow.source(IterableSource([1])), Stream[int])
    assert_type(flow.source([1, 2]), Stream[int])
    assert_type(flow.source(range(3)), Stream[int])
    assert_type(flow.source(later()), Stream[int])
    assert_type(flow.source(IterableSource([1])).map(str).filter(bool), Stream[str])


def test_map() -> None:
    async def looked_up(flight: Flight) -> int:
        return flight.at

    async def named(flight: Flight) -> str:
        return flight.carrier

    def soon(flight: Flight) -> Awaitable[str]:
        return named(flight)

    assert_type(flights().map(lambda flight: flight.delay), Stream[float])
    assert_type(flights().map(looked_up), Stream[int])
    assert_type(flights().map(soon), Stream[str])
    assert_type(flights().map(looked_up, name="look-up").map(str), Stream[str])


def test_map_async() -> None:
    async def looked_up(flight: Flight) -> int:
        return flight.at

    def soon(flight: Flight) -> Awaitable[int]:
        return looked_up(flight)

    async def all_at_once(flights: list[Flight]) -> tuple[int, ...]:
        return tuple(flight.at for flight in flights)

    flow = flights()
    careful = flow.map_async(
        looked_up,
        capacity=10,
        ordered=False,
        timeout="1s",
        retry=FixedDelay("1s"),
        cache=Cache(key=lambda flight: flight.at),
        type=Flight,
    )
    assert_type(flow.map_async(looked_up), Stream[int])
    assert_type(flow.map_async(soon, name="soon", parallelism=2), Stream[int])
    assert_type(careful, Stream[int])
    assert_type(by_carrier().map_async(looked_up), Stream[int])
    assert_type(flow.map_async_batch(all_at_once, max_size=10), Stream[int])
    assert_type(flow.map_async_batch(all_at_once, max_size=10, timeout="1s"), Stream[int])


def test_filter_keeps_the_type() -> None:
    async def known(flight: Flight) -> bool:
        return flight.carrier != ""

    assert_type(flights().filter(known), Stream[Flight])
    assert_type(flights().filter(lambda flight: flight.delay > 0), Stream[Flight])


def test_flat_map() -> None:
    def letters(flight: Flight) -> Iterator[str]:
        yield from flight.carrier

    async def pages(flight: Flight) -> Iterable[int]:
        return [flight.at]

    assert_type(flights().flat_map(letters), Stream[str])
    assert_type(flights().flat_map(pages), Stream[int])
    assert_type(Flow("types").source(["a b"]).flat_map(str.split), Stream[str])


def test_process() -> None:
    def plain(flight: Flight, ctx: Context) -> None:
        ctx.emit(flight.at)

    async def coroutine(flight: Flight, ctx: Context) -> None:
        ctx.emit(flight.at)

    assert_type(flights().process(Delays()), Stream[float])
    assert_type(flights().process(Delays), Stream[float])
    assert_type(flights().process(lambda: Delays()), Stream[float])  # noqa: PLW0108
    assert_type(flights().process(plain), Stream[Any])
    assert_type(flights().process(coroutine, type=int), Stream[int])
    assert_type(by_carrier().process(Delays), Stream[float])
    assert_type(by_carrier().process(coroutine), Stream[Any])
    assert_type(by_carrier().process(plain, type=int), Stream[int])


def test_an_operator_for_wider_values_will_do() -> None:
    class Show(Operator[object, str]):
        def process(self, value: object, ctx: Context) -> None:
            ctx.emit(str(value))

    assert_type(flights().process(Show()), Stream[str])


def test_side_output_has_the_type_of_its_tag() -> None:
    assert_type(flights().process(Delays()).side_output(LATE), Stream[int])


def test_timestamps_keep_the_type() -> None:
    strategy = WatermarkStrategy[Flight].bounded_out_of_orderness("1s")
    timed = strategy.with_timestamps(lambda flight: flight.at)

    assert_type(flights().assign_timestamps(timed), Stream[Flight])


def test_union() -> None:
    one = by_carrier()
    two = one.filter(bool).key_by(lambda flight: flight.carrier)

    assert_type(one.filter(bool).union(two), Stream[Flight])
    assert_type(one.union(two), KeyedStream[str, Flight])
    assert_type(one.union(two.filter(bool)), Stream[Flight])


def test_join() -> None:
    airlines = {"UA": "United"}

    async def load() -> dict[str, str]:
        return airlines

    def inner(flight: Flight, airline: str) -> tuple[Flight, str]:
        return flight, airline

    def left(flight: Flight, airline: str | None) -> str:
        return airline or flight.carrier

    def carrier(flight: Flight) -> str:
        return flight.carrier

    joined = flights().join_static(airlines, on=carrier, merge=inner)
    assert_type(joined, Stream[tuple[Flight, str]])
    loaded = flights().join_static(load, on=carrier, merge=inner, how="inner")
    assert_type(loaded, Stream[tuple[Flight, str]])
    or_none = flights().join_static(lambda: airlines, on=carrier, merge=left, how="left")
    assert_type(or_none, Stream[str])


def test_keys() -> None:
    assert_type(by_carrier(), KeyedStream[str, Flight])
    assert_type(by_carrier().start_new_chain(), KeyedStream[str, Flight])
    assert_type(flights().start_new_chain(), Stream[Flight])
    assert_type(by_carrier().map(lambda flight: flight.delay), Stream[float])
    assert_type(by_carrier().filter(bool), Stream[Flight])
    origins = by_carrier().key_by(lambda flight: (flight.origin, flight.carrier))
    assert_type(origins, KeyedStream[tuple[str, str], Flight])


def test_running_figures_are_pairs() -> None:
    def worse(one: Flight, other: Flight) -> Flight:
        return one if one.delay > other.delay else other

    def add(mean: tuple[int, float], flight: Flight) -> tuple[int, float]:
        return mean[0] + 1, mean[1] + flight.delay

    def zero() -> tuple[int, float]:
        return 0, 0.0

    def result(mean: tuple[int, float]) -> float:
        return mean[1] / mean[0]

    def delay(flight: Flight) -> float:
        return flight.delay

    assert_type(by_carrier().count(), Stream[tuple[str, int]])
    assert_type(by_carrier().reduce(worse), Stream[tuple[str, Flight]])
    assert_type(by_carrier().aggregate(zero, add), Stream[tuple[str, tuple[int, float]]])
    assert_type(by_carrier().aggregate(zero, add, result), Stream[tuple[str, float]])
    assert_type(by_carrier().sum(delay), Stream[tuple[str, float]])
    assert_type(by_carrier().min(of=delay), Stream[tuple[str, float]])
    assert_type(by_carrier().max(delay), Stream[tuple[str, float]])
    assert_type(flights().map(delay).key_by(str).sum(), Stream[tuple[str, float]])
    assert_type(flights().map(delay).key_by(str).min(), Stream[tuple[str, float]])
    assert_type(flights().map(delay).key_by(str).max(), Stream[tuple[str, float]])


def test_a_sink_takes_its_own_type_only() -> None:
    flights().sink(MemorySink[Flight]())
    flights().sink(MemorySink[int]())  # type: ignore[arg-type]


def test_a_function_takes_what_the_stream_has() -> None:
    def number(value: int) -> int:
        return value

    flights().map(number)  # type: ignore[arg-type]
    flights().key_by(number)  # type: ignore[arg-type]


class Paid(CoOperator[Flight, int, str]):
    def process_left(self, value: Flight, ctx: Context) -> None:
        ctx.emit(value.carrier)

    def process_right(self, value: int, ctx: Context) -> None:
        ctx.emit(str(value))


class Limited(CoOperator[Flight, int, Flight]):
    limits = BroadcastState(str, int)

    def process_left(self, value: Flight, ctx: Context) -> None:
        assert_type(self.limits.get(value.carrier), int | None)
        assert_type(self.limits.get(value.carrier, 0), int)

    def process_right(self, value: int, ctx: Context) -> None:
        self.limits.replace({"AA": value})
        assert_type(ctx.state(BroadcastState(str, int, name="x")), BroadcastHandle[str, int])


def test_connect() -> None:
    flow = Flow("types")
    left, right = flow.source(list[Flight]()), flow.source(list[int]())
    connected = left.connect(right)

    async def named(flight: Flight) -> str:
        return flight.carrier

    async def shown(number: int) -> str:
        return str(number)

    def plain(flight: Flight, ctx: Context) -> None:
        ctx.emit(flight.at)

    def other(number: int, ctx: Context) -> None:
        ctx.emit(number)

    assert_type(connected, ConnectedStreams[Flight, int])
    assert_type(left.connect(right.broadcast()), ConnectedStreams[Flight, int])
    assert_type(connected.process(Paid()), Stream[str])
    assert_type(connected.process(Paid), Stream[str])
    assert_type(connected.process(lambda: Paid()), Stream[str])  # noqa: PLW0108
    assert_type(connected.process(plain, other), Stream[Any])
    assert_type(connected.process(plain, other, type=int), Stream[int])
    assert_type(connected.map(lambda flight: flight.carrier, str), Stream[str])
    assert_type(connected.map(named, shown), Stream[str])
    assert_type(connected.flat_map(lambda flight: [flight.at], lambda n: [n]), Stream[int])
    assert_type(left.connect(right.broadcast()).process(Limited), Stream[Flight])


def test_connect_with_keys() -> None:
    flow = Flow("types")
    left = flow.source(list[Flight]()).key_by(lambda flight: flight.carrier)
    right = flow.source(list[int]())

    assert_type(left.connect(right.key_by(str)), ConnectedStreams[Flight, int])
    assert_type(left.connect(right.broadcast()), ConnectedStreams[Flight, int])
    with pytest.raises(GraphError):
        left.connect(right)  # type: ignore[arg-type]
    other: KeyedStream[int, int] = right.key_by(lambda value: value)
    left.connect(other)  # type: ignore[arg-type]


def test_rebalance_and_broadcast_keep_the_type() -> None:
    assert_type(flights().rebalance(), Stream[Flight])
    assert_type(by_carrier().rebalance(), Stream[Flight])
    assert_type(by_carrier().broadcast(), BroadcastStream[Flight])


def test_an_output_knows_its_type() -> None:
    output = flights().output("flights")

    async def iterate(job: Job) -> None:
        async for flight in job.output(output):
            assert_type(flight, Flight)
        async for anything in job.output("flights"):
            assert_type(anything, Any)

    assert_type(output, JobOutput[Flight])
    assert iterate.__name__ == "iterate"
