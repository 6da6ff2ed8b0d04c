"""What is put around a call: limits, further tries, batches, caches. No time passes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from anyio import CancelScope, create_task_group, get_cancelled_exc_class, sleep_forever

from flowrt import Cache, ExponentialBackoff, FixedDelay
from flowrt.contract.errors import ConfigError
from flowrt.contract.failures import survivable
from flowrt.contract.on_error import tries_of
from flowrt.operators.calls import Call, batched, cached, limited, retried
from flowrt.testing import ManualClock, manual_world
from tests.dataflow.kit import settle

pytestmark = pytest.mark.anyio

ASYNCIO = [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})]


class Asked:
    """A call whose answers are given beforehand: values, or exceptions to raise."""

    def __init__(self, *answers: Any) -> None:
        self.values: list[Any] = []
        self._answers = [*answers]

    async def __call__(self, value: Any) -> Any:
        self.values.append(value)
        answer = self._answers.pop(0) if self._answers else value
        if answer in (sleep_forever, stray):
            await answer()
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def stray() -> None:
    """Raise a cancellation that was another's, as a pool may that hands on what became of it."""
    others: list[BaseException] = []
    with CancelScope() as scope:
        scope.cancel()
        try:
            await sleep_forever()
        except get_cancelled_exc_class() as error:
            others.append(error)
    raise others[0]


class Together:
    """Calls under way at the same time, and what came of each."""

    def __init__(self, call: Call) -> None:
        self.results: dict[int, Any] = {}
        self._call = call
        self._number = 0

    async def make(self, group: Any, *values: Any) -> None:
        for value in values:
            group.start_soon(self._make, self._number, value)
            self._number += 1
            await settle()  # trio would begin them in any order

    async def _make(self, number: int, value: Any) -> None:
        try:
            self.results[number] = await self._call(value)
        except Exception as error:
            self.results[number] = error


# -------------------------------------------------------------------------------------- limited


async def test_a_call_that_takes_longer_is_cancelled() -> None:
    clock = ManualClock()
    calls = Together(limited(Asked(sleep_forever), 100, clock))
    async with create_task_group() as group:
        await calls.make(group, 1)
        clock.advance(99)
        await settle()
        assert calls.results == {}
        clock.advance(1)
        await settle()
    assert isinstance(calls.results[0], TimeoutError)
    assert str(calls.results[0]) == "no answer within 100 ms"
    assert clock.next_alarm_ms() is None


async def test_each_call_has_its_own_time() -> None:
    clock = ManualClock()
    calls = Together(limited(Asked(sleep_forever, 7, sleep_forever), 100, clock))
    async with create_task_group() as group:
        await calls.make(group, "a")
        clock.advance(40)
        await calls.make(group, "b", "c")
        assert calls.results == {1: 7}
        clock.advance(60)
        await settle()
        assert calls.results.keys() == {0, 1}
        clock.advance(39)
        await settle()
        assert calls.results.keys() == {0, 1}
        clock.advance(1)
        await settle()
        assert calls.results.keys() == {0, 1, 2}
    assert clock.next_alarm_ms() is None


async def test_a_call_in_time_leaves_no_alarm() -> None:
    clock = ManualClock()

    assert await limited(Asked(), 100, clock)(1) == 1
    with pytest.raises(ConnectionError):
        await limited(Asked(ConnectionError()), 100, clock)(1)
    assert clock.next_alarm_ms() is None


# -------------------------------------------------------------------------------------- retried


async def test_tries_follow_as_the_strategy_says() -> None:
    world = manual_world()
    clock = world.clock
    assert isinstance(clock, ManualClock)
    asked = Asked(OSError("1"), TimeoutError("2"), OSError("3"))
    calls = Together(retried(asked, ExponentialBackoff("1s", factor=2, attempts=3), world))
    async with create_task_group() as group:
        await calls.make(group, "a")
        for tries, delay in ((2, 1_050), (3, 2_100), (4, 4_200)):
            assert len(asked.values) == tries - 1
            clock.advance(delay)
            await settle()
            assert len(asked.values) == tries
    assert calls.results == {0: "a"}


async def test_the_last_exception_is_raised() -> None:
    world = manual_world()
    last = OSError("2")

    with pytest.raises(OSError, match="2"):
        await retried(Asked(OSError("1"), last), FixedDelay("0s", attempts=1), world)("a")


