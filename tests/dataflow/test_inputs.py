"""Alignment, the minimum of watermarks, and the channels of a task."""

from __future__ import annotations

import pytest

from flowrt.contract.elements import MIN_TIMESTAMP, Barrier, EndOfStream, Records, Watermark
from flowrt.dataflow.channels.channel import Channel
from flowrt.dataflow.channels.inputs import Alignment, Inputs, WatermarkMinimum
from flowrt.dataflow.channels.parking import parking_spot


def test_a_barrier_is_complete_when_every_input_delivered_it() -> None:
    alignment = Alignment(3, blocking=True)
    assert not alignment.deliver(1, 5)
    seen = [alignment.epoch, alignment.deliver(0, 5), alignment.deliver(2, 5), alignment.epoch]
    assert seen == [5, False, True, None]
    assert not alignment.deliver(0, 6)


def test_with_one_input_every_barrier_is_complete() -> None:
    alignment = Alignment(1, blocking=True)
    assert alignment.deliver(0, 1)
    assert alignment.deliver(0, 2)
    assert not alignment.blocked(0)


def test_an_input_that_delivered_is_blocked_until_all_have() -> None:
    alignment = Alignment(2, blocking=True)
    alignment.deliver(0, 1)
    assert (alignment.blocked(0), alignment.blocked(1)) == (True, False)
    alignment.deliver(1, 1)
    assert (alignment.blocked(0), alignment.blocked(1)) == (False, False)


def test_at_least_once_blocks_nobody() -> None:
    alignment = Alignment(2, blocking=False)
    alignment.deliver(0, 1)
    assert not alignment.blocked(0)


@pytest.mark.parametrize(("index", "epoch"), [(0, 1), (1, 2)])
def test_a_barrier_that_cannot_be_is_a_bug(index: int, epoch: int) -> None:
    alignment = Alignment(2, blocking=True)
    alignment.deliver(0, 1)
    with pytest.raises(AssertionError, match=f"barrier {epoch} from input {index}"):
        alignment.deliver(index, epoch)


def test_the_minimum_grows_when_the_last_input_grew() -> None:
    minimum = WatermarkMinimum(2)
    assert minimum.advance(0, 10) is None
    assert minimum.advance(1, 5) == 5
    assert minimum.advance(1, 5) is None
    assert minimum.advance(1, 30) == 10
    assert minimum.current == 10


def test_a_watermark_that_goes_back_changes_nothing() -> None:
    minimum = WatermarkMinimum(1)
    assert minimum.advance(0, 10) == 10
    assert minimum.advance(0, 5) is None
    assert minimum.advance(0, 11) == 11


def test_a_restored_watermark_is_not_told_again() -> None:
    minimum = WatermarkMinimum(1, current=10)
    assert minimum.advance(0, 7) is None
    assert minimum.advance(0, 12) == 12


def test_an_idle_input_is_left_out_until_it_sends_something() -> None:
    minimum = WatermarkMinimum(2)
    minimum.advance(0, 10)
    assert minimum.rest(1) == 10
    assert not minimum.idle
    assert minimum.advance(0, 20) == 20
    assert not minimum.wake(1)
    assert minimum.advance(0, 30) is None
    assert minimum.advance(1, 25) == 25


def test_when_all_are_idle_none_holds_up_another() -> None:
    for order in ((0, 1), (1, 0)):
        minimum = WatermarkMinimum(2)
        minimum.advance(0, 10)
        minimum.advance(1, 20)
        for index in order:
            minimum.rest(index)
        assert (minimum.idle, minimum.current) == (True, 20)


def test_the_first_to_wake_is_told_with_the_watermark_as_it_was() -> None:
    minimum = WatermarkMinimum(2)
    minimum.rest(0)
    minimum.rest(1)
    assert minimum.advance(0, MIN_TIMESTAMP) == MIN_TIMESTAMP
    assert minimum.advance(1, MIN_TIMESTAMP) is None
    minimum.rest(0)
    minimum.rest(1)
    assert minimum.wake(1)
    assert not minimum.wake(0)


@pytest.mark.anyio
class TestInputs:
    async def test_all_that_may_be_read_is_taken_by_channel(self) -> None:
        inputs, (left, _, right) = self.make(3)
        await left.send(Records([1]))
        await right.send(Records([2]))
        right.send_control(Watermark(1))

        assert inputs.take() == [(0, [Records([1])]), (2, [Records([2]), Watermark(1)])]
        assert inputs.take() == []

    async def test_a_blocked_channel_is_left_alone(self) -> None:
        inputs, (left, right) = self.make(2)
        left.send_control(Barrier(1))
        await left.send(Records([1]))
        await right.send(Records([2]))

        assert inputs.take() == [(0, [Barrier(1)]), (1, [Records([2])])]
        inputs.alignment.deliver(0, 1)
        assert inputs.take() == []
        inputs.alignment.deliver(1, 1)
        assert inputs.take() == [(0, [Records([1])])]

    async def test_it_knows_which_end_is_the_last(self) -> None:
        inputs, (left, right) = self.make(2)
        for channel in (left, right):
            channel.send_control(EndOfStream())
        assert [inputs.end(), inputs.end()] == [False, True]

    @staticmethod
    def make(count: int) -> tuple[Inputs, list[Channel]]:
        spot = parking_spot()
        channels = [Channel(10, spot) for _ in range(count)]
        return Inputs(channels, blocking=True), channels
