"""Results for the service that the flow runs in: `async for value in job.output("name")`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar
from weakref import ref

import anyio

from flowrt.contract.errors import ConfigError
from flowrt.contract.logs import flow_log
from flowrt.contract.plural import plural
from flowrt.contract.sink import Committable, Sink, SinkContext, Writer

T = TypeVar("T")

Policy: TypeAlias = Literal["wait", "drop_oldest", "drop_newest", "latest"]
"""What happens to values for which an iterator has no room."""

When: TypeAlias = Literal["at_once", "committed"]
"""When values reach the iterators."""

POLICIES: Final = ("wait", "drop_oldest", "drop_newest", "latest")
CAPACITY: Final = 1_000

log = flow_log()


class JobOutput(Sink[T]):
    """An output of a job; `Stream.output` makes it, and `Job.output` iterates over it.

    Each iterator gets every value that comes while it is there, from a buffer of its own, and holds
    `capacity` of them. While nobody iterates values wait for the next one to do so, under the same
    rules. What an iterator has no room for:

    - "wait": the flow waits, back to the sources, until it has taken some. Also while nobody
      iterates. Once the job drains nobody is waited for, and what is still on its way is kept.
    - "drop_oldest", "drop_newest": the oldest, or the newest, values are dropped and counted.
    - "latest": only the newest value is kept.

    With `when="at_once"` values come as they are made: at least once, for after a restart those
    since the last epoch come again. With "committed" they come when their epoch is committed, each
    once for as long as the process lives; an epoch's values are held in memory until then.
    """

    def __init__(
        self,
        name: str,
        *,
        capacity: int | None = None,
        policy: Policy = "wait",
        when: When = "at_once",
    ) -> None:
        self.name = name
        self.kind = "direct" if when == "at_once" else "repeatable"
        self.dropped = 0
        """How many values iterators lost, all together, since the job started."""
        self._capacity = _checked_capacity(name, capacity, policy, when)
        self._policy = policy
        self._readers: dict[ref[OutputIterator[T]], _Buffer] = {}
        self._unclaimed = _Buffer()
        self._room: anyio.Event | None = None
        self._is_running = False
        self._is_draining = False
        self._has_no_reader = False
        self._error: BaseException | None = None
        self._warned = False
        self._shown = 0
        self._held: dict[int, dict[int, list[T]]] = {}

    def describe(self) -> str:
        """Return when values come, and what happens to those without room."""
        when = "at once" if self.kind == "direct" else "by epochs"
        room = f"{self._capacity} {plural(self._capacity, 'value')}"
        return f"output of the job ({when}; {self._policy}, {room})"

    # ------------------------------------------------------------------ the job

    def begin(self) -> None:
        """Belong to a job that starts; `ConfigError` where another one runs."""
        if self._is_running:
            raise ConfigError(
                f"output {self.name!r} belongs to a job that runs: for a second one build the flow "
                "anew"
            )
        self._is_running, self._is_draining, self._has_no_reader = True, False, False
        self._unclaimed, self.dropped, self._warned = _Buffer(), 0, False
        self._readers.clear()  # of a former job: they have ended
        self._shown = 0
        self._held.clear()

    def iterate(self) -> OutputIterator[T]:
        """Return an iterator that gets every value from now on, the first also those that wait."""
        buffer = _Buffer()
        if not self._is_running:
            buffer.end(self._error)
        if not self._readers:
            buffer, self._unclaimed = self._unclaimed, buffer
        iterator = OutputIterator(self, buffer)
        # An iterator that was left by `break` is never told of it: it only goes away.
        self._readers[ref(iterator, self._gone)] = buffer
        return iterator

    def discard(self) -> None:
        """Drop all values: nobody can iterate."""
        self._has_no_reader = True
        self._wake_writers()

    def drain(self) -> None:
        """Wait for nobody any more."""
        self._is_draining = True
        self._wake_writers()

    def end(self, error: BaseException | None) -> None:
        """Let iterators end once they have taken what there is, or raise the job's error."""
        self._is_running = False
        self._error = error
        for buffer in {self._unclaimed, *self._readers.values()}:
            buffer.end(error)

    # ------------------------------------------------------------------ iterators

    def took_from(self, buffer: _Buffer) -> None:
        """Hear that a value was taken."""
        # Not for each value: the writer would be woken as often.
        if len(buffer.values) <= self._capacity // 2:
            self._wake_writers()

    def leave(self, iterator: OutputIterator[T]) -> None:
        """Forget an iterator; what it has not taken waits for the next where it was the last."""
        for reader in [reader for reader in self._readers if reader() is iterator]:
            self._gone(reader)

    def _gone(self, reader: ref[OutputIterator[T]]) -> None:
        buffer = self._readers.pop(reader, None)
        if buffer is not None and not self._readers:
            self._unclaimed = buffer
        self._wake_writers()

    def _wake_writers(self) -> None:
        if self._room is not None:
            self._room.set()

    def _buffers(self) -> list[_Buffer]:
        return list(self._readers.values()) or [self._unclaimed]

    # ------------------------------------------------------------------ the flow

    async def recover(
        self, epoch: int | None, committables: Sequence[Committable], ctx: SinkContext
    ) -> None:
        """See `Sink.recover`: show what an earlier attempt of this job held for that epoch."""
        held = self._held.get(epoch or 0, {})
        self._held.clear()
        self._shown = min(self._shown, epoch or 0)
        if epoch is not None:
            self._held[epoch] = held
            await self.commit(epoch, committables)

    async def writer(self, ctx: SinkContext, prepared: Sequence[Committable]) -> Writer[T]:
        """Return a writer for one subtask."""
        return _OutputWriter(self, ctx.subtask)

    async def commit(self, epoch: int, committables: Sequence[Committable]) -> None:
        """See `Sink.commit`: the epoch's values are shown."""
        held = self._held.pop(epoch, {})
        if epoch <= self._shown:
            return
        for subtask in sorted(held):
            self.show(held[subtask])
        self._shown = epoch

    async def room(self) -> int | None:
        """Wait until each iterator has room; return for how many values, None for any number."""
        while self._policy == "wait" and not (self._is_draining or self._has_no_reader):
            room = self._capacity - max(len(buffer.values) for buffer in self._buffers())
            if room > 0:
                return room
            self._warn_of_nobody()
            if self._room is None or self._room.is_set():
                self._room = anyio.Event()
            await self._room.wait()
        return None

    def show(self, values: Sequence[T]) -> None:
        """Give values to each iterator, or drop some as the policy says."""
        if self._has_no_reader:
            self.dropped += len(values)
            return
        for buffer in self._buffers():
            self.dropped += buffer.add(values, self._policy, self._capacity)

    def hold(self, epoch: int, subtask: int, values: list[T]) -> None:
        """Keep the values of an epoch until it is committed."""
        self._held.setdefault(epoch, {})[subtask] = values

    def _warn_of_nobody(self) -> None:
        if not self._readers and not self._warned:
            self._warned = True
            log.warning(
                "output %r is full and the flow waits: iterate over job.output(%r), or declare it "
                "with a policy that drops",
                self.name,
                self.name,
                extra={"operator": self.name},
            )


