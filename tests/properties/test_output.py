"""Iterators over an output get what its policy promises, however they come, take and go."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint
from hypothesis import example, given
from hypothesis import strategies as st

from flowrt.runtime.output import JobOutput, OutputIterator, Policy
from tests.connectors.kit import sink_context

pytestmark = pytest.mark.anyio

RUNS = st.lists(st.integers(1, 12), max_size=12)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["make", "take", "take", "take", "leave", "turn"]), st.integers(0, 2)
    ),
    max_size=60,
)


class Iteration:
    """An iterator and what it got."""

    def __init__(self, output: JobOutput[int]) -> None:
        self.iterator: OutputIterator[int] = output.iterate()
        self.got: list[int] = []

    @property
    def waiting(self) -> int:
        return len(self.iterator._buffer.values)

    async def take(self) -> None:
        if self.waiting:
            self.got.append(await anext(self.iterator))


@pytest.mark.parametrize("policy", ["wait", "drop_oldest", "drop_newest"])
@example(
    runs=[1], steps=[("take", 0), ("make", 0), ("make", 0), ("leave", 0)], capacity=1
)  # who came second began behind what was waiting for the first
@given(runs=RUNS, steps=STEPS, capacity=st.integers(1, 6))
async def test_iterators(policy: Policy, runs: list[int], steps: list[Any], capacity: int) -> None:
    output: JobOutput[int] = JobOutput("numbers", policy=policy, capacity=capacity)
    output.begin()
    iterations: list[Iteration] = []
    former: list[Iteration] = []
    abandoned: set[int] = set()
    sent = 0

    async def write() -> None:
        nonlocal sent
        writer = await output.writer(sink_context(), [])
        for size in runs:
            await writer.write([*range(sent, sent + size)], None)
            sent += size
            await checkpoint()

    async with create_task_group() as group:
        group.start_soon(write)
        for step, which in steps:
            if step == "make":
                iterations.append(Iteration(output))
            elif step == "turn" or not iterations:
                await checkpoint()
            elif step == "take":
                await iterations[which % len(iterations)].take()
            else:
                gone = iterations.pop(which % len(iterations))
                if iterations:  # otherwise what it leaves waits for the next
                    abandoned |= {*gone.iterator._buffer.values}
                await gone.iterator.aclose()
                former.append(gone)
            assert all(one.waiting <= capacity for one in iterations)
        output.drain()
    output.end(None)
    last = Iteration(output)
    for one in [*iterations, last]:
        one.got += [value async for value in one.iterator]

    assert sent == sum(runs)
    seen = [one.got for one in [*former, *iterations, last]]
    assert all(before < after for got in seen for before, after in pairwise(got))
    if policy == "wait":
        assert output.dropped == 0
        assert all(after == before + 1 for got in seen for before, after in pairwise(got))
        # Each value reached somebody, or was kept for one who left while others stayed; and who
        # stayed to the end has them to the end.
        assert {value for got in seen for value in got} | abandoned == set(range(sent))
        assert all(one.got[-1:] in ([], [sent - 1]) for one in iterations)
    elif not former and len(iterations) <= 1:
        assert output.dropped + sum(map(len, seen)) == sent
