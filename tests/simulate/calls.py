"""Calls to a simulated service: they take time, fail and hang, and are tried often enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from flowrt import FixedDelay
from flowrt.contract.waiting import sleep_ms
from flowrt.stream.stream import CallOptions, Stream
from tests.simulate.failing import Failing, Mishaps
from tests.simulate.faults import InjectedError
from tests.simulate.machine import Process

LONGEST_MS: Final = 60
TIMEOUT_MS: Final = 200


@dataclass(frozen=True, slots=True)
class Calls:
    """How a step makes its calls: `tries` is how often it tries one again that failed."""

    ordered: bool
    batched: bool
    tries: int
    has_timeout: bool

    def __str__(self) -> str:
        order = "ordered" if self.ordered else "unordered"
        return f"{'batched ' * self.batched}calls ({order}, tried {self.tries} times again)"


def add_calls(
    stream: Stream[Any],
    calls: Calls,
    answer: Callable[[Any], Any],
    process: Process,
    failing: Failing | None = None,
    **more: Any,
) -> Stream[Any]:
    """Replace each value by `answer(value)`, which a service gives; `more` goes to the step.

    `failing` tries as often as `calls`; not for batched ones, which fail with all their values.
    """
    mishaps = Mishaps(process, failing)
    service = Service(calls, process, mishaps)
    capacity = process.chance.choice([1, 3, 100])
    options: CallOptions = {"capacity": capacity, "ordered": calls.ordered}
    if failing is not None:
        more["on_error"] = failing.policy()
    elif calls.tries:
        options["retry"] = FixedDelay("10ms", attempts=calls.tries)
    if calls.has_timeout:
        options["timeout"] = f"{TIMEOUT_MS}ms"

    async def ask(value: Any) -> Any:
        if failing is not None:
            await service.refuses(value)
        await service.answers(value)
        return answer(value)

    async def ask_for_many(values: list[Any]) -> list[Any]:
        await service.answers(values)
        found = [answer(value) for value in values]
        values.clear()  # it is a list of its own for each try
        return found

    if calls.batched:
        return stream.map_async_batch(ask_for_many, max_size=min(capacity, 5), **options, **more)
    return stream.map_async(ask, **options, **more)


class Service:
    """What a step of one process calls."""

    def __init__(self, calls: Calls, process: Process, mishaps: Mishaps) -> None:
        self._calls = calls
        self._process = process
        self._mishaps = mishaps
        self._failed: Counter[bytes] = Counter()

    async def refuses(self, asked: Any) -> None:
        """Fail at what is bad, at each try and after a while; `answers` fails at single tries."""
        await self._mishaps.dawdle()
        self._mishaps.fail_for_good(asked.number)

    async def answers(self, asked: Any) -> None:
        """Return when there is an answer; or fail, though not more often than it is tried again."""
        process, question = self._process, msgspec.json.encode(asked)
        if not process.alive:
            return
        if process.chance.random() < 0.2:
            await sleep_ms(process.machine.clock, process.chance.choice([1, 5, 20, LONGEST_MS]))
        if self._mishaps.on_error is None:  # else a record may be one try short, and be missing
            self._mishaps.stumble()
        if self._failed[question] < self._calls.tries and process.chance.random() < 0.1:
            self._failed[question] += 1
            if self._calls.has_timeout and process.chance.random() < 0.5:
                await self._hang()
            process.machine.counts["failed calls"] += 1
            raise InjectedError("the service has no answer")

    async def _hang(self) -> None:
        machine = self._process.machine
        machine.counts["calls that hung"] += 1
        await sleep_ms(machine.clock, 10 * TIMEOUT_MS)
        if self._process.alive:
            # To raise would be no use: it would only be tried again.
            machine.violations.append("a call was waited for beyond its timeout")
