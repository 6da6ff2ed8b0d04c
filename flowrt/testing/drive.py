"""Drive: run an operator through a script, and see everything that it sends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from flowrt.contract.elements import Barrier, EndOfStream, Idle, Watermark
from flowrt.contract.errors import ConfigError
from flowrt.contract.on_error import OnError
from flowrt.contract.world import World
from flowrt.testing.run_flow import passing_time
from flowrt.testing.script import (
    NO_KEY,
    ProcessingTime,
    Record,
    Restart,
    ScriptElement,
    check_script,
)
from flowrt.testing.subject import Bench, Snapshot, Subject, is_broadcast, steps_of
from flowrt.testing.world import ManualClock, manual_world

KeyFunction = Callable[[Any], Hashable]


class Driven(list[Any]):
    """What came out, in order; `snapshots` holds the snapshot taken at each `barrier(epoch)`."""

    def __init__(self, out: Iterable[ScriptElement], snapshots: dict[int, Snapshot]) -> None:
        super().__init__(out)
        self.snapshots = snapshots


async def drive(
    subject: Subject,
    script: Iterable[object],
    *,
    key: KeyFunction | None = None,
    parallelism: int = 1,
    restore: Snapshot | None = None,
    batch: int = 1,
    world: World | None = None,
    on_error: OnError | None = None,
) -> Driven:
    """Run an operator through a script; return all that it sends, in order.

    `subject` is an `Operator` (instance or class), a function `fn(value, ctx)`, a step such as
    `flowrt.operators.map.map(fn)`, a factory without arguments of one of these, or a list of them,
    to be run as one task would run them. The kernel's own chain runs it, with the memory state
    backend.

    For a `CoOperator` the script has `left(...)` and `right(...)`. Its second input is broadcast
    where it declares a `BroadcastState`: each subtask gets those records, and they need no key.

    `key` makes the stream keyed: `key(value)` is the key of records that bring none of their own.
    Of several subtasks (`parallelism`) each gets the records of its own key groups; their outputs
    are merged. `restore` goes on from a snapshot that an earlier `drive` took at a
    `barrier(epoch)`. Up to `batch` records in a row are given together. `world` is a
    `manual_world()` of its own unless given.

    The calls of a `map_async`, the first in its line, are made as its records come. While they are
    under way a manual clock passes by itself, from alarm to alarm.

    `on_error` is the policy of every step; dead letters come back as side outputs. Where it tries
    again a manual clock passes by itself, too.

    Records, side outputs and watermarks come back; nothing is promised about the order between the
    main output and a side output. Raises what the operator raises, as `OperatorError`;
    `ConfigError` for a script that cannot be.
    """
    elements = check_script(script)
    keyed = is_keyed(elements, key)
    elements = with_keys(elements, key, subject) if keyed else elements
    world = world or manual_world()
    bench = Bench(subject, keyed=keyed, parallelism=parallelism, world=world, on_error=on_error)
    snapshots: dict[int, Snapshot] = {}
    async with time_for_tries(world, on_error):
        try:
            await bench.open(restore)
            for run in runs_of(elements, batch):
                await give(bench, run, snapshots)
            bench.settle()
        finally:
            await bench.close()
    return Driven(bench.out, snapshots)


@asynccontextmanager
async def time_for_tries(world: World, on_error: OnError | None) -> AsyncIterator[None]:
    """Let a manual clock pass by itself where a step waits before it tries again."""
    async with AsyncExitStack() as stack:
        waits = on_error is not None and on_error.strategy is not None
        if waits and isinstance(world.clock, ManualClock):
            await stack.enter_async_context(passing_time(world.clock))
        yield


async def give(
    bench: Bench, run: Sequence[ScriptElement], snapshots: dict[int, Snapshot] | None = None
) -> None:
    """Give the bench a run of records, or one other element."""
    match run[0]:
        case Record():
            await bench.run([one for one in run if isinstance(one, Record)])
        case Watermark(timestamp):
            await bench.advance(timestamp)
        case ProcessingTime(timestamp):
            await bench.move_clock(timestamp)
        case Idle():
            await bench.rest()
        case Restart():
            await bench.restart()
        case EndOfStream():
            await bench.end()
        case Barrier(epoch):
            snapshot = bench.snapshot()
            if snapshots is not None:
                snapshots[epoch] = snapshot
            bench.out.append(run[0])


def is_keyed(script: Iterable[ScriptElement], key: KeyFunction | None) -> bool:
    """Say whether a script's records are a keyed stream."""
    own = any(isinstance(one, Record) and one.key is not NO_KEY for one in script)
    return key is not None or own


def with_keys(
    script: Sequence[ScriptElement], key: KeyFunction | None, subject: Subject
) -> list[ScriptElement]:
    """Return a script all of whose records have a key, but those of a broadcast input.

    `ConfigError` where one has none.
    """
    broadcast = is_broadcast(steps_of(subject))

    def keyed(element: ScriptElement) -> ScriptElement:
        if not isinstance(element, Record) or element.key is not NO_KEY:
            return element
        if broadcast and element.right:
            return element
        if key is None:
            raise ConfigError(f"{element!r} has no key and others have: pass key=... as well")
        return replace(element, key=key(element.value))

    return [keyed(element) for element in script]


def runs_of(script: Sequence[ScriptElement], batch: int) -> list[list[ScriptElement]]:
    """Cut a script into runs of at most `batch` records; any other element stands alone."""
    runs: list[list[ScriptElement]] = []
    for element in script:
        last = runs[-1][0] if runs and len(runs[-1]) < batch else None
        if _are_of_one_input(last, element):
            runs[-1].append(element)
        else:
            runs.append([element])
    return runs


def _are_of_one_input(one: ScriptElement | None, other: ScriptElement) -> bool:
    return isinstance(one, Record) and isinstance(other, Record) and one.right == other.right
