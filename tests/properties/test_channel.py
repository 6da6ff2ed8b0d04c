"""A channel keeps order and bounds, however its sender and its receiver take turns."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.elements import Barrier, Element, EndOfStream, Idle, Records, Watermark
from flowrt.dataflow.channels.channel import Channel
from flowrt.dataflow.channels.parking import parking_spot
from flowrt.dataflow.channels.run_length import RUN_LIMIT

pytestmark = pytest.mark.anyio

SHAPES = st.tuples(st.booleans(), st.booleans())
"""Whether a run has timestamps, and keys."""

SENT = st.lists(
    st.one_of(
        st.tuples(st.just("records"), st.integers(0, 6), SHAPES),
        st.tuples(st.just("records"), st.just(700), SHAPES),
        st.just(("watermark",)),
        st.just(("idle",)),
        st.just(("barrier",)),
    ),
    max_size=40,
)
PAUSES = st.lists(st.integers(0, 3), max_size=60)


def elements(sent: list[Any]) -> list[Element]:
    """Make the elements of a plan; records, watermarks and barriers are numbered."""
    made: list[Element] = []
    count = 0
    for number, (kind, *details) in enumerate(sent):
        if kind == "records":
            length, (timed, keyed) = details
            values = [*range(count, count + length)]
            count += length
            made.append(
                Records(
                    values,
                    [v + 1 for v in values] if timed else None,
                    [v + 2 for v in values] if keyed else None,
                )
            )
        elif kind == "watermark":
            made.append(Watermark(number))
        else:
            made.append(Idle() if kind == "idle" else Barrier(number))
    return [*made, EndOfStream()]


def one_by_one(elements: list[Element]) -> list[Any]:
    """Every record and control element by itself, whatever runs they came in."""
    single: list[Any] = []
    for element in elements:
        if isinstance(element, Records):
            count = len(element.values)
            times = element.timestamps or [None] * count
            keys = element.keys or [None] * count
            single += zip(element.values, times, keys, strict=True)
        else:
            single.append(element)
    return single


def coalesced(single: list[Any]) -> list[Any]:
    """What must be left when nobody takes anything: the last watermark, idle if idle at the end."""
    left: list[Any] = []
    for element in single:
        if isinstance(element, Watermark | Idle):
            while left and isinstance(left[-1], Idle):
                left.pop()
            if isinstance(element, Watermark) and left and isinstance(left[-1], Watermark):
                left.pop()
        left.append(element)
    return left


def meaning(single: list[Any]) -> list[Any]:
    """For each record, barrier and the end: the watermark and the rest known when it comes."""
    watermark, story = None, []
    for element in single:
        if isinstance(element, Watermark):
            watermark = element.timestamp
        elif not isinstance(element, Idle):
            story.append((element, watermark))
    return story


async def send(channel: Channel, elements: list[Element], pauses: list[int]) -> None:
    for index, element in enumerate(elements):
        for _ in range(pauses[index % len(pauses)] if pauses else 0):
            await checkpoint()
        if isinstance(element, Records):
            values, times, keys = element.values, element.timestamps, element.keys
            # The channel may keep the lists that it is given and add to them.
            await channel.send(Records(values[:], times and times[:], keys and keys[:]))
        else:
            channel.send_control(element)


@given(SENT, st.integers(1, 10), PAUSES, PAUSES)
async def test_everything_comes_in_order_under_any_interleaving(
    sent: list[Any], capacity: int, sender_pauses: list[int], receiver_pauses: list[int]
) -> None:
    spot = parking_spot()
    channel = Channel(capacity, spot)
    given = elements(sent)
    received: list[Element] = []

    async with create_task_group() as group:
        group.start_soon(send, channel, given, sender_pauses)
        turn = 0
        while not received or not isinstance(received[-1], EndOfStream):
            assert channel.size < 2 * capacity
            taken = channel.take()
            received += taken
            assert not any(isinstance(element, Barrier) for element in taken[:-1])
            if not taken:
                await spot.wait()
            turn += 1
            for _ in range(receiver_pauses[turn % len(receiver_pauses)] if receiver_pauses else 0):
                await checkpoint()

    assert meaning(one_by_one(received)) == meaning(one_by_one(given))
    assert all(len(e.values) <= RUN_LIMIT for e in received if isinstance(e, Records))
    assert channel.size == 0


@given(SENT)
async def test_what_a_receiver_that_never_comes_leaves_is_bounded(sent: list[Any]) -> None:
    channel = Channel(10**9, parking_spot())
    given = elements(sent)
    await send(channel, given, [])
    left: list[Element] = []
    while channel:
        left += channel.take()

    assert one_by_one(left) == coalesced(one_by_one(given))
    kept = sum(isinstance(e, Records | Barrier) for e in given)
    assert sum(isinstance(e, Watermark | Idle) for e in left) <= 2 * (kept + 1)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.integers(1, 4), st.data())
async def test_a_sender_cancelled_at_any_turn_sent_all_until_there(
    lengths: list[int], capacity: int, data: st.DataObject
) -> None:
    spot = parking_spot()
    channel = Channel(capacity, spot)
    sent = begun = 0

    async def sending() -> None:
        nonlocal sent, begun
        for length in lengths:
            begun += length
            await channel.send(Records([*range(sent, begun)]))
            sent = begun
            await checkpoint()

    received: list[Element] = []
    async with create_task_group() as group:
        group.start_soon(sending)
        for _ in range(data.draw(st.integers(0, 20))):
            await checkpoint()
            if data.draw(st.booleans()):
                received += channel.take()
        group.cancel_scope.cancel()
    received += channel.take()

    values = [value for value, _, _ in one_by_one(received)]
    assert values == [*range(len(values))]
    assert sent <= len(values) <= begun
