"""What a task sends: to one reader or several, by turns or by key."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pytest
from anyio import create_task_group

from flowrt.contract.elements import Barrier, Idle, Records, Watermark
from flowrt.contract.state import KEY_GROUPS, owner_of_group
from flowrt.dataflow.channels.channel import Channel
from flowrt.dataflow.channels.outputs import (
    Forward,
    Hash,
    Outputs,
    Partitioner,
    Rebalance,
    partitioner,
)
from flowrt.dataflow.channels.run_length import RUN_LIMIT
from flowrt.state.key_groups import key_group
from tests.dataflow.kit import Reception, settle

pytestmark = pytest.mark.anyio


def receptions(count: int, capacity: int = 10_000) -> list[Reception]:
    return [Reception(capacity) for _ in range(count)]


def channels(receptions: Sequence[Reception]) -> list[Channel]:
    return [reception.channel for reception in receptions]


async def test_forward_gives_the_run_itself_away() -> None:
    (out,) = receptions(1)
    records = Records([1])
    await Forward(out.channel).send(records)
    assert out.take()[0] is records


async def test_rebalance_sends_one_run_to_each_in_turn() -> None:
    outs = receptions(3)
    spread = Rebalance(channels(outs))
    for run in range(5):
        await spread.send(Records([run]))
    assert [out.take() and out.values for out in outs] == [[0, 3], [1, 4], [2]]


async def test_hash_sends_each_record_to_the_owner_of_its_key_group() -> None:
    outs = receptions(3)
    keys: list[Hashable] = [f"key {n}" for n in range(100)]
    await Hash(channels(outs), key_group).send(Records([*keys], [*range(100)], [*keys]))

    for index, out in enumerate(outs):
        (run,) = out.take()
        assert isinstance(run, Records)
        mine = [n for n, key in enumerate(keys) if owner_of_group(key_group(key), 3) == index]
        assert run.timestamps == mine
        assert run.keys == run.values == [keys[n] for n in mine]


async def test_hash_keeps_the_order_within_a_key_and_sends_nothing_to_who_gets_nothing() -> None:
    outs = receptions(KEY_GROUPS)
    spread = Hash(channels(outs), lambda key: int(str(key)))
    await spread.send(Records([1, 2, 3], None, [7, 9, 7]))
    assert {n: out.values for n, out in enumerate(outs) if out.take()} == {7: [1, 3], 9: [2]}


@pytest.mark.parametrize(
    ("spread", "readers", "kind"),
    [
        ("forward", 1, Forward),
        ("hash", 1, Forward),
        ("hash", 2, Hash),
        ("rebalance", 1, Forward),
        ("rebalance", 2, Rebalance),
    ],
)
async def test_one_reader_needs_no_spreading(spread: Any, readers: int, kind: type) -> None:
    made = partitioner(spread, channels(receptions(readers)), key_group)
    assert type(made) is kind
    assert len(made.channels) == readers


async def test_each_reader_gets_every_record_in_lists_of_its_own() -> None:
    outs = receptions(3)
    outputs = Outputs([Forward(channel) for channel in channels(outs)])
    await outputs.emit(Records([1, 2], [10, 20], ["a", "b"]))

    runs = [out.take()[0] for out in outs]
    for run in runs:
        assert run == Records([1, 2], [10, 20], ["a", "b"])
        assert isinstance(run, Records)
        # A receiver may do what it likes with what it was given.
        run.values.clear()
        assert run.timestamps is not None
        run.timestamps.append(30)
        assert run.keys is not None
        run.keys.pop()
    assert outputs.records == 2


async def test_records_joined_at_one_reader_do_not_show_up_at_another() -> None:
    fast, slow = receptions(2)
    outputs = Outputs([Forward(slow.channel), Forward(fast.channel)])
    for value in range(3):
        await outputs.emit(Records([value]))
        fast.take()
    slow.take()
    assert fast.elements == [Records([0]), Records([1]), Records([2])]
    assert slow.elements == [Records([0, 1, 2])]


async def test_without_a_reader_records_go_nowhere() -> None:
    outputs = Outputs([])
    await outputs.emit(Records([1]))
    outputs.broadcast(Barrier(1))
    assert outputs.records == 1


async def test_side_outputs_have_readers_of_their_own() -> None:
    main, late, also_late = receptions(3)
    sides = {("window", "late"): [Forward(late.channel), Forward(also_late.channel)]}
    outputs = Outputs([Forward(main.channel)], sides)
    await outputs.emit(Records([1]))
    await outputs.emit_side("window", "late", Records([2]))

    assert [out.take() for out in (main, late, also_late)] == [
        [Records([1])],
        [Records([2])],
        [Records([2])],
    ]
    assert outputs.records == 2


async def test_control_goes_to_every_channel_of_every_output() -> None:
    outs = receptions(4)
    main: list[Partitioner] = [Rebalance(channels(outs[:2])), Forward(outs[2].channel)]
    outputs = Outputs(main, {("o", "t"): [Forward(outs[3].channel)]})
    outputs.watermark(5)
    outputs.broadcast(Barrier(1))
    outputs.idle()

    assert [out.take() for out in outs] == [[Watermark(5), Barrier(1), Idle()]] * 4


async def test_the_slowest_reader_holds_the_sender() -> None:
    fast, slow = Reception(10_000), Reception(1)
    outputs = Outputs([Forward(fast.channel), Forward(slow.channel)])
    sent = 0

    async def send() -> None:
        nonlocal sent
        for value in range(10):
            await outputs.emit(Records([value]))
            sent += 1

    async with create_task_group() as group:
        group.start_soon(send)
        await settle()
        assert sent == 1
        while sent < 10:
            slow.take()
            await settle()
    fast.take()
    slow.take()
    assert fast.values == slow.values == [*range(10)]


async def test_long_runs_are_spread_in_one_go() -> None:
    outs = receptions(4)
    keys: list[Hashable] = [*range(RUN_LIMIT)]
    await Hash(channels(outs), key_group).send(Records([*keys], None, keys))
    for out in outs:
        out.take()
    assert sorted(value for out in outs for value in out.values) == keys
