"""Live state: what a flow keeps for its keys, read from inside the service that runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from flowrt.checkpoint.names import Made
from flowrt.checkpoint.reading import CheckpointReader, newest, reading
from flowrt.checkpoint.store import DirectoryStore
from flowrt.contract.elements import MIN_TIMESTAMP
from flowrt.contract.errors import CheckpointError, ConfigError, StateError
from flowrt.contract.snapshot import MISSING, Block
from flowrt.contract.state import KEY_GROUPS, StateSpec, owner_of_group
from flowrt.runtime.callers import Callers
from flowrt.runtime.readable_states import ReadableStates
from flowrt.state.key_groups import key_group
from flowrt.state.memory import MemoryBackend
from flowrt.state.views import StateView, in_pieces, of_key

K = TypeVar("K")
V = TypeVar("V")

AsOf: TypeAlias = Literal["now", "committed"]

WrittenAs: TypeAlias = Sequence[tuple[range, Mapping[str, Any]]]
"""The shapes of an operator's states, by key groups."""

TURN: Final = 256
"""The event loop gets a turn after so many keys of a scan."""


class LiveState(Generic[K, V]):
    """Reads what one operator of a running job keeps for its keys; made by `Job.state`.

    A value state gives its value, a list state a list, a map state a dict, a reducing state the
    folded value, an aggregating state and the running figures their result. What is returned is the
    caller's own: nothing can be changed from here. Keys that are equal are one key, as in a dict.

    `as_of="now"` reads the memory of the running operator: what is there may still be taken back by
    a crash, and a coroutine operator may be in the middle of a record. While the job restarts it
    waits for the next attempt. `as_of="committed"` reads the checkpoint folder as of the last
    committed epoch, beside the stream, keeping nothing in memory; it works on after the job's end.
    """

    def __init__(self, job: LiveStates, operator: str, state: StateSpec[Any] | str | None) -> None:
        self._job = job
        self._operator = operator
        self._state = state

    async def get(self, key: K, default: V | None = None, *, as_of: AsOf = "now") -> V | None:
        """Return what a key has; `default` where it has nothing, whatever the state's own is.

        `StateError` for what can be no key, and with "now" once the job has ended. With "committed"
        `ConfigError` without a checkpoint folder, `CheckpointError` where that cannot be read, or
        has the last committed epoch no more.
        """
        _check(as_of)
        self._job.callers.check_loop("state(...).get")
        group = key_group(key)
        await checkpoint()
        get = self._get_now if as_of == "now" else self._get_committed
        value = await get(key, group)
        return default if value is MISSING else value

    async def scan(
        self, *, as_of: AsOf = "now", limit: int | None = None
    ) -> AsyncIterator[tuple[K, V]]:
        """Iterate over keys and what they have, in no order; `limit` pairs at most.

        With "committed" all of it is one consistent cut. With "now" it is none, for records go on
        meanwhile: each value is right when it is given, and a key that is there all the time comes
        exactly once. Where the job restarts meanwhile, the iteration ends with `StateError`. The
        event loop gets its turns. `ConfigError` for a limit below 0; other errors are those of
        `get`.
        """
        _check(as_of)
        if limit is not None and limit < 0:
            raise ConfigError(f"limit={limit!r}: it is a number of pairs, 0 or more, or None")
        self._job.callers.check_loop("state(...).scan")
        left = limit
        pairs = self._scan_now() if as_of == "now" else self._scan_committed()
        async with aclosing(pairs):
            if left == 0:
                return
            async for pair in pairs:
                yield pair
                if left is not None:
                    left -= 1
                    if left <= 0:
                        return

    # ------------------------------------------------------------------ now

    async def _get_now(self, key: Any, group: int) -> Any:
        backends = await self._job.backends(self._operator)
        backend = backends[owner_of_group(group, len(backends))]
        spec = self._job.spec(self._operator, self._state)
        view = backend.view(spec)
        if view is not None:
            return view.get(key)
        # Restored, and not used since: a function declares its state with its first record.
        blocks = [block for block in backend.waiting(spec.name) if block.group == group]
        return await self._of_key(blocks, key, spec, self._present(spec))

    async def _scan_now(self) -> AsyncGenerator[tuple[Any, Any]]:
        backends = await self._job.backends(self._operator)
        spec = self._job.spec(self._operator, self._state)
        for backend in backends:
            view = backend.view(spec)
            if view is None:
                view = await self._loaded(backend.waiting(spec.name), spec, self._present(spec))
            async with aclosing(_pairs(view)) as pairs:
                async for pair in pairs:
                    self._job.check_is_current(self._operator, backends)
                    yield pair
            self._job.check_is_current(self._operator, backends)

    # ------------------------------------------------------------------ as of the last epoch

    async def _get_committed(self, key: Any, group: int) -> Any:
        spec = self._job.spec(self._operator, self._state)
        store = self._job.store()
        chosen = await self._last(store)
        while chosen is not None:
            try:
                async with reading(store, chosen) as reader:
                    blocks = await reader.blocks(self._operator, spec.name, group)
                    now_ms = self._present(spec, reader.watermark(self._operator))
                    shapes = reader.shapes(self._operator)
                    return await self._of_key(blocks, key, spec, now_ms, shapes)
            except CheckpointError:
                # The job deletes old checkpoints as it goes on: then there is a newer one.
                before, chosen = chosen, await self._last(store)
                if chosen == before:
                    raise
        return MISSING

    async def _scan_committed(self) -> AsyncGenerator[tuple[Any, Any]]:
        spec = self._job.spec(self._operator, self._state)
        store = self._job.store()
        chosen = await self._last(store)
        is_begun = False
        while chosen is not None:
            try:
                async with (
                    reading(store, chosen) as reader,
                    aclosing(self._all_groups(reader, spec)) as pairs,
                ):
                    async for pair in pairs:
                        is_begun = True
                        yield pair
                return
            except CheckpointError:
                before, chosen = chosen, await self._last(store)
                if is_begun or chosen == before:
                    raise

    async def _last(self, store: DirectoryStore) -> Made | None:
        """Return the checkpoint of the last committed epoch; None before the first."""
        while (epoch := self._job.committed()) is not None:
            found = await newest(store, epoch)
            if found is not None and found.epoch == epoch:
                return found
            # Where the job has gone on meanwhile, it may have deleted this one already.
            if self._job.committed() == epoch:
                raise CheckpointError(
                    f"the checkpoint of epoch {epoch} is not in {store.folder} any more: was the "
                    "folder deleted or moved, or did another job go on in it?"
                )
        return None

    async def _all_groups(
        self, reader: CheckpointReader, spec: StateSpec[Any]
    ) -> AsyncGenerator[tuple[Any, Any]]:
        now_ms = self._present(spec, reader.watermark(self._operator))
        for group in range(KEY_GROUPS):
            blocks = await reader.blocks(self._operator, spec.name, group)
            view = await self._loaded(blocks, spec, now_ms, reader.shapes(self._operator))
            async with aclosing(_pairs(view)) as pairs:
                async for pair in pairs:
                    yield pair

    # ------------------------------------------------------------------ out of blocks

    def _present(self, spec: StateSpec[Any], watermark: int = MIN_TIMESTAMP) -> int:
        """Return the time (ms) by which entries of a state expire."""
        in_event_time = spec.ttl is not None and spec.ttl.time == "event"
        return watermark if in_event_time else self._job.now_ms()

    async def _of_key(
        self,
        blocks: Sequence[Block],
        key: Any,
        spec: StateSpec[Any],
        now_ms: int,
        shapes: WrittenAs = (),
    ) -> Any:
        found = []
        for block in blocks:
            for taken in of_key(block, key):
                if taken is None:
                    await checkpoint()
                else:
                    found.append(taken)
        return (await self._loaded(found, spec, now_ms, shapes)).get(key)

    async def _loaded(
        self,
        blocks: Sequence[Block],
        spec: StateSpec[Any],
        now_ms: int,
        shapes: WrittenAs = (),
    ) -> StateView:
        backend = MemoryBackend(self._operator)
        for groups, written in shapes:
            backend.written_as(groups, written)
        view = backend.declare(spec, now_ms)
        for block in blocks:
            for piece in in_pieces(block):
                backend.load([piece])
                await checkpoint()
        return view