async def test_each_try_has_a_limit_of_its_own() -> None:
    world = manual_world()
    clock = world.clock
    assert isinstance(clock, ManualClock)
    asked = Asked(sleep_forever, sleep_forever)
    calls = Together(retried(limited(asked, 100, clock), FixedDelay("1s", attempts=2), world))
    async with create_task_group() as group:
        await calls.make(group, "a")
        for _ in range(4):
            clock.advance(1_000)
            await settle()
    assert calls.results == {0: "a"}
    assert len(asked.values) == 3


async def test_a_cancellation_that_nobody_asked_for_is_tried_again() -> None:
    asked = Asked(stray, stray)

    answer = await retried(asked, FixedDelay("0s", attempts=2), manual_world())("a")

    assert answer == "a"
    assert asked.values == ["a"] * 3


async def test_the_last_cancellation_that_nobody_asked_for_is_raised() -> None:
    asked = Asked(OSError("1"), stray)

    with pytest.raises(get_cancelled_exc_class()) as raised:
        await retried(asked, FixedDelay("0s", attempts=1), manual_world())("a")

    assert tries_of(raised.value) == 2


async def test_such_a_cancellation_after_a_timeout_is_tried_again() -> None:
    world = manual_world()
    clock = world.clock
    assert isinstance(clock, ManualClock)
    asked = Asked(sleep_forever, stray, sleep_forever, stray)
    calls = Together(retried(limited(asked, 100, clock), FixedDelay("1s", attempts=4), world))
    async with create_task_group() as group:
        await calls.make(group, "a")
        for _ in range(6):
            clock.advance(1_000)
            await settle()
    assert calls.results == {0: "a"}
    assert len(asked.values) == 5


@pytest.mark.parametrize("waits", [False, True], ids=["in the call", "between two tries"])
async def test_a_call_that_is_told_to_stop_is_not_tried_again(waits: bool) -> None:
    world = manual_world()
    asked = Asked(stray if waits else sleep_forever, *[sleep_forever] * 3)
    calls = Together(retried(asked, FixedDelay("1s" if waits else "0s"), world))
    async with create_task_group() as group:
        await calls.make(group, "a")
        group.cancel_scope.cancel()
    assert asked.values == ["a"]
    assert calls.results == {}


async def test_a_call_whose_code_swallows_its_end_is_not_tried_again() -> None:
    asked: list[int] = []

    async def stubborn(value: int) -> None:
        asked.append(value)
        try:
            await sleep_forever()
        except get_cancelled_exc_class():
            await stray()

    calls = Together(retried(stubborn, FixedDelay("0s", attempts=5), manual_world()))
    async with create_task_group() as group:
        await calls.make(group, 1)
        group.cancel_scope.cancel()
    assert asked == [1]


@pytest.mark.parametrize("anyio_backend", ASYNCIO, ids=["asyncio", "uvloop"])
async def test_a_task_that_is_cancelled_alone_makes_no_other_call() -> None:
    asked = Asked(sleep_forever)
    call = retried(asked, FixedDelay("0s", attempts=5), manual_world())
    task: asyncio.Task[Any] = asyncio.ensure_future(call("a"))
    await settle()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert asked.values == ["a"]


# --------------------------------------------------------------------------------------- cached


async def test_what_was_asked_is_not_asked_again() -> None:
    asked = Asked()
    call = cached(asked, Cache(), ManualClock())

    assert [await call(value) for value in (1, 2, 1, 2)] == [1, 2, 1, 2]
    assert asked.values == [1, 2]


async def test_by_a_key() -> None:
    asked = Asked()
    call = cached(asked, Cache(key=lambda row: row["id"]), ManualClock())

    assert await call({"id": 1, "n": 1}) == await call({"id": 1, "n": 2}) == {"id": 1, "n": 1}


async def test_the_one_used_longest_ago_goes() -> None:
    asked = Asked()
    call = cached(asked, Cache(size=2), ManualClock())

    for value in (1, 2, 1, 3, 1, 2):
        await call(value)
    assert asked.values == [1, 2, 3, 2]


