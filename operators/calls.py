"""What can be put around a call: a time limit, another try, one call for many values, a memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import anyio

from flowrt.contract.errors import ConfigError
from flowrt.contract.failures import survivable
from flowrt.contract.on_error import note_tries
from flowrt.contract.plural import plural
from flowrt.contract.retry import RetryStrategy
from flowrt.contract.time import Duration, duration_ms
from flowrt.contract.waiting import sleep_ms
from flowrt.contract.world import Alarm, Clock, World

Call: TypeAlias = Callable[[Any], Awaitable[Any]]
ManyCall: TypeAlias = Callable[[list[Any]], Awaitable[Sequence[Any]]]

_TEXTS: Final = (str, bytes, bytearray, memoryview)
"""Sequences that are one answer and not many."""


def limited(call: Call, timeout_ms: int, clock: Clock) -> Call:
    """Cancel a call that takes longer; it raises `TimeoutError` then."""
    due = _Due(clock)

    async def limited_call(value: Any) -> Any:
        with anyio.CancelScope() as scope:
            due.add(scope, clock.now_ms() + timeout_ms)
            try:
                return await call(value)
            finally:
                due.remove(scope)
        raise TimeoutError(f"no answer within {timeout_ms} ms")

    return limited_call


class _Due:
    """Cancels scopes at their times, with one alarm for all: one for each would cost as much again.

    It is set for a time at or before the earliest.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._times: dict[anyio.CancelScope, int] = {}
        self._alarm: Alarm | None = None

    def add(self, scope: anyio.CancelScope, when_ms: int) -> None:
        self._times[scope] = when_ms
        if self._alarm is None:
            self._alarm = self._clock.call_at(when_ms, self._ring)

    def remove(self, scope: anyio.CancelScope) -> None:
        del self._times[scope]
        if not self._times and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        now_ms = self._clock.now_ms()
        later: list[int] = []
        for scope, when_ms in self._times.items():
            if when_ms > now_ms:
                later.append(when_ms)
            elif not scope.cancel_called:
                scope.cancel()
        self._alarm = self._clock.call_at(min(later), self._ring) if later else None


def retried(call: Call, retry: RetryStrategy, world: World) -> Call:
    """Call again after an exception, for as long as the strategy says; then raise the last one.

    Also after a cancellation that nobody asked for, such as that of a connection which others use.
    """

    async def retried_call(value: Any) -> Any:
        failures = 0
        while True:
            try:
                return await call(value)
            except survivable() as error:
                failures += 1
                delay_ms = retry.delay_ms(failures, world.randomness.fraction())
                if delay_ms is None:
                    note_tries(error, failures)
                    raise
            await sleep_ms(world.clock, delay_ms)

    return retried_call


@dataclass(frozen=True, slots=True)
class Cache:
    """Keeps answers: the `size` used last, each for at most `ttl` (None: for as long as it fits).

    `key(value)` says which values have the same answer; without it the value itself, which must be
    hashable. Values that are asked for while their call is under way wait for that one. An
    exception is not kept. An answer is one object for all: nobody may change it. Each subtask has a
    cache of its own, empty after a restart.
    """

    size: int = 10_000
    ttl: Duration | None = None
    key: Callable[[Any], Hashable] | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"Cache has size={self.size!r}: it must be at least 1")
        if self.ttl is not None:
            duration_ms(self.ttl)


@dataclass(slots=True)
class _Answer:
    """An answer that is there, or will be once `arrived` is set."""

    arrived: anyio.Event
    value: Any = None
    until_ms: int | None = None
    failed: bool = False


def cached(call: Call, cache: Cache, clock: Clock) -> Call:
    """Ask once for values with the same key."""
    answers: OrderedDict[Hashable, _Answer] = OrderedDict()
    ttl_ms = None if cache.ttl is None else duration_ms(cache.ttl)

    def fresh(key: Hashable) -> _Answer | None:
        answer = answers.get(key)
        if answer is None:
            return None
        if answer.until_ms is not None and clock.now_ms() >= answer.until_ms:
            del answers[key]
            return None
        answers.move_to_end(key)
        return answer

    async def ask(key: Hashable, value: Any) -> Any:
        answer = answers[key] = _Answer(anyio.Event())
        if len(answers) > cache.size:
            answers.popitem(last=False)
        try:
            answer.value = await call(value)
        except BaseException:
            answer.failed = True
            if answers.get(key) is answer:
                del answers[key]
            raise
        finally:
            answer.arrived.set()
        if ttl_ms is not None:
            answer.until_ms = clock.now_ms() + ttl_ms
        return answer.value

    async def cached_call(value: Any) -> Any:
        key = value if cache.key is None else cache.key(value)
        while (answer := fresh(key)) is not None:
            if not answer.arrived.is_set():
                await answer.arrived.wait()
            if not answer.failed:
                return answer.value
            # It was another record's failure: this one asks for itself.
        return await ask(key, value)

    return cached_call


@dataclass(slots=True)
class _Batch:
    """Values that go out in one call."""

    values: list[Any] = field(default_factory=list)
    full: anyio.Event = field(default_factory=anyio.Event)
    answered: anyio.Event = field(default_factory=anyio.Event)
    answers: Sequence[Any] = ()
    error: BaseException | None = None


def batched(call: ManyCall, max_size: int, max_wait_ms: int, clock: Clock) -> Call:
    """Gather single values into calls of many: when `max_size` are there, or after `max_wait_ms`.

    The first value of a batch waits for the others and makes the call for all.
    """
    open_batch: _Batch | None = None

    async def lead(batch: _Batch) -> None:
        nonlocal open_batch
        alarm = clock.call_at(clock.now_ms() + max_wait_ms, batch.full.set)
        try:
            await batch.full.wait()
        finally:
            alarm.cancel()
            if open_batch is batch:
                open_batch = None
        # Whoever waits must not take silence for an answer, should the call be cancelled alone.
        batch.error = RuntimeError("the call for this value and others was cancelled")
        try:
            answers = await call(batch.values)
            _check_answers(answers, len(batch.values))
            batch.answers, batch.error = answers, None
        except survivable() as error:
            batch.error = error
        finally:
            batch.answered.set()

    async def batched_call(value: Any) -> Any:
        nonlocal open_batch
        leads = open_batch is None
        batch = open_batch = open_batch or _Batch()
        index = len(batch.values)
        batch.values.append(value)
        if len(batch.values) == max_size:
            open_batch = None
            batch.full.set()
        if leads:
            await lead(batch)
        else:
            await batch.answered.wait()
        if batch.error is not None:
            raise batch.error
        return batch.answers[index]

    return batched_call


def _check_answers(answers: Any, values: int) -> None:
    """Refuse what is not one answer for each value, in their order.

    A dict is not, though it may have the right length and take a place for a key, nor is a text or
    a table's column with labels; a set has no order.
    """
    if not _is_in_order(answers):
        raise TypeError(
            f"a {type(answers).__name__} came back for {values} {plural(values, 'value')}: return "
            "a list with one answer for each, in order"
        )
    if len(answers) != values:
        raise ValueError(
            f"{len(answers)} {plural(len(answers), 'answer')} came back for {values} "
            f"{plural(values, 'value')}: return a list with one answer for each, in order"
        )


def _is_in_order(answers: object) -> bool:
    if isinstance(answers, Sequence):
        return not isinstance(answers, _TEXTS)
    # What models return: an array of numpy, torch or jax. One with `keys` has labels, as in pandas.
    return hasattr(answers, "__array__") and not hasattr(answers, "keys")
