"""What a job goes on from."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from flowrt.checkpoint.lease import Lease
from flowrt.checkpoint.manifest import encode_manifest
from flowrt.checkpoint.recovery import (
    Recovery,
    cut_to_groups,
    recover,
    recover_decided,
    refuse_unknown,
)
from flowrt.checkpoint.savepoint import bring_in_savepoint, write_savepoint
from flowrt.checkpoint.store import DirectoryStore, UnreadableError
from flowrt.checkpoint.writer import StateWriter, Subtask
from flowrt.contract.errors import CheckpointError, ConfigError
from flowrt.contract.snapshot import OperatorSnapshot, SplitState, StateFile
from flowrt.contract.state import group_range
from flowrt.runtime.world import system_world
from tests.checkpoint.kit import (
    FOLDER,
    CrashAt,
    CrashError,
    Machine,
    State,
    frozen,
    group_of,
    load_state,
    manifest,
)

pytestmark = pytest.mark.anyio


async def write(store: DirectoryStore, *epochs: int) -> None:
    for epoch in epochs:
        part = OperatorSnapshot("source", 0, splits=[SplitState("a", None, epoch)])
        await store.write(manifest(store, epoch, [part]))


def damage(machine: Machine, name: str) -> None:
    machine.files.replace(f"{FOLDER}/{name}", b"torn" + machine.files.contents(f"{FOLDER}/{name}"))


async def test_with_nothing_there_a_job_starts_from_nothing() -> None:
    recovery = await recover(await Machine().store())

    assert recovery == Recovery(None, 1, [])
    assert recovery.epoch is None
    assert recovery.parts("count") == []
    assert recovery.state_files("count", range(128)) == []


async def test_the_newest_checkpoint_is_chosen() -> None:
    machine = Machine()
    store = await machine.store()
    await write(store, 9, 10)
    machine.files.crash()

    recovery = await recover(await machine.store())

    assert (recovery.epoch, recovery.next_epoch, recovery.notes) == (10, 11, [])
    assert recovery.parts("source")[0].splits[0].position == 10


async def test_a_damaged_manifest_is_passed_over_and_that_is_said() -> None:
    machine = Machine()
    store = await machine.store()
    await write(store, 1, 2)
    damage(machine, "manifest-2-1.json")
    machine.files.kill()

    recovery = await recover(await machine.store())

    assert (recovery.epoch, recovery.next_epoch) == (1, 3)
    assert recovery.notes[0].startswith("checkpoint 2 is passed over: /data/checkpoints/manifest-2")
    assert recovery.notes[1].startswith("the job goes on from checkpoint 1")


async def test_a_damaged_state_file_is_passed_over_too() -> None:
    machine = Machine()
    store = await machine.store()
    writes = StateWriter(machine.files, Subtask(FOLDER, "count", 0, range(128), 1))
    for epoch in (1, 2):
        files = await writes.write(epoch, frozen({"a01": str(epoch)}))
        await store.write(manifest(store, epoch, [OperatorSnapshot("count", 0, files)]))
    damage(machine, "state/count-0-d2-1.state")
    machine.files.kill()

    store = await machine.store()
    recovery = await recover(store)

    assert recovery.epoch == 1
    assert "count-0-d2-1.state has" in recovery.notes[0]
    state_files = recovery.state_files("count", range(128))
    assert await load_state(store, state_files) == {"a01": "1"}


@pytest.mark.parametrize("part", ["manifest-2-1.json", "state/count-0-d2-1.state"])
async def test_what_cannot_be_read_just_now_is_not_passed_over(part: str) -> None:
    """A disk that fails for a moment must not take back what was committed."""
    machine = Machine()
    store = await machine.store()
    writes = StateWriter(machine.files, Subtask(FOLDER, "count", 0, range(128), 1))
    for epoch in (1, 2):
        files = await writes.write(epoch, frozen({"a01": str(epoch)}))
        await store.write(manifest(store, epoch, [OperatorSnapshot("count", 0, files)]))
    machine.files.kill()
    store = await machine.store()
    machine.files.fail("read", part, OSError(errno.EIO, "Input/output error"))

    with pytest.raises(UnreadableError, match=r"Input/output error.*move .*manifest-2-1\.json"):
        await recover(store)

    assert (await recover(store)).epoch == 2


async def test_what_was_passed_over_never_comes_back() -> None:
    machine = Machine()
    store = await machine.store()
    await write(store, 1, 2)
    good = machine.files.contents(f"{FOLDER}/manifest-2-1.json")
    damage(machine, "manifest-2-1.json")
    machine.files.kill()
    await recover(await machine.store())
    machine.files.replace(f"{FOLDER}/manifest-2-1.json", good)
    machine.files.crash()

    assert (await recover(await machine.store())).epoch == 1


async def test_with_checkpoints_but_none_whole_it_does_not_start_from_nothing() -> None:
    machine = Machine()
    store = await machine.store()
    await write(store, 1)
    damage(machine, "manifest-1-1.json")

    with pytest.raises(
        CheckpointError, match=r"no checkpoint in /data/checkpoints is whole.*backup"
    ):
        await recover(store)


async def test_where_all_checkpoints_are_gone_it_does_not_start_from_nothing() -> None:
    machine = Machine()
    await write(await machine.store(), 1, 2)
    machine.files.kill()
    await recover(await machine.store())
    machine.files.forget("manifest-")
    machine.files.kill()

    with pytest.raises(
        CheckpointError, match=r"no checkpoint is left .* went on from epoch 2 once"
    ):
        await recover(await machine.store())


async def test_another_flow_is_an_error_and_nothing_to_pass_over() -> None:
    machine = Machine()
    store = await machine.store(flow="orders")
    await write(store, 1)
    machine.files.kill()

    with pytest.raises(ConfigError, match="'orders', not of 'clicks'"):
        await recover(await machine.store(flow="clicks"))


async def test_a_manifest_of_a_lost_instance_is_ignored() -> None:
    machine = Machine()
    old = await machine.store()
    await write(old, 1)
    new = await machine.store(take_over=True)
    assert (await recover(new)).epoch == 1

    # The old instance had checked its lease before it was taken, and renames its manifest now.
    late = encode_manifest(manifest(old, 2))
    machine.files.replace(f"{FOLDER}/manifest-2-1.json", late)
    machine.files.crash()

    assert (await recover(await machine.store())).epoch == 1


@pytest.mark.parametrize("failpoint", ["lease.taken", "manifest.chosen", "manifest.verified"])
async def test_a_crash_during_recovery_changes_nothing(failpoint: str) -> None:
    machine = Machine()
    store = await machine.store()
    await write(store, 1, 2)
    machine.files.crash()

    with CrashAt(failpoint), pytest.raises(CrashError):
        await recover(await machine.store())
    machine.files.crash()

    assert (await recover(await machine.store())).epoch == 2


async def test_on_the_real_disk(tmp_path: Path) -> None:
    world, folder = system_world(), f"{tmp_path}/checkpoints"
    lease = await Lease.take(world, folder)
    store = DirectoryStore(world.files, folder, "orders", lease)
    await store.make_state_folder()
    writes = StateWriter(world.files, Subtask(folder, "count", 0, range(128), 1))
    whole = manifest(store, 0)
    for epoch in range(1, 8):
        files = await writes.write(epoch, frozen({"a01": str(epoch)}))
        whole = manifest(store, epoch, [OperatorSnapshot("count", 0, files)])
        await store.write(whole)
        await store.retain(epoch)
    await write_savepoint(store, whole, f"{tmp_path}/savepoint")
    newest = Path(folder, "manifest-7-1.json")
    newest.write_bytes(newest.read_bytes()[:-9])
    await lease.next_generation()

    recovery = await recover(store)
    other = await Lease.take(world, f"{tmp_path}/other")
    brought = await bring_in_savepoint(
        DirectoryStore(world.files, other.folder, "orders", other), f"{tmp_path}/savepoint", 0
    )

    assert (recovery.epoch, recovery.next_epoch, len(recovery.notes)) == (6, 8, 2)
    state_files = recovery.state_files("count", range(128))
    assert await load_state(store, state_files) == {"a01": "6"}
    assert brought is not None
    assert brought.epoch == 7
    lease.release()
    other.release()


class TestDecidedByTheSink:
    async def test_exactly_its_epoch_is_restored_and_newer_ones_go(self) -> None:
        machine = Machine()
        store = await machine.store()
        await write(store, 4, 5, 6)

        recovery = await recover_decided(store, 5)

        assert (recovery.epoch, recovery.next_epoch) == (5, 6)
        assert [made.epoch for made in await store.checkpoints()] == [5, 4]

    @pytest.mark.parametrize("how", ["damaged", "missing"])
    async def test_without_that_checkpoint_it_does_not_go_on_from_another(self, how: str) -> None:
        machine = Machine()
        store = await machine.store()
        await write(store, 4, 5)
        if how == "damaged":
            damage(machine, "manifest-5-1.json")
        else:
            await machine.files.delete(f"{FOLDER}/manifest-5-1.json")

        with pytest.raises(CheckpointError, match=f"last committed epoch is 5.*{how}"):
            await recover_decided(store, 5)

    async def test_with_no_commit_yet_it_starts_from_nothing(self) -> None:
        machine = Machine()
        store = await machine.store()
        assert (await recover_decided(store, None)).epoch is None

        await write(store, 1)
        recovery = await recover_decided(store, None)

        assert (recovery.epoch, recovery.next_epoch) == (None, 1)
        assert await store.checkpoints() == []

    async def test_a_sink_that_knows_nothing_of_later_epochs_is_another_sink(self) -> None:
        machine = Machine()
        store = await machine.store()
        await write(store, 1, 2)

        with pytest.raises(CheckpointError, match=r"up to epoch 2.*another target"):
            await recover_decided(store, None)

    async def test_before_its_first_commit_it_goes_on_from_a_savepoint(self) -> None:
        machine = Machine()
        store = await machine.store()
        await store.write(manifest(store, 40, savepoint=True))
        await write(store, 41)

        recovery = await recover_decided(store, None)

        assert (recovery.epoch, recovery.next_epoch) == (40, 41)
        assert [made.epoch for made in await store.checkpoints()] == [40]


def file(name: str, first: int, last: int) -> StateFile:
    return StateFile(name, 1, "", 1, first, last)


def test_files_are_cut_to_a_subtasks_groups_oldest_first() -> None:
    parts = [
        OperatorSnapshot("count", 1, [file("shared", 64, 127), file("b", 64, 127)]),
        OperatorSnapshot("count", 0, [file("shared", 0, 63), file("a", 0, 63)]),
    ]

    def cut(groups: range) -> list[tuple[str, int, int]]:
        return [(f.name, f.first_group, f.last_group) for f in cut_to_groups(parts, groups)]

    assert cut(range(128)) == [
        ("shared", 0, 63),
        ("a", 0, 63),
        ("shared", 64, 127),
        ("b", 64, 127),
    ]
    assert cut(range(32, 96)) == [
        ("shared", 32, 63),
        ("a", 32, 63),
        ("shared", 64, 95),
        ("b", 64, 95),
    ]
    assert cut(range(32)) == [("shared", 0, 31), ("a", 0, 31)]


async def test_state_survives_any_change_of_parallelism() -> None:
    machine = Machine()
    store = await machine.store()
    model: State = {}
    parts: list[OperatorSnapshot] = []
    epoch = 0
    for parallelism in (2, 3, 1, 5, 128, 1, 4):
        recovery = Recovery(manifest(store, epoch, parts))
        writers = [
            StateWriter(
                machine.files,
                Subtask(FOLDER, "count", subtask, groups, parallelism),
                recovery.state_files("count", groups),
            )
            for subtask, groups in _subtasks(parallelism)
        ]
        for _ in range(3):
            epoch += 1
            changes: dict[str, str | None] = {f"k{n:03}": str(epoch) for n in range(epoch, 128, 3)}
            changes[f"k{epoch:03}"] = None
            parts = [
                OperatorSnapshot("count", subtask, await writer.write(epoch, frozen(mine)))
                for (subtask, groups), writer in zip(_subtasks(parallelism), writers, strict=True)
                for mine in [{k: v for k, v in changes.items() if group_of(k) in groups}]
            ]
            model |= {key: value for key, value in changes.items() if value is not None}
            model.pop(f"k{epoch:03}", None)
            whole = cut_to_groups(parts, range(128))
            assert await load_state(store, whole) == model


def _subtasks(parallelism: int) -> list[tuple[int, range]]:
    return [(subtask, group_range(subtask, parallelism)) for subtask in range(parallelism)]


async def test_state_that_has_no_operator_is_refused_by_name() -> None:
    store = await Machine().store()
    parts = [
        OperatorSnapshot("gone", 0, [file("a", 0, 127)]),
        OperatorSnapshot("lost sink", 0, committable=["x"]),
        OperatorSnapshot("old source", 0, splits=[SplitState("a", None, 1)]),
        OperatorSnapshot("stateless", 0),
        OperatorSnapshot("count", 0, data=[1]),
    ]
    whole = manifest(store, 7, parts)

    with pytest.raises(ConfigError) as error:
        refuse_unknown(whole, {"count"}, ["gone"])

    assert "'lost sink', 'old source'" in str(error.value)
    assert "allow_dropped_state=['lost sink', 'old source']" in str(error.value)
    assert "'gone'" not in str(error.value)
    allowed = ["gone", "lost sink", "old source", "never there"]
    assert refuse_unknown(whole, {"count"}, allowed) == ["gone", "lost sink", "old source"]
    assert refuse_unknown(whole, {part.operator for part in parts}) == []