async def _pairs(view: StateView) -> AsyncGenerator[tuple[Any, Any]]:
    for keys in view.key_lists():
        for number, key in enumerate(keys):
            if number % TURN == 0:
                await checkpoint()
            if (value := view.get(key)) is not MISSING:
                yield key, value


def _check(as_of: object) -> None:
    if as_of not in ("now", "committed"):
        raise ConfigError(f"as_of={as_of!r}: choose 'now' or 'committed'")


class LiveStates:
    """What a job lets others read: the state of the attempt that runs, and its checkpoints."""

    def __init__(
        self,
        name: str,
        readable: ReadableStates,
        committed: Callable[[], int | None],
        now_ms: Callable[[], int],
        callers: Callers,
    ) -> None:
        self._name = name
        self._readable = readable
        self.committed = committed
        """The last committed epoch; None before the first."""
        self.now_ms = now_ms
        self.callers = callers
        self._store: DirectoryStore | None = None
        self._backends: Mapping[str, Sequence[MemoryBackend]] = {}
        self._used: dict[str, dict[str, StateSpec[Any]]] = {}
        self._is_running = False
        self._ended: str | None = None
        self._news = anyio.Event()

    # ------------------------------------------------------------------ what the job tells

    def begin(
        self, backends: Mapping[str, Sequence[MemoryBackend]], store: DirectoryStore | None
    ) -> None:
        """An attempt is open, with this state."""
        self._backends, self._store, self._is_running = backends, store, True
        self._wake()

    def pause(self) -> None:
        """The attempt is over, and its state is let go; there may be another."""
        self._used = {operator: self._in_use(operator) for operator in self._backends}
        self._backends, self._is_running = {}, False

    def end(self, how: str) -> None:
        """There will be no other attempt."""
        self._ended = how
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    # ------------------------------------------------------------------ what is asked

    def state(self, operator: str, state: StateSpec[Any] | str | None) -> LiveState[Any, Any]:
        """See `Job.state`."""
        self._readable.check(operator, state)
        return LiveState(self, operator, state)

    def spec(self, operator: str, state: StateSpec[Any] | str | None) -> StateSpec[Any]:
        """Return what is declared; of a function that is known once it has used its state."""
        return self._readable.spec(operator, state, self._in_use(operator))

    def _in_use(self, operator: str) -> dict[str, StateSpec[Any]]:
        used = dict(self._used.get(operator, {}))
        for backend in self._backends.get(operator, ()):
            used |= backend.declared()
        return used

    def store(self) -> DirectoryStore:
        """Return the checkpoints; `ConfigError` where the job keeps none."""
        if self._store is None:
            raise ConfigError(
                f"job {self._name!r} keeps no checkpoints, so nothing of its state is committed: "
                "start it with checkpoints=..., or read as_of='now'"
            )
        return self._store

    async def backends(self, operator: str) -> Sequence[MemoryBackend]:
        """Return the state of an operator, by subtask; waits for an attempt that runs.

        `StateError` where there will be none.
        """
        while not self._is_running:
            if self._ended is not None:
                raise self._gone(operator, f"job {self._name!r} is {self._ended}")
            # One that is being opened would wait for its own job to run.
            self.callers.check_outside("state(...).get")
            await self._news.wait()
        return self._backends[operator]

    def check_is_current(self, operator: str, backends: Sequence[MemoryBackend]) -> None:
        """Make sure that what is being read is the state of an attempt that runs."""
        if self._backends.get(operator) is backends:
            return
        if self._ended is not None:
            raise self._gone(operator, f"job {self._name!r} is {self._ended}")
        raise StateError(
            f"operator {operator!r}: job {self._name!r} restarts, and the state that was being "
            "scanned is gone: scan again"
        )

    def _gone(self, operator: str, why: str) -> StateError:
        return StateError(
            f"operator {operator!r}: {why}, so there is no state of now: as_of='committed' reads "
            "that of the last epoch, where the job kept checkpoints"
        )
