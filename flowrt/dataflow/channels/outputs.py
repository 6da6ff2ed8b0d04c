"""What a task sends: each output's records to all that read it, spread over their subtasks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Literal, Protocol

from flowrt.contract.elements import Element, Idle, Records, Watermark
from flowrt.contract.state import KEY_GROUPS, owner_of_group
from flowrt.dataflow.channels.channel import Channel

KeyGroup = Callable[[Hashable], int]
Spread = Literal["forward", "hash", "rebalance", "broadcast"]


class Partitioner(Protocol):
    """Sends runs of records to the subtasks of one reader."""

    @property
    def channels(self) -> Sequence[Channel]:
        """All channels, for control elements."""
        ...

    async def send(self, records: Records) -> None:
        """Give a run away; waits while there is no room."""
        ...


class Forward:
    """Everything to one channel."""

    def __init__(self, channel: Channel) -> None:
        self.channels = (channel,)
        self.send = channel.send


class Rebalance:
    """Each record to the next channel in turn; a run is dealt out in even shares."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self.channels = tuple(channels)
        self._next = 0

    async def send(self, records: Records) -> None:
        """See `Partitioner.send`."""
        count, step = len(records.values), len(self.channels)
        first, self._next = self._next, (self._next + count) % step
        if count == 1:
            await self.channels[first].send(records)
            return
        for turn in range(min(count, step)):
            await self.channels[(first + turn) % step].send(records.part(slice(turn, None, step)))


class Broadcast:
    """Every run to every channel."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self.channels = tuple(channels)

    async def send(self, records: Records) -> None:
        """See `Partitioner.send`."""
        for channel in self.channels[1:]:
            await channel.send(records.part(slice(None)))
        await self.channels[0].send(records)


class Hash:
    """Each record to the channel that owns its key's group."""

    def __init__(self, channels: Sequence[Channel], key_group: KeyGroup) -> None:
        self.channels = tuple(channels)
        self._key_group = key_group
        parallelism = len(channels)
        self._owner = [owner_of_group(group, parallelism) for group in range(KEY_GROUPS)]

    async def send(self, records: Records) -> None:
        """See `Partitioner.send`."""
        assert records.keys is not None
        owner, key_group = self._owner, self._key_group
        chosen: list[list[int]] = [[] for _ in self.channels]
        for index, key in enumerate(records.keys):
            chosen[owner[key_group(key)]].append(index)
        for channel, indexes in zip(self.channels, chosen, strict=True):
            if indexes:
                await channel.send(pick(records, indexes))


def pick(records: Records, chosen: list[int]) -> Records:
    """Return some of a run's records, by their places."""
    values, timestamps, keys = records.values, records.timestamps, records.keys
    return Records(
        [values[i] for i in chosen],
        None if timestamps is None else [timestamps[i] for i in chosen],
        None if keys is None else [keys[i] for i in chosen],
    )


def partitioner(spread: Spread, channels: Sequence[Channel], key_group: KeyGroup) -> Partitioner:
    """Return the partitioner for one reader of an output."""
    if len(channels) == 1:
        return Forward(channels[0])
    if spread == "hash":
        return Hash(channels, key_group)
    if spread == "broadcast":
        return Broadcast(channels)
    return Rebalance(channels)


class Outputs:
    """All outputs of a task: the main one, and side outputs by operator and tag."""

    def __init__(
        self,
        main: Sequence[Partitioner],
        sides: Mapping[tuple[str, str], Sequence[Partitioner]] | None = None,
    ) -> None:
        self._sides = sides or {}
        every = [*main, *(reader for readers in self._sides.values() for reader in readers)]
        self.channels = [channel for reader in every for channel in reader.channels]
        self.main_records = 0
        self.side_records: dict[str, int] = {}
        """How many records went to side outputs, by operator."""
        self._send_main = main[0].send if len(main) == 1 else partial(_fan_out, main)

    async def emit(self, records: Records) -> None:
        """See `Downstream.emit`."""
        self.main_records += len(records.values)
        await self._send_main(records)

    async def emit_side(self, operator: str, tag: str, records: Records) -> None:
        """See `Downstream.emit_side`."""
        sent = self.side_records.get(operator, 0)
        self.side_records[operator] = sent + len(records.values)
        await _fan_out(self._sides[operator, tag], records)

    def watermark(self, timestamp: int) -> None:
        """See `Downstream.watermark`."""
        self.broadcast(Watermark(timestamp))

    def idle(self) -> None:
        """See `Downstream.idle`."""
        self.broadcast(Idle())

    def broadcast(self, element: Element) -> None:
        """Send a control element to every reader of every output."""
        for channel in self.channels:
            channel.send_control(element)

    @property
    def records(self) -> int:
        """How many records were sent, to all outputs."""
        return self.main_records + sum(list(self.side_records.values()))

    def blocked_ns(self) -> int:
        """Return how long the task waited for room in the channels."""
        return sum(channel.blocked_ns() for channel in self.channels)


async def _fan_out(readers: Sequence[Partitioner], records: Records) -> None:
    # A receiver may change the lists of a run that it was given: each reader gets lists of its own.
    for reader in readers[1:]:
        await reader.send(records.part(slice(None)))
    if readers:
        await readers[0].send(records)
