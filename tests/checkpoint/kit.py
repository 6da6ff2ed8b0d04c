"""What the tests of the checkpoint room share: small states, manifests, a store in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from flowrt.checkpoint.lease import Lease
from flowrt.checkpoint.manifest import Manifest
from flowrt.checkpoint.store import DirectoryStore
from flowrt.contract.entries import CLEAR, VALUE, WRITE, add_entry, read_entries
from flowrt.contract.failpoints import arm_failpoints
from flowrt.contract.snapshot import Block, OperatorSnapshot, StateFile
from flowrt.contract.state import KEY_GROUPS
from flowrt.contract.world import World
from flowrt.testing.world import ManualClock, MemoryFiles, SeededRandomness

FOLDER = "/data/checkpoints"
ALL_GROUPS = range(KEY_GROUPS)

State = dict[str, str]


class CrashError(BaseException):
    """The process dies here: no handler of ours may catch it."""


def group_of(key: str) -> int:
    """Spread keys over the key groups: by their last two digits."""
    return int(key[-2:]) % KEY_GROUPS


def blocks_of(changes: Mapping[str, str | None], state: str = "value") -> list[Block]:
    """Encode changes of a value state, one block for each key group; None deletes."""
    groups: dict[int, dict[str, str | None]] = {}
    for key, value in changes.items():
        groups.setdefault(group_of(key), {})[key] = value
    blocks = []
    for group, entries in groups.items():
        data = bytearray([VALUE])
        for key, value in entries.items():
            if value is None:
                add_entry(data, CLEAR, key.encode())
            else:
                add_entry(data, WRITE, key.encode(), b"", value.encode())
        blocks.append(Block(state, group, len(entries), bytes(data)))
    return blocks


def state_of(blocks: Iterable[Block]) -> State:
    """Replay blocks, oldest first."""
    state: State = {}
    for block in blocks:
        for entry in read_entries(block):
            if entry.operation == WRITE:
                state[entry.key.decode()] = entry.value.decode()
            else:
                state.pop(entry.key.decode(), None)
    return state


class SlicedFrozen:
    """A frozen state that takes three slices to encode."""

    def __init__(self, blocks: list[Block], *, is_whole: bool = False) -> None:
        self._blocks = blocks
        self.is_whole = is_whole

    def encode(self) -> Iterator[list[Block]]:
        yield []
        yield []
        yield self._blocks


def frozen(changes: Mapping[str, str | None]) -> SlicedFrozen:
    return SlicedFrozen(blocks_of(changes))


class Machine:
    """A machine with a disk in memory, on which instances of a job come and go."""

    def __init__(self, seed: int = 0, *, lose_folders: bool = False) -> None:
        self.clock = ManualClock(1_000)
        self.files = MemoryFiles(lose_folders=lose_folders)
        self.randomness = SeededRandomness(seed)
        self._pid = 0

    def world(self) -> World:
        """A world for one more process."""
        self._pid += 1
        return World(self.clock, self.files, self.randomness, "testhost", self._pid)

    async def store(
        self, *, flow: str = "orders", take_over: bool = False, keep: int = 2
    ) -> DirectoryStore:
        """Start an instance: take the lease, open the store."""
        lease = await Lease.take(self.world(), FOLDER, take_over=take_over)
        store = DirectoryStore(self.files, FOLDER, flow, lease, keep)
        await store.make_state_folder()
        return store

    def reader(self, flow: str = "orders", folder: str = FOLDER) -> DirectoryStore:
        """Open a store to look into it."""
        return DirectoryStore(self.files, folder, flow)


def manifest(
    store: DirectoryStore, epoch: int, operators: Iterable[OperatorSnapshot] = (), **more: object
) -> Manifest:
    """A manifest of the store's flow and generation."""
    whole = Manifest(
        flow=store.flow,
        epoch=epoch,
        generation=store.lease.generation,
        created_ms=1_000,
        delivery="exactly_once",
        operators=list(operators),
    )
    return msgspec.structs.replace(whole, **more)


async def load_state(store: DirectoryStore, state_files: Iterable[StateFile]) -> State:
    """Read state files and replay them."""
    return state_of([block async for blocks in store.load(state_files) for block in blocks])


class CrashAt:
    """Dies at the given hit (from 1) of a failpoint; counts all hits."""

    def __init__(self, name: str, hit: int = 1) -> None:
        self.name = name
        self.left = hit
        self.hits: list[str] = []

    def __call__(self, name: str) -> None:
        self.hits.append(name)
        if name == self.name:
            self.left -= 1
            if self.left == 0:
                raise CrashError(name)

    def __enter__(self) -> CrashAt:
        arm_failpoints(self)
        return self

    def __exit__(self, *_: object) -> None:
        arm_failpoints(None)