class OutputIterator(Generic[T]):
    """The values of a job's output, until the job ends; made by `Job.output`.

    Raises what the job failed with, behind the last value. Leaving it (by `break`, or `aclose`)
    ends what is kept for it.
    """

    def __init__(self, output: JobOutput[T], buffer: _Buffer) -> None:
        self._output = output
        self._buffer = buffer
        self._is_closed = False

    def __aiter__(self) -> OutputIterator[T]:
        return self

    async def __anext__(self) -> T:
        buffer = self._buffer
        while not self._is_closed and not buffer.values:
            if buffer.ended:
                if buffer.error is not None:
                    raise buffer.error
                raise StopAsyncIteration
            await buffer.wait()
        if self._is_closed:
            raise StopAsyncIteration
        value: T = buffer.values.popleft()
        self._output.took_from(buffer)
        return value

    async def aclose(self) -> None:
        """End the iteration."""
        self._is_closed = True
        self._output.leave(self)
        self._buffer.wake()


class _Buffer:
    """What waits for one iterator."""

    __slots__ = ("_arrived", "ended", "error", "values")

    def __init__(self) -> None:
        self.values: deque[Any] = deque()
        self._arrived: anyio.Event | None = None
        self.ended = False
        self.error: BaseException | None = None

    def add(self, values: Sequence[Any], policy: Policy, capacity: int) -> int:
        """Take values; return how many are lost."""
        lost = 0
        if policy == "drop_newest":
            lost = max(len(self.values) + len(values) - capacity, 0)
            values = values[: len(values) - lost]
        self.values.extend(values)
        if policy in ("drop_oldest", "latest"):
            lost = max(len(self.values) - capacity, 0)
            for _ in range(lost):
                self.values.popleft()
        self.wake()
        return lost

    async def wait(self) -> None:
        """Wait until the iterator is woken."""
        if self._arrived is None or self._arrived.is_set():
            self._arrived = anyio.Event()
        await self._arrived.wait()

    def wake(self) -> None:
        """Let the iterator look again."""
        if self._arrived is not None:
            self._arrived.set()

    def end(self, error: BaseException | None) -> None:
        """Let the iterator end behind what is here."""
        self.ended, self.error = True, error
        self.wake()


class _OutputWriter(Generic[T]):
    """Writes for one subtask: to the iterators, or to what is held for the epoch."""

    def __init__(self, output: JobOutput[T], subtask: int) -> None:
        self._output = output
        self._subtask = subtask
        self._epoch: list[T] = []

    async def write(self, values: Sequence[T], timestamps: Sequence[int | None] | None) -> None:
        written = 0
        while written < len(values):
            room = await self._output.room()
            if self._output.kind != "direct":
                # Held, not shown: an epoch that is larger than the buffer must come to its end.
                self._epoch += values
                return
            part = values[written:] if room is None else values[written : written + room]
            self._output.show(part)
            written += len(part)

    async def prepare(self, epoch: int, final: bool = False) -> Committable | None:
        if self._output.kind == "direct":
            return None
        values, self._epoch = self._epoch, []
        self._output.hold(epoch, self._subtask, values)
        return {"values": len(values)}

    async def close(self) -> None:
        return None


def _checked_capacity(name: str, capacity: int | None, policy: str, when: str) -> int:
    what = f"output {name!r}"
    if policy not in POLICIES:
        raise ConfigError(f"{what} has policy={policy!r}: choose one of {', '.join(POLICIES)}")
    if when not in ("at_once", "committed"):
        raise ConfigError(f"{what} has when={when!r}: choose 'at_once' or 'committed'")
    if policy == "latest":
        if capacity not in (None, 1):
            raise ConfigError(f"{what}: 'latest' keeps one value, so it takes no capacity")
        return 1
    if capacity is not None and capacity < 1:
        raise ConfigError(f"{what} has capacity={capacity!r}: it is in values, at least 1")
    return CAPACITY if capacity is None else capacity