async def test_an_answer_has_its_time() -> None:
    asked, clock = Asked(), ManualClock()
    call = cached(asked, Cache(ttl="10s"), clock)

    await call(1)
    clock.advance(9_999)
    await call(1)
    assert asked.values == [1]
    clock.advance(1)
    await call(1)
    assert asked.values == [1, 1]


async def test_who_asks_meanwhile_waits_for_the_same_answer() -> None:
    clock = ManualClock()
    asked = Asked(sleep_forever, 5)
    # The first call gives up after a second: its error is its own, another asks again for all.
    calls = Together(cached(limited(asked, 1_000, clock), Cache(), clock))
    async with create_task_group() as group:
        await calls.make(group, 1, 1, 1)
        assert asked.values == [1]
        clock.advance(1_000)
        await settle()
    assert isinstance(calls.results[0], TimeoutError)
    assert [calls.results[1], calls.results[2]] == [5, 5]
    assert asked.values == [1, 1]


async def test_an_exception_is_not_kept() -> None:
    asked = Asked(ConnectionError(), 5)
    call = cached(asked, Cache(), ManualClock())

    with pytest.raises(ConnectionError):
        await call(1)
    assert await call(1) == 5


@pytest.mark.parametrize("options", [{"size": 0}, {"ttl": "soon"}])
def test_caches_that_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Cache(**options)


# -------------------------------------------------------------------------------------- batched


async def test_a_call_goes_out_when_it_is_full() -> None:
    asked, clock = Asked(), ManualClock()
    calls = Together(batched(asked, 2, 100, clock))
    async with create_task_group() as group:
        await calls.make(group, "a", "b", "c")
        assert asked.values == [["a", "b"]]
        assert calls.results == {0: "a", 1: "b"}
        clock.advance(100)
        await settle()
    assert asked.values == [["a", "b"], ["c"]]
    assert calls.results == {0: "a", 1: "b", 2: "c"}
    assert clock.next_alarm_ms() is None


async def test_while_a_call_is_under_way_the_next_one_gathers() -> None:
    asked, clock = Asked(sleep_forever), ManualClock()
    calls = Together(batched(limited(asked, 1_000, clock), 2, 100, clock))
    async with create_task_group() as group:
        await calls.make(group, "a", "b", "c", "d")
        assert calls.results == {2: "c", 3: "d"}
        clock.advance(1_000)
        await settle()
    assert [type(calls.results[number]) for number in (0, 1)] == [TimeoutError, TimeoutError]


async def test_an_exception_is_that_of_all_its_values() -> None:
    refused = OSError("refused")
    calls = Together(batched(Asked(refused), 2, 100, ManualClock()))
    async with create_task_group() as group:
        await calls.make(group, "a", "b", "c", "d")
    assert calls.results == {0: refused, 1: refused, 2: "c", 3: "d"}


@pytest.mark.parametrize("answers", [["a"], ["a", "b", "c"], None, 7])
async def test_answers_that_do_not_fit(answers: Any) -> None:
    async def wrong(values: list[Any]) -> Any:
        return answers

    calls = Together(batched(wrong, 2, 100, ManualClock()))
    async with create_task_group() as group:
        await calls.make(group, "a", "b")
    assert all(isinstance(calls.results[n], ValueError | TypeError) for n in (0, 1))


async def test_a_call_that_is_cancelled_alone_is_no_answer() -> None:
    clock = ManualClock()
    calls = Together(batched(Asked(sleep_forever), 2, 100, clock))
    async with create_task_group() as group:
        async with create_task_group() as first:
            await calls.make(first, "a")
            await calls.make(group, "b")
            first.cancel_scope.cancel()
        await settle()
    assert str(calls.results[1]) == "the call for this value and others was cancelled"


async def test_a_cancellation_that_nobody_asked_for_is_the_answer_for_all_values() -> None:
    asked = Asked(stray)
    caught: list[BaseException] = []

    async def noted(value: int) -> None:
        try:
            await call(value)
        except survivable() as error:
            caught.append(error)

    call = batched(asked, 2, 100, ManualClock())
    async with create_task_group() as group:
        group.start_soon(noted, 1)
        group.start_soon(noted, 2)
    assert len(caught) == 2
    assert {type(error) for error in caught} == {get_cancelled_exc_class()}
