"""A crash at any step, with any of what was not synced lost or torn: no epoch is lost or repeated.

A small job keeps a total for each key in state files, and commits each epoch's rows to a target
that survives: as a repeatable sink does (again, with one effect), or as a deciding one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.checkpoint.coordinator import Coordinator, Links, Participants
from flowrt.checkpoint.recovery import Recovery, recover, recover_decided
from flowrt.checkpoint.store import DirectoryStore
from flowrt.checkpoint.writer import StateWriter, Subtask
from flowrt.contract.failpoints import FAILPOINTS
from flowrt.contract.sink import Committable
from flowrt.contract.snapshot import (
    Acknowledge,
    CoordinatorMessage,
    EpochCommitted,
    OpenEpoch,
    OperatorSnapshot,
    SourceEnded,
    SplitState,
)
from tests.checkpoint.kit import ALL_GROUPS, CrashAt, CrashError, Machine, State, frozen, load_state

LAST = 9
ELSEWHERE = {"S2", "S3", "S4", "S8", "S9", "R4", "R5", "R6", "R7"}
"""Steps that the tasks and the runtime take."""
OURS = [name for name, step in FAILPOINTS.items() if step not in ELSEWHERE]


class AtOnce:
    """A scheduler that opens an epoch as soon as the one before is committed."""

    def describe(self) -> str:
        return "at once"

    def next_epoch_ms(self, now_ms: int, last_opened_ms: int | None) -> int:
        return now_ms


@dataclass
class Target:
    """What the outside world sees: rows by epoch. Lives on when the job dies."""

    deciding: bool
    rows: dict[int, list[str]] = field(default_factory=dict)

    def commit(self, epoch: int, prepared: list[str]) -> None:
        assert self.rows.get(epoch, prepared) == prepared, "the same epoch with other rows"
        assert set(self.rows) | {epoch} == set(range(1, max([epoch, *self.rows]) + 1))
        self.rows[epoch] = prepared


def row(position: int, state: State) -> str:
    """What the job makes of a record: the position, and how many records its key has had."""
    key = f"key{position % 5:02}"
    state[key] = str(int(state.get(key, "0")) + 1)
    return f"{position}:{key}={state[key]}"


class Life:
    """One life of the job: recovers, then runs until the input ends or it dies."""

    def __init__(self, store: DirectoryStore, recovery: Recovery, target: Target) -> None:
        self._target = target
        self._epochs: list[OpenEpoch] = []
        self._news = anyio.Event()
        parts = recovery.parts("job")
        self._position = parts[0].splits[0].position if parts else 0
        subtask = Subtask(store.folder, "job", 0, ALL_GROUPS, store.lease.generation)
        self._restored = recovery.state_files("job", ALL_GROUPS)
        self._writer = StateWriter(store.files, subtask, self._restored)
        self._store = store
        sinks, deciding = ["target"], "target" if target.deciding else None
        self._coordinator = Coordinator(
            Participants("orders", "exactly_once", {"job": 1}, ["job"], sinks, deciding),
            Links(self._told, self._commit),
            AtOnce(),
            Machine().clock,
            store,
            first_epoch=recovery.next_epoch,
        )

    async def run(self) -> None:
        state = await load_state(self._store, self._restored)
        async with anyio.create_task_group() as group:
            group.start_soon(self._coordinator.run)
            final = False
            while not final:
                final = await self._epoch(state)

    async def _epoch(self, state: State) -> bool:
        while not self._epochs:
            self._news = anyio.Event()
            await self._news.wait()
        opened = self._epochs.pop(0)
        before, rows = dict(state), []
        for _ in range(0 if self._position >= LAST * 3 else 3):
            self._position += 1
            rows.append(row(self._position, state))
        files = await self._writer.write(
            opened.epoch, frozen({k: v for k, v in state.items() if before.get(k) != v})
        )
        splits = [SplitState("input", None, self._position)]
        parts = [OperatorSnapshot("job", 0, files, splits=splits, committable=None)]
        parts.append(OperatorSnapshot("target", 0, committable=rows))
        if self._position >= LAST * 3:
            self._coordinator.receive(SourceEnded("job", 0))
        self._coordinator.receive(Acknowledge("job", 0, opened.epoch, parts))
        return opened.final

    def _told(self, message: CoordinatorMessage) -> None:
        if isinstance(message, OpenEpoch):
            self._epochs.append(message)
            self._news.set()
        else:
            assert isinstance(message, EpochCommitted)

    async def _commit(self, epoch: int, committables: Mapping[str, Sequence[Committable]]) -> None:
        (prepared,) = committables["target"]
        self._target.commit(epoch, prepared)


async def live(machine: Machine, target: Target) -> None:
    """Recover as the runtime does, then run."""
    store = await machine.store()
    if target.deciding:
        recovery = await recover_decided(store, max(target.rows, default=None))
    else:
        recovery = await recover(store)
    if recovery.manifest is not None:
        if recovery.manifest.finished:
            return
        (prepared,) = recovery.manifest.committables("target")
        target.commit(recovery.manifest.epoch, prepared)
        assert max(target.rows) == recovery.manifest.epoch
        assert recovery.notes == []
    else:
        assert target.rows == {}
    await Life(store, recovery, target).run()


def is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(is_crash(inner) for inner in error.exceptions)
    return isinstance(error, CrashError)


async def until_the_end(machine: Machine, target: Target, crashes: list[tuple[str, int]]) -> int:
    """Live and die until the input has ended; return how many crashes came to pass."""
    died = 0
    for name, hit in crashes:
        with CrashAt(name, hit):
            try:
                await live(machine, target)
            except BaseException as error:
                if not is_crash(error):
                    raise
                died += 1
        machine.files.crash(machine.randomness)
    await live(machine, target)
    machine.files.crash()
    return died


def expected() -> list[str]:
    state: State = {}
    return [row(position, state) for position in range(1, LAST * 3 + 1)]


@pytest.mark.crash
@pytest.mark.parametrize("deciding", [False, True], ids=["repeatable", "deciding"])
@pytest.mark.parametrize("name", OURS)
def test_a_crash_at_each_step_loses_and_repeats_nothing(name: str, deciding: bool) -> None:
    for seed in range(3):
        # A recovery passes each of its steps once, the epochs after it theirs many times.
        for hit in [1] if FAILPOINTS[name].startswith("R") else [1, 2, 3, 4, 5]:
            target = Target(deciding)
            # The first life dies in its third epoch, so that there is something to recover.
            crashes = [("epoch.chosen", 3), (name, hit)]
            died = anyio.run(until_the_end, Machine(seed), target, crashes)

            assert [row for rows in target.rows.values() for row in rows] == expected()
            assert died == 2, f"{name} was not hit {hit} times"


@pytest.mark.crash
@given(
    st.lists(st.tuples(st.sampled_from(OURS), st.integers(1, 12)), max_size=6),
    st.integers(0, 1_000),
    st.booleans(),
)
def test_crashes_in_any_number_and_order_lose_and_repeat_nothing(
    crashes: list[tuple[str, int]], seed: int, deciding: bool
) -> None:
    target = Target(deciding)

    anyio.run(until_the_end, Machine(seed), target, crashes)

    assert [row for rows in target.rows.values() for row in rows] == expected()
