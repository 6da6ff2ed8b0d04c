"""Calls under way between channels: order, room, epochs, restores, failures, endings."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any

import anyio
import pytest
from anyio import create_task_group

from flowrt.contract.elements import (
    MAX_TIMESTAMP,
    Barrier,
    EndOfStream,
    Idle,
    Records,
    Watermark,
)
from flowrt.contract.errors import FlowrtError, OperatorError, StateError
from flowrt.contract.operator import Context, Operator
from flowrt.contract.snapshot import EpochCommitted, OpenEpoch
from flowrt.contract.state import KEY_GROUPS, owner_of_group
from flowrt.contract.steps import Fold, KeyBy, Map, Process
from flowrt.dataflow.tasks import async_task
from flowrt.dataflow.tasks.async_task import PATIENCE_MS
from flowrt.dataflow.tasks.in_flight_snapshot import holds_calls, share_of
from flowrt.runtime.errors import single
from flowrt.state.key_groups import key_group
from tests.dataflow.async_kit import CODEC, LAST, Stage, in_order, pairs, shown
from tests.dataflow.kit import settle, setup

pytestmark = pytest.mark.anyio

# ------------------------------------------------------------------------------- order and room


async def test_answers_leave_in_the_order_of_their_records() -> None:
    stage = Stage(Map(lambda text: text + "!"), capacity=3)
    async with stage.running():
        await stage.send(1, 2, 3, at=[10, None, 30])
        assert stage.service.under_way == [1, 2, 3]
        await stage.service.answer(3, 2)
        assert stage.out.take() == []
        await stage.service.answer(1)
        assert stage.out.take() == [Records(["1!", "2!", "3!"], [10, None, 30])]
        assert stage.task.statistics() == {
            "records_in": 3,
            "records_out": 3,
            "queued": 0,
            "watermark": -(2**63),
        }
        await stage.end()
        assert stage.done
    assert stage.out.take() == [LAST, EndOfStream()]


async def test_unordered_answers_leave_as_they_come_but_pass_no_watermark() -> None:
    stage = Stage(capacity=4, ordered=False)
    async with stage.running():
        await stage.send(1, 2)
        await stage.control(Watermark(5))
        await stage.send(3)
        await stage.service.answer(3, 2)
        assert stage.out.take() == [Records(["2"])]
        await stage.service.answer(1)
        assert stage.out.take() == [Records(["1"]), Watermark(5), Records(["3"])]


async def test_a_watermark_with_nothing_before_it_leaves_at_once() -> None:
    stage = Stage()
    async with stage.running():
        await stage.control(Watermark(5))
        assert stage.out.take() == [Watermark(5)]


async def test_idleness_leaves_behind_the_records_before_it_and_ends_with_the_next() -> None:
    stage = Stage()
    async with stage.running():
        await stage.control(Watermark(5))
        await stage.send(1)
        await stage.control(Idle())
        assert stage.out.take() == [Watermark(5)]
        await stage.service.answer(1)
        assert stage.out.take() == [Records(["1"]), Idle()]
        await stage.send(2)
        assert stage.out.take() == [Watermark(5)]


@pytest.mark.parametrize("ordered", [True, False])
async def test_no_more_calls_than_the_capacity_and_backpressure_beyond(ordered: bool) -> None:
    stage = Stage(capacity=2, ordered=ordered, channel=4)
    async with stage.running():
        await stage.send(*range(4))
        await stage.send(*range(4, 8))
        assert stage.service.under_way == [0, 1]
        # The run that filled it is taken in, the next one waits in the channel.
        assert stage.task.statistics()["queued"] == 8
        assert stage.task.in_flight.size == 4
        await stage.service.answer_all()
        assert in_order(stage.values, ordered) == [str(value) for value in range(8)]
    assert stage.service.most == 2


@pytest.mark.parametrize("ordered", [True, False])
async def test_answers_behind_a_call_that_hangs_do_not_pile_up(ordered: bool) -> None:
    stage = Stage(capacity=3, ordered=ordered)
    async with stage.running():
        await stage.send(0)
        await stage.control(Watermark(1))  # which unordered answers must not pass either
        await stage.send(*range(1, 50))
        while stage.service.under_way != [0]:
            await stage.service.answer(*(set(stage.service.under_way) - {0}))
        assert sorted(stage.service.asked) == [0, 1, 2, 3, 4, 5]
        await stage.service.answer(0)
        assert sorted(stage.service.under_way) == [6, 7, 8]
        await stage.service.answer_all()
        assert in_order(stage.values, ordered) == [str(value) for value in range(50)]


async def test_calls_that_never_wait() -> None:
    async def now(value: int) -> int:
        return -value

    stage = Stage(call=now, capacity=3)
    async with stage.running():
        await stage.send(*range(500))
        assert stage.values == [-value for value in range(500)]


async def test_a_slow_reader_holds_up_calls_too() -> None:
    stage = Stage(capacity=2, room=1)
    async with stage.running():
        await stage.send(*range(20))
        for _ in range(20):
            if not stage.service.under_way:
                break
            await stage.service.answer(*stage.service.under_way)
        # Two results lie in the channel; four are answered and wait, and so do the others.
        assert len(stage.service.asked) < 10
        while stage.out.take():
            await settle()
            await stage.service.answer_all()
        assert stage.values == [str(value) for value in range(20)]


async def test_timers_of_the_chain_ring_while_there_is_no_room() -> None:
    class Alarmed(Operator[Any, Any]):
        def process(self, value: Any, ctx: Context) -> None:
            ctx.timers.register_processing_time(ctx.world.clock.now_ms() + 100)

        def on_timer(self, timestamp: int, ctx: Context) -> None:
            ctx.emit("rang")

    stage = Stage(KeyBy(str), setup("timer", Process(Alarmed), keyed=True), capacity=1)
    async with stage.running():
        await stage.send(0)
        await stage.service.answer(0)
        await stage.send(1, 2, 3)
        stage.letters.clock.advance(100)
        await settle()
        assert stage.values == ["rang"]


async def test_keyed_steps_behind_it() -> None:
    stage = Stage(KeyBy(len), setup("count", Fold(lambda _: 1, lambda count, _: count + 1)))
    async with stage.running():
        await stage.send(1, 2)
        await stage.service.answer_all()
        assert stage.values == [(1, 1), (1, 2)]


# ------------------------------------------------------------------------------------- epochs


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_barrier_waits_for_no_answer_and_what_is_in_flight_is_in_the_snapshot(
    ordered: bool,
) -> None:
    stage = Stage(capacity=2, ordered=ordered)
    async with stage.running():
        await stage.send(1, 2, 3)
        await stage.control(Watermark(7))
        await stage.control(Idle())
        await stage.send(4)
        await stage.service.answer(1)
        stage.out.take()
        await stage.epoch(1)
        assert stage.out.take() == [Barrier(1)]
        assert stage.in_flight(1) == [2, 3, (7,), 4]

        await stage.service.answer_all()
        await stage.epoch(2)
    assert stage.letters.acknowledged == [1, 2]
    assert not holds_calls(stage.letters.parts(2)[0].data)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio runs tasks in no order
async def test_answers_that_are_there_leave_in_front_of_the_barrier(anyio_backend: object) -> None:
    stage = Stage(capacity=2)
    async with stage.running():
        await stage.send(1, 2)
        # The answer is there in the turn in which the barrier is read.
        stage.service.answer_soon(1)
        stage.channels[0].send_control(Barrier(1))
        await settle()
        assert stage.out.take() == [Records(["1"]), Barrier(1)]
        assert stage.in_flight(1) == [2]


async def test_answers_behind_a_watermark_are_asked_for_again() -> None:
    stage = Stage(capacity=2, ordered=False)
    async with stage.running():
        await stage.send(1)
        await stage.control(Watermark(7))
        await stage.send(2)
        await stage.service.answer(2)
        await stage.epoch(1)
    assert stage.in_flight(1) == [1, (7,), 2]


async def test_a_barrier_behind_records_that_have_no_room_waits_for_no_answer() -> None:
    stage = Stage(capacity=1, channel=2)
    async with stage.running(), create_task_group() as group:
        await stage.send(1, 2)
        await stage.send(3, 4)
        group.start_soon(stage.channels[0].send, Records([5]))  # waits for room in the channel
        await settle()
        assert stage.task.in_flight.size == 2

        await stage.epoch(1)
        assert stage.out.take() == [Barrier(1)]
        assert stage.in_flight(1) == [1, 2, 3, 4, 5]

        # Then it is full again, until there is room or the next epoch opens.
        await stage.channels[0].send(Records([6]))
        stage.task.receive(EpochCommitted(1))
        await settle()
        assert stage.task.in_flight.size == 5
        await stage.service.answer_all()
        assert stage.values == ["1", "2", "3", "4", "5", "6"]
    assert stage.service.most == 1


async def test_while_answers_come_a_barrier_waits_for_them_and_nothing_piles_up() -> None:
    stage = Stage(capacity=1, adapts=True)
    async with stage.running(), create_task_group() as group:
        group.start_soon(stage.channels[0].send, Records([*range(500)]))
        await settle()
        for epoch in (1, 2, 3):
            stage.task.receive(OpenEpoch(epoch))
            await settle()
            for _ in range(20):
                stage.letters.clock.advance(PATIENCE_MS - 1)
                await stage.service.answer(*stage.service.under_way)
            assert stage.task.in_flight.size <= 4
        group.cancel_scope.cancel()


async def test_what_is_only_taken_in_does_not_look_quick() -> None:
    stage = Stage(capacity=1, adapts=True)
    async with stage.running(), create_task_group() as group:
        group.start_soon(stage.channels[0].send, Records([*range(500)]))
        await settle()
        for _ in range(20):
            stage.letters.clock.advance(10)
            await stage.service.answer(*stage.service.under_way)
        assert stage.channels[0].capacity == 2

        stage.task.receive(OpenEpoch(1))
        await settle()
        stage.letters.clock.advance(PATIENCE_MS)
        await settle()
        assert stage.task.in_flight.size > 400
        await stage.control(Barrier(1))
        assert stage.channels[0].capacity == 2
        group.cancel_scope.cancel()


async def test_memory_is_bounded_first_and_the_snapshot_waits_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(async_task, "MOST_WAITING", 6)
    stage = Stage(capacity=1, channel=3)
    async with stage.running():
        for epoch in (1, 2):
            await stage.send(*range(epoch * 10, epoch * 10 + 3))
            await stage.epoch(epoch)
        assert stage.letters.acknowledged == [1, 2]
        assert stage.task.in_flight.size == 6
        await stage.send(30, 31, 32)
        await stage.epoch(3)
        assert stage.letters.acknowledged == [1, 2]
        await stage.service.answer(10)
        await stage.service.answer(11)
        assert stage.letters.acknowledged == [1, 2]
        await stage.service.answer(12)
        stage.letters.clock.advance(PATIENCE_MS)
        await settle()
        assert stage.letters.acknowledged == [1, 2, 3]
        assert stage.in_flight(3) == [20, 21, 22, 30, 31, 32]


async def test_inputs_are_aligned_before_the_cut() -> None:
    stage = Stage(inputs=2, capacity=4)
    async with stage.running():
        stage.task.receive(OpenEpoch(1))
        await stage.send("before", index=0)
        await stage.control(Barrier(1), index=0)
        await stage.send("after", index=0)
        await stage.send("also before", index=1)
        await stage.control(Barrier(1), index=1)
        assert stage.in_flight(1) == ["before", "also before"]
        assert stage.service.under_way == ["before", "also before", "after"]


@pytest.mark.parametrize("ordered", [True, False])
async def test_calls_in_flight_are_made_again_after_a_restore(ordered: bool) -> None:
    before = Stage(capacity=3, ordered=ordered)
    async with before.running():
        await before.send(1, 2, at=[10, None])
        await before.control(Watermark(7))
        await before.send(3, 4, 5, at=[30, 40, 50])
        await before.epoch(1)

    stage = Stage(capacity=2, ordered=ordered, restored=before.restored(1))
    async with stage.running():
        assert sorted(stage.service.under_way) == [1, 2]
        await stage.send(6)
        await stage.epoch(2)
        assert stage.in_flight(2) == [1, 2, (7,), 3, 4, 5, 6]
        await stage.service.answer_all()
    story = [element for element in stage.out.all() if not isinstance(element, Barrier)]
    mark = story.index(Watermark(7))
    before_it = [pair for run in story[:mark] for pair in pairs(run)]
    assert in_order(before_it, ordered) == [("1", 10), ("2", None)]
    values = [value for run in story[mark + 1 :] for value, _ in pairs(run)]
    assert in_order(values, ordered) == ["3", "4", "5", "6"]


async def test_a_record_is_encoded_for_the_first_snapshot_only() -> None:
    row = {"id": 1}
    stage = Stage(call=lambda _: anyio.sleep_forever())
    async with stage.running():
        await stage.send(row)
        await stage.epoch(1)
        row["id"] = 2  # what it must not do
        await stage.epoch(2)
    assert stage.in_flight(1) == stage.in_flight(2) == [{"id": 1}]


async def test_a_final_barrier_waits_for_all_answers() -> None:
    stage = Stage(capacity=2)
    async with stage.running():
        await stage.send(1, 2, 3)
        await stage.control(Watermark(MAX_TIMESTAMP))
        await stage.end()
        assert stage.out.take() == []
        assert stage.letters.acknowledged == []
        await stage.service.answer_all()
        assert stage.done
    assert stage.out.values == []
    *runs, end_of_time, barrier, end = stage.out.all()
    assert [value for run in runs if isinstance(run, Records) for value in run.values] == [
        *("1", "2", "3")
    ]
    assert [end_of_time, barrier, end] == [Watermark(MAX_TIMESTAMP), LAST, EndOfStream()]
    assert not holds_calls(stage.letters.parts(9)[0].data)


async def test_cancelling_waits_for_no_answer() -> None:
    stage = Stage()
    async with stage.running():
        await stage.send(1, 2)
        await stage.end()
    assert stage.service.under_way == []
    assert not stage.done
    assert EndOfStream() not in stage.out.all()


# ----------------------------------------------------------------------------------- failures


async def failing(stage: Stage, *values: Any) -> BaseException:
    """Send values whose calls fail; return the one error."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with stage.running():
            await stage.send(*values)
            await stage.service.answer(*stage.service.under_way)
            await stage.send(*values)
    return single(caught.value)


