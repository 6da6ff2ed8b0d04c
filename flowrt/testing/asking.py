"""The calls of a `map_async` on the bench: in flight until the bench lets them be made."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio

from flowrt.contract.elements import Idle, Records, Watermark
from flowrt.contract.errors import FlowrtError
from flowrt.contract.failures import failures
from flowrt.contract.on_error import tries_of
from flowrt.contract.steps import MapAsync
from flowrt.contract.world import World
from flowrt.dataflow.chains.blame import operator_error
from flowrt.dataflow.chains.chain import Chain, Cut
from flowrt.dataflow.chains.judge import Judge
from flowrt.dataflow.tasks.in_flight import Call, Failed, InFlight
from flowrt.dataflow.tasks.in_flight_snapshot import SnapshotForm, share_of
from flowrt.state.key_groups import key_group
from flowrt.state.values import DescribedValues
from flowrt.testing.run_flow import passing_time
from flowrt.testing.world import ManualClock


class Asking:
    """The first step of a line: records are in flight in front of the chain behind it."""

    def __init__(
        self, id: str, step: MapAsync, world: World, chain: Chain, judge: Judge | None = None
    ) -> None:
        self.judge = judge
        self._id = id
        self._step = step
        self._clock = world.clock
        self._chain = chain
        self._call = step.make(world)
        self._form = SnapshotForm(DescribedValues(id, "a record in flight", step.type), key_group)
        self._in_flight = InFlight(ordered=step.ordered, limit=2 * step.capacity)

    def restore(self, parts: Sequence[Any], subtask: int, parallelism: int) -> None:
        """Take over what former subtasks had in flight."""
        if parts:
            self._form.restore(self._in_flight, share_of(parts, subtask, parallelism))

    def cut(self) -> Cut:
        """Return what is in flight, for a snapshot."""
        return Cut(self._id, data=self._form.snapshot(self._in_flight))

    def take(self, element: Records | Watermark | Idle) -> None:
        """Take what comes in; nothing leaves before `answer`."""
        if isinstance(element, Records):
            self._form.try_out(element.values)
            self._in_flight.add(element)
        else:
            self._in_flight.mark(element)

    async def answer(self, *, backwards: bool) -> None:
        """Make all calls, and let all leave; with `backwards` the last call is answered first."""
        while self._in_flight.size or self._in_flight.ready:
            await self._make_calls(backwards)
            for one in self._in_flight.take():
                match one:
                    case Records():
                        await self._chain.run(one)
                    case Watermark(timestamp):
                        await self._chain.advance(timestamp)
                    case Failed(call, error):
                        assert self.judge is not None
                        tries = tries_of(error)
                        await self.judge.failed(error, call.value, call.timestamp, None, tries)
                    case _:
                        self._chain.rest()

    async def _make_calls(self, backwards: bool) -> None:
        answers: list[tuple[Call, Any]] = []
        errors: list[FlowrtError] = []

        async def make(call: Call) -> None:
            try:
                answers.append((call, await self._call(call.value)))
            except FlowrtError as error:
                errors.append(error)
            except failures() as error:
                if self.judge is not None and isinstance(error, Exception):
                    answers.append((call, Failed(call, error)))
                    return
                named = operator_error(self._id, error, value=call.value)
                named.__cause__ = error
                errors.append(named)

        async with AsyncExitStack() as stack:
            if isinstance(self._clock, ManualClock):
                # Limits, further tries and batches wait for it.
                await stack.enter_async_context(passing_time(self._clock))
            group = await stack.enter_async_context(anyio.create_task_group())
            for _ in range(self._step.capacity):
                if (call := self._in_flight.next()) is not None:
                    group.start_soon(make, call)
        if errors:
            raise errors[0]
        for call, answer in reversed(answers) if backwards else answers:
            if type(answer) is Failed:
                self._in_flight.fail(call, answer.error)
            else:
                self._in_flight.finish(call, answer)
