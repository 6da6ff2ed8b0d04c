"""What the runtime does with a sink, as far as a sink can tell, in lives that end anywhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable
from typing import Any, Final, Literal, TypeAlias

from flowrt.contract.sink import Committable, Sink, SinkContext, Writer
from flowrt.contract.world import World
from flowrt.testing.laws import LawBroken, stopped_after, through_a_snapshot
from flowrt.testing.memory_files import MemoryFiles

Death: TypeAlias = Literal["killed", "powerless", "restarted"]
"""How a life ends before its time.

The process is killed; the machine loses its power, and what was not synced; or the job alone
starts again, in the same process, and closes what it had open.
"""

Kill: TypeAlias = Callable[[Any], Awaitable[None] | None]

PLAIN = "what prepare returns is plain data"
LAST_COMMITTED = "a deciding sink knows the last epoch that it committed"

TO_THE_END: Final = 24
"""Turns of the event loop; a step that takes more is not cut at each of them, but left to end."""


@dataclass(frozen=True, slots=True)
class Crash:
    """Where a life ends: within a step, after so many turns of the event loop."""

    step: int
    turns: int
    death: Death = "killed"


@dataclass(slots=True)
class Manifest:
    """What a checkpoint keeps for the sink."""

    epoch: int
    committables: list[Committable]


@dataclass
class SinkJob:
    """A job with one sink, through all its lives. `epochs` are the records of each epoch."""

    make: Callable[[str], Sink[Any]]
    place: str
    epochs: Sequence[Sequence[Any]]
    world: World
    kill: Kill | None = None
    """Does what the system does for a process that dies."""
    sink: Sink[Any] | None = None
    generation: int = 0
    manifests: list[Manifest] = field(default_factory=list)
    committed: int = 0
    """The last epoch whose commit returned."""
    repeated: list[Any] = field(default_factory=list)
    """What was written and given up, so that it was written again."""
    seen: list[Any] = field(default_factory=list)
    """What was visible when last looked at."""
    died: str = ""

    @property
    def decided(self) -> int:
        """The last epoch that has a manifest."""
        return self.manifests[-1].epoch if self.manifests else 0

    def rows(self, until: int | None = None) -> list[Any]:
        """Return the records of the epochs until one (None: all)."""
        return [value for epoch in self.epochs[:until] for value in epoch]

    async def live(
        self,
        parallelism: int,
        crash: Crash | None = None,
        after: Callable[[str], Awaitable[None]] | None = None,
    ) -> bool | None:
        """Live once more, to the end or to a crash.

        Returns None at the end, else whether the step in which the life was to end was over before.
        `after` is called after each step with its name.
        """
        if self.sink is None:
            self.sink = self.make(self.place)
        self.generation += 1
        life = _Life(self, self.sink, parallelism)
        for number, (name, call) in enumerate(life.steps()):
            if crash is not None and number == crash.step:
                whole = await self._die(life, crash, name, call)
                return whole
            await call()
            if after is not None:
                await after(name)
        return None

    async def _die(
        self, life: _Life, crash: Crash, name: str, call: Callable[[], Awaitable[None]]
    ) -> bool:
        whole = True
        if crash.turns >= TO_THE_END:
            await call()
        else:
            whole = bool(await stopped_after(crash.turns, call))
        when = "after" if whole else f"{crash.turns} turns into"
        self.died = f"{self.died}{', then ' if self.died else ''}{crash.death} {when} {name!r}"
        self.repeated += life.written_since_manifest
        if crash.death == "restarted":
            await life.close()
            return whole
        sink, self.sink = self.sink, None
        if self.kill is not None and isawaitable(killing := self.kill(sink)):
            await killing
        files = self.world.files
        if isinstance(files, MemoryFiles):
            if crash.death == "killed":
                files.kill()
            else:
                # A disk may lose everything that was not synced, or any part of it.
                files.crash(self.world.randomness if crash.turns % 2 else None)
        return whole


class _Life:
    """One start of the job until its end."""

    def __init__(self, job: SinkJob, sink: Sink[Any], parallelism: int) -> None:
        self.written_since_manifest: list[Any] = []
        self._job = job
        self._sink = sink
        self._parallelism = parallelism
        self._writers: dict[int, Writer[Any]] = {}
        self._prepared: list[Committable] = []
        self._closed = False

    def steps(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """Give the steps one by one; each must be done before the next is asked for."""
        job = self._job
        yield "recover", self._recover
        for subtask in range(self._parallelism):
            yield f"open writer {subtask}", partial(self._open, subtask)
        for epoch in range(job.decided + 1, len(job.epochs) + 1):
            final = epoch == len(job.epochs)
            for subtask in self._writers:
                records = job.epochs[epoch - 1][subtask :: self._parallelism]
                if records:
                    yield f"write in epoch {epoch}", partial(self._write, subtask, records)
            for subtask in self._writers:
                prepare = partial(self._prepare, subtask, epoch, final)
                yield f"prepare epoch {epoch}, writer {subtask}", prepare
            yield f"decide epoch {epoch}", partial(self._decide, epoch)
            yield f"commit epoch {epoch}", partial(self._commit, epoch)
            if not final:
                # At most this often is a commit repeated in one life: by whoever is not sure of it.
                yield f"commit epoch {epoch} again", partial(self._commit, epoch)
        yield "close", self.close

    def _context(self, subtask: int = 0) -> SinkContext:
        job = self._job
        return SinkContext("sink", subtask, self._parallelism, job.generation, job.world)

    async def _recover(self) -> None:
        job = self._job
        if self._sink.kind == "deciding":
            await self._ask_which()
        epoch, prepared = None, []
        if job.manifests:
            epoch, prepared = job.manifests[-1].epoch, list(job.manifests[-1].committables)
        await self._sink.recover(epoch, prepared, self._context())
        job.committed = job.decided

    async def _ask_which(self) -> None:
        job = self._job
        last = await self._sink.last_committed(self._context()) or 0
        if not job.committed <= last <= job.decided:
            raise LawBroken(
                LAST_COMMITTED,
                job.died or "at the first start",
                f"  it says {last or None}; epoch {job.committed or None} was committed, and "
                f"{job.decided or None} is the last that may be",
            )
        undone = [m for m in job.manifests if m.epoch > last]
        job.manifests = [m for m in job.manifests if m.epoch <= last]
        job.repeated += [v for m in undone for v in job.epochs[m.epoch - 1]]

    async def _open(self, subtask: int) -> None:
        job = self._job
        prepared = list(job.manifests[-1].committables) if job.manifests else []
        self._writers[subtask] = await self._sink.writer(self._context(subtask), prepared)

    async def _write(self, subtask: int, records: Sequence[Any]) -> None:
        self.written_since_manifest += records
        await self._writers[subtask].write(list(records), None)

    async def _prepare(self, subtask: int, epoch: int, final: bool) -> None:
        committable = await self._writers[subtask].prepare(epoch, final)
        if committable is None:
            return
        try:
            kept = through_a_snapshot(committable, "the committable")
        except Exception as error:
            raise LawBroken(PLAIN, f"epoch {epoch}, writer {subtask}", f"  {error}") from error
        if kept != committable:
            wrong = f"  {committable!r} came back as {kept!r}"
            raise LawBroken(PLAIN, f"epoch {epoch}, writer {subtask}", wrong)
        self._prepared.append(kept)

    async def _decide(self, epoch: int) -> None:
        self._job.manifests.append(Manifest(epoch, self._prepared))
        self._prepared = []
        self.written_since_manifest = []

    async def _commit(self, epoch: int) -> None:
        await self._sink.commit(epoch, list(self._job.manifests[-1].committables))
        self._job.committed = epoch

    async def close(self) -> None:
        """Close all writers, then the sink; once."""
        if self._closed:
            return
        self._closed = True
        for writer in self._writers.values():
            await writer.close()
        await self._sink.close()