async def test_a_call_that_raises_names_the_operator_and_the_record() -> None:
    wrong = ValueError("no such city")
    error = await failing(Stage(kept=False), wrong)

    assert isinstance(error, OperatorError)
    assert (error.operator, error.value, error.__cause__) == ("ask", wrong, wrong)
    assert "raised ValueError: no such city at the record" in str(error)


async def test_an_error_of_ours_comes_as_it_is() -> None:
    ours = FlowrtError("out of tokens")

    assert await failing(Stage(kept=False), ours) is ours


async def test_a_call_that_raises_while_results_wait_for_room() -> None:
    stage = Stage(capacity=2, room=1, kept=False)
    wrong = ValueError("late")
    with pytest.raises(BaseExceptionGroup) as caught:
        async with stage.running():
            await stage.send(1, 2, wrong)
            await stage.service.answer(1)
            await stage.service.answer(2)
            await stage.service.answer(wrong)
    error = single(caught.value)
    assert isinstance(error, OperatorError)
    assert error.__cause__ is wrong


async def test_a_function_that_gives_nothing_to_await() -> None:
    stage = Stage(call=lambda value: value)
    error = await failing(stage, 1)

    assert isinstance(error, OperatorError)
    assert isinstance(error.__cause__, TypeError)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_call_that_was_cancelled_by_another_fails(anyio_backend: object) -> None:
    async def torn_down(value: Any) -> Any:
        answer = asyncio.get_running_loop().create_future()
        answer.cancel()
        return await answer

    error = await failing(Stage(call=torn_down), 1)

    assert isinstance(error, OperatorError)
    assert "raised CancelledError" in str(error)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_that_user_code_cancels_after_its_call_is_no_silent_end(
    anyio_backend: object,
) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def leaked(value: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        return value

    stage = Stage(call=leaked)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with stage.running():
            await stage.send(1)
            tasks[0].cancel()
            await settle()
    assert "was cancelled from outside" in str(single(caught.value))
    assert EndOfStream() not in stage.out.all()


async def test_a_value_that_no_snapshot_can_hold_is_refused_when_it_comes() -> None:
    error = await failing(Stage(), 1, object())

    assert isinstance(error, StateError)
    assert "operator 'ask', a record in flight" in str(error)


async def test_where_nothing_is_kept_any_value_will_do() -> None:
    stage = Stage(kept=False)
    thing = object()
    async with stage.running():
        await stage.send(thing)
        await stage.epoch(1)
        await stage.service.answer(thing)
    assert stage.values == [str(thing)]
    assert [part.data for part in stage.letters.parts(1)] == [None]


# --------------------------------------------------------------------------------- rescaling


def entry(value: Any, key: Hashable | None = None) -> list[Any]:
    return [CODEC.encode(value), None, None if key is None else key_group(key)]


async def parts_of(*subtasks: list[Any]) -> list[Any]:
    """The parts that subtasks leave with these entries in flight."""
    parts = []
    for entries in subtasks:
        stage = Stage(capacity=1, restored=entries)
        async with stage.running():
            await stage.epoch(1)
        parts.append(stage.letters.parts(1)[0].data)
    return parts


async def test_at_the_same_parallelism_each_takes_its_own() -> None:
    entries = [entry(1, "a"), 7, entry(2)]
    parts = await parts_of(entries, [], [entry(3)])

    assert share_of(parts, 0, 3) == entries
    assert [shown(share_of(parts, subtask, 3)) for subtask in range(3)] == [[1, (7,), 2], [], [3]]


@pytest.mark.parametrize("parallelism", [1, 2, 5])
async def test_at_another_each_record_is_taken_once_and_watermarks_come_anew(
    parallelism: int,
) -> None:
    parts = await parts_of([entry(1), 7, entry(2)], [entry(3), 5], [entry(4)])

    shares = [shown(share_of(parts, subtask, parallelism)) for subtask in range(parallelism)]

    assert sorted(value for share in shares for value in share) == [1, 2, 3, 4]
    assert max(map(len, shares)) <= -(-4 // parallelism)
    assert all(share == sorted(share) for share in shares)


@pytest.mark.parametrize("parallelism", [1, 3])
async def test_records_with_keys_go_to_the_owner_of_their_key(parallelism: int) -> None:
    keys: list[Hashable] = [None, "a", "b", "c", "d"]
    parts = []
    for subtask in range(2):
        mine = [k for k in keys if owner_of_group(key_group(k), 2) == subtask]
        stage = Stage(capacity=1)
        async with stage.running():
            values = [f"{key} {number}" for number in range(2) for key in mine]
            await stage.channels[0].send(Records(values, None, mine * 2))
            await stage.epoch(1)
        parts.append(stage.letters.parts(1)[0].data)

    for subtask in range(parallelism):
        share = shown(share_of(parts, subtask, parallelism))
        for key in keys:
            owned = owner_of_group(key_group(key), parallelism) == subtask
            numbers = [text for text in share if text.split()[0] == str(key)]
            assert numbers == ([f"{key} 0", f"{key} 1"] if owned else [])
    assert parallelism < KEY_GROUPS
