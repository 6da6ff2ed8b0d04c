"""A file sink is stopped before and after each change of the disk: nothing is lost or repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from flowrt.connectors.files.sink import FileSink
from flowrt.contract.errors import SinkError
from flowrt.contract.sink import Committable, SinkContext
from flowrt.contract.world import World
from flowrt.testing.world import MemoryFiles, manual_world

pytestmark = [pytest.mark.anyio, pytest.mark.crash]

SUBTASKS = 2
EPOCHS: list[list[list[str]]] = [
    # what each subtask writes in each epoch
    [["a1", "a2"], ["b1"]],
    [["a3"], []],
    [[], []],
    [["a4", "a5", "a6"], ["b2"]],
    [["a7"], ["b3", "b4"]],
]


class Stop(Exception):
    """The process died here."""


class StoppingFiles:
    """Files that stop the process before or after the n-th change."""

    CHANGES = frozenset({"write", "write_at", "sync", "sync_folder", "rename", "delete"})

    def __init__(self, files: MemoryFiles, stop_at: int | None, after: bool) -> None:
        self._files = files
        self._stop_at = stop_at
        self._after = after
        self.changes = 0

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._files, name)
        if name not in self.CHANGES:
            return method

        async def change(*arguments: Any) -> Any:
            self.changes += 1
            if self.changes == self._stop_at and not self._after:
                raise Stop
            result = await method(*arguments)
            if self.changes == self._stop_at:
                raise Stop
            return result

        return change


@dataclass
class Job:
    """A job with two sink subtasks, whose manifests survive everything."""

    roll_bytes: int
    roll_epochs: int
    world: World = field(default_factory=manual_world)
    manifests: dict[int, list[Committable]] = field(default_factory=dict)
    generation: int = 0

    @property
    def files(self) -> MemoryFiles:
        assert isinstance(self.world.files, MemoryFiles)
        return self.world.files

    async def run(self, stop_at: int | None = None, after: bool = False) -> bool:
        """Run to the end, or until stopped; say whether the end was reached."""
        self.generation += 1
        world = replace(self.world, files=StoppingFiles(self.files, stop_at, after))
        try:
            await self._attempt(world)
        except Stop:
            return False
        finally:
            self.files.kill()
        return True

    async def _attempt(self, world: World) -> None:
        sink = FileSink("out", roll_bytes=self.roll_bytes, roll_epochs=self.roll_epochs)
        restored = max(self.manifests, default=None)
        prepared = self.manifests.get(restored or 0, [])
        contexts = [
            SinkContext("sink", index, SUBTASKS, self.generation, world)
            for index in range(SUBTASKS)
        ]
        await sink.recover(restored, prepared, contexts[0])
        writers = [await sink.writer(ctx, prepared) for ctx in contexts]
        for epoch in range((restored or 0) + 1, len(EPOCHS) + 1):
            for writer, values in zip(writers, EPOCHS[epoch - 1], strict=True):
                for value in values:
                    await writer.write([value], None)
            final = epoch == len(EPOCHS)
            found = [await writer.prepare(epoch, final) for writer in writers]
            committables = [one for one in found if one is not None]
            self.manifests[epoch] = committables
            await sink.commit(epoch, committables)

    def visible(self) -> list[str]:
        """Return the values in the visible files, by name of the file."""
        names = [name for name in self.files.paths() if name.startswith("out/part-")]
        return [line for name in names for line in self.files.contents(name).decode().split()]

    def check(self) -> None:
        visible = self.visible()
        for index, letter in enumerate("ab"):
            own = [line.strip('"') for line in visible if line.startswith(f'"{letter}')]
            assert own == [value for epoch in EPOCHS for value in epoch[index]]
        left = [name for name in self.files.paths() if name.endswith(".jsonl")]
        assert len(left) == len([name for name in left if name.startswith("out/part-")])


ROLLS = pytest.mark.parametrize(
    ("roll_bytes", "roll_epochs"), [(1_000, 1), (1_000, 3), (7, 1), (12, 2)]
)


@ROLLS
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("power_fails", [False, True], ids=["killed", "power-cut"])
async def test_stopped_at_each_change_and_started_again(
    roll_bytes: int, roll_epochs: int, after: bool, power_fails: bool
) -> None:
    stop_at = 0
    ended = False
    while not ended:
        stop_at += 1
        job = Job(roll_bytes, roll_epochs)
        ended = await job.run(stop_at, after)
        if power_fails:
            job.files.crash()
        if not ended or power_fails:
            assert await job.run()
        job.check()

    assert stop_at > 20


@ROLLS
async def test_stopped_again_while_recovering(roll_bytes: int, roll_epochs: int) -> None:
    for stop_at in range(3, 60, 4):
        for again_at in range(1, 12):
            job = Job(roll_bytes, roll_epochs)
            await job.run(stop_at, after=True)
            job.files.crash()
            await job.run(again_at)
            job.files.crash()
            assert await job.run()
            job.check()


async def test_a_crash_does_not_take_the_folder_away_after_a_start_that_failed() -> None:
    files = MemoryFiles(lose_folders=True)
    ctx = SinkContext("out", 0, 1, 1, replace(manual_world(), files=files))
    files.fail("sync_folder", "/", OSError(5, "Input/output error"))
    with pytest.raises(SinkError, match="Input/output error"):
        await FileSink("/deep/out").recover(None, [], ctx)
    sink = FileSink("/deep/out")
    await sink.recover(None, [], ctx)
    writer = await sink.writer(ctx, [])
    await writer.write(["a"], None)
    await sink.commit(1, [await writer.prepare(1, final=True)])

    files.crash()

    assert [path for path in files.paths() if "part-" in path]


@ROLLS
async def test_an_older_checkpoint_undoes_what_followed(roll_bytes: int, roll_epochs: int) -> None:
    for restored in range(1, len(EPOCHS) + 1):
        job = Job(roll_bytes, roll_epochs)
        assert await job.run()
        # The later manifests turn out to be damaged.
        job.manifests = {e: found for e, found in job.manifests.items() if e <= restored}

        assert await job.run()
        job.check()


async def test_an_instance_that_lives_on_cannot_write_to_an_open_part() -> None:
    world = manual_world()
    old = FileSink("out", roll_epochs=10)
    contexts = [SinkContext("sink", 0, 1, generation, world) for generation in (1, 2)]
    await old.recover(None, [], contexts[0])
    zombie = await old.writer(contexts[0], [])
    await zombie.write(["a"], None)
    prepared = [await zombie.prepare(1)]

    new = FileSink("out", roll_epochs=10)
    await new.recover(1, prepared, replace(contexts[1], take_over=True))
    writer = await new.writer(contexts[1], prepared)
    await zombie.write(["zombie"], None)
    with pytest.raises(SinkError, match="is another job using the folder"):
        await zombie.prepare(2)
    await writer.write(["b"], None)
    await new.commit(2, [await writer.prepare(2, final=True)])

    assert isinstance(world.files, MemoryFiles)
    assert world.files.contents("out/part-00000001-0-000000.jsonl") == b'"a"\n"b"\n'
