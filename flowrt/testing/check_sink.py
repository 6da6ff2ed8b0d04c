"""The laws of sinks, checked over one sink: wherever a job dies, each record is there once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any, TypeAlias

from flowrt.contract.errors import ConfigError, SinkError
from flowrt.contract.plural import plural
from flowrt.contract.sink import Sink
from flowrt.contract.world import World
from flowrt.testing.laws import LawBroken, difference, same_multiset
from flowrt.testing.memory_files import MemoryFiles
from flowrt.testing.sink_lives import TO_THE_END, Crash, Death, Kill, SinkJob
from flowrt.testing.world import manual_world

MakeSink: TypeAlias = Callable[[str], Sink[Any]]
Visible: TypeAlias = Callable[[str], Sequence[Any] | Awaitable[Sequence[Any]]]

WHOLE = "what is written becomes visible, once, in order"
UNSEEN = "nothing is visible before its epoch is decided"
STAYS = "what is committed is visible, and stays; a second commit changes nothing"
CRASH = "after a crash nothing is lost and nothing is there twice"
AT_LEAST_ONCE = (
    "after a crash nothing is lost, and only what followed the last snapshot is repeated"
)
FROM_NOTHING = "results of an earlier life are not mistaken for those of a new job"


async def check_sink(
    make: MakeSink,
    values: Sequence[Any],
    visible: Visible,
    *,
    world: World | None = None,
    ordered: bool = True,
    holds_back: bool = False,
    kill: Kill | None = None,
) -> None:
    """Check every law of sinks over one sink; `LawBroken` says which is broken, where and how.

    `make(place)` returns the sink on a place of its own: a folder, a table. A new place is empty;
    on one that was used it is made again as a new process would. `visible(place)`, plain or
    coroutine, returns what any reader sees there, as the values that were written. `world` is a
    `manual_world()` unless given.

    `values` are written in four epochs, one of them empty, by one to three subtasks. The job dies
    in each step (recover, open, write, prepare, decide, commit, close), at each turn of the event
    loop within it: the process is killed; with `MemoryFiles` the machine may also lose what was not
    synced; the job restarts in the process; or it dies again while it recovers. Then it goes on,
    also at another parallelism, and in the end each value is visible once; in their order where one
    subtask wrote, unless `ordered` is False. For a sink that keeps rows of an epoch for a later one
    pass `holds_back=True`. Of a `direct` sink only at least once is asked.

    Where the process is killed, nothing more is called, and nothing that the sink holds is let go
    of. `kill(sink)`, plain or coroutine, may do what the system would: cut connections, free locks.
    """
    check = _SinkCheck(make, values, visible, world or manual_world(), ordered, holds_back, kill)
    for parallelism in (1, 2, 3):
        await check.uninterrupted(parallelism)
    if check.kind != "deciding":  # its epochs and the checkpoints' are compared before it is asked
        await check.from_nothing()
    await check.every_crash("killed", 1, 1)
    await check.every_crash("killed", 2, 2)
    await check.every_crash("killed", 3, 1)
    await check.every_crash("restarted", 1, 2)
    if check.kind != "direct":
        await check.every_crash("powerless", 2, 1)
    await check.crash_after_crash()


class _SinkCheck:
    def __init__(
        self,
        make: MakeSink,
        values: Sequence[Any],
        visible: Visible,
        world: World,
        ordered: bool,
        holds_back: bool,
        kill: Kill | None,
    ) -> None:
        self.kind = make("kind").kind
        self._make = make
        self._values = list(values)
        self._visible = visible
        self._world = world
        self._ordered = ordered
        self._holds_back = holds_back
        self._kill = kill
        self._number = 0

    def _job(self, values: Sequence[Any] | None = None, place: str | None = None) -> SinkJob:
        given = self._values if values is None else list(values)
        third = -(-len(given) // 3)
        epochs = [given[:third], [], given[third : 2 * third], given[2 * third :]]
        place = place or self._new_place()
        return SinkJob(self._make, place, epochs, self._world, self._kill)

    def _new_place(self) -> str:
        files = self._world.files
        if isinstance(files, MemoryFiles):
            files.forget(f"place-{self._number:05}")
        self._number += 1
        return f"place-{self._number:05}"

    # ------------------------------------------------------------------ ways to live

    async def uninterrupted(self, parallelism: int) -> None:
        """Live once, to the end, and look after each step."""
        job = self._job()
        subtasks = f"{parallelism} {plural(parallelism, 'subtask')}"

        async def look(step: str) -> None:
            await self._look(job, f"{subtasks}, after {step!r}")

        await job.live(parallelism, after=look)
        got = await self._seen(job)
        if not self._same(self._values, got, in_order=parallelism == 1):
            where = f"{subtasks}, at the end"
            raise LawBroken(WHOLE, where, difference(self._values, got))

    async def every_crash(self, death: Death, before: int, after: int) -> None:
        """Die at each place, and go on, perhaps at another parallelism."""
        step = turns = 0
        while True:
            job = self._job()
            whole = await self._live(job, before, Crash(step, turns, death))
            if whole is None:
                return
            await self._look(job, job.died)
            await self._live(job, after)
            await self._look_at_end(job, in_order=before == after == 1)
            step, turns = (step + 1, 0) if whole else (step, turns + 1)

    async def crash_after_crash(self) -> None:
        """Die between any two steps, then in the middle of the recovery."""
        step = 0
        while await self._crash_twice(step, 0) is not None:
            turns = 1
            while await self._crash_twice(step, turns) is False:
                turns += 1
            step += 1

    async def _crash_twice(self, step: int, turns: int) -> bool | None:
        """Return whether the recovery was over; None where there is no such step."""
        job = self._job()
        if await self._live(job, 2, Crash(step, TO_THE_END)) is None:
            return None
        over = await self._live(job, 2, Crash(0, turns))
        await self._look(job, job.died)
        await self._live(job, 2)
        await self._look_at_end(job, in_order=False)
        return over

    async def from_nothing(self) -> None:
        """Begin a new job where an earlier one left its results."""
        half = len(self._values) // 2
        first, second = self._values[:half], self._values[half:]
        earlier = self._job(first)
        await earlier.live(1)
        job = self._job(second, earlier.place)
        job.generation = earlier.generation
        try:
            await job.live(1)
        except (SinkError, ConfigError):
            job.epochs, second = [], first  # it can tell, and refuses
        got = await self._seen(job)
        allowed = [second, [*first, *second]] if job.epochs else [first]
        if not any(same_multiset(right, got) for right in allowed):
            where = "a new job on the place of a finished one"
            raise LawBroken(FROM_NOTHING, where, difference(allowed[-1], got))

    # ------------------------------------------------------------------ looking

    async def _look(self, job: SinkJob, where: str) -> None:
        """See that no more is visible than was decided, and no less than was committed."""
        got = await self._seen(job)
        if self.kind == "direct":
            return
        too_many = _minus(got, job.rows(job.decided))
        if too_many:
            raise LawBroken(UNSEEN, where, difference(job.rows(job.decided), got))
        stays = job.seen if self._holds_back else job.rows(job.committed)
        if _minus(stays, got):
            raise LawBroken(STAYS, where, difference(stays, got))
        job.seen = got

    async def _look_at_end(self, job: SinkJob, *, in_order: bool) -> None:
        got = await self._seen(job)
        if self.kind != "direct":
            if not self._same(self._values, got, in_order=in_order):
                raise LawBroken(CRASH, job.died, difference(self._values, got))
            return
        repeated = _minus(got, self._values)
        if _minus(self._values, got) or _minus(repeated, job.repeated):
            raise LawBroken(AT_LEAST_ONCE, job.died, difference(self._values, got))

    async def _seen(self, job: SinkJob) -> list[Any]:
        seen = self._visible(job.place)
        return list(await seen if isawaitable(seen) else seen)

    def _same(self, expected: list[Any], got: list[Any], *, in_order: bool) -> bool:
        if in_order and self._ordered:
            return expected == got
        return same_multiset(expected, got)

    async def _live(
        self, job: SinkJob, parallelism: int, crash: Crash | None = None
    ) -> bool | None:
        try:
            return await job.live(parallelism, crash)
        except LawBroken:
            raise
        except Exception as error:
            raised = f"  it raised {type(error).__name__}: {error}"
            raise LawBroken(CRASH, job.died or "in the first life", raised) from error


def _minus(these: Sequence[Any], those: Sequence[Any]) -> list[Any]:
    """Return what is left of `these` without `those`, each taken away once."""
    rest = list(these)
    for value in those:
        if value in rest:
            rest.remove(value)
    return rest
