"""State files against a plain dictionary: any changes, merged or not, read back the same."""

from __future__ import annotations

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrt.checkpoint.names import STATE_FOLDER
from flowrt.checkpoint.writer import StateWriter, Subtask
from flowrt.contract.snapshot import Block, StateFile
from flowrt.contract.state import MapState
from flowrt.state.memory import MemoryBackend
from tests.checkpoint.kit import ALL_GROUPS, FOLDER, Machine, State, frozen, load_state
from tests.state.kit import Scope

KEYS = st.integers(0, 12).map(lambda n: f"key{n:02}")
CHANGES = st.dictionaries(KEYS, st.none() | st.text("ab", max_size=200), max_size=8)


@given(st.lists(CHANGES, max_size=25))
@settings(max_examples=40)
def test_what_was_written_is_what_is_loaded(epochs: list[dict[str, str | None]]) -> None:
    async def story() -> None:
        machine = Machine()
        await machine.files.make_folder(f"{FOLDER}/{STATE_FOLDER}")
        writes = StateWriter(machine.files, Subtask(FOLDER, "count", 0, ALL_GROUPS, 1))
        model: State = {}
        for epoch, changes in enumerate(epochs):
            files = await writes.write(epoch, frozen(changes))
            for key, value in changes.items():
                model.pop(key, None)
                if value is not None:
                    model[key] = value
            machine.files.crash()
            assert await load_state(machine.reader(), files) == model

    anyio.run(story)


TABLES = st.sampled_from(["one", "two"])
SMALL_KEYS: st.SearchStrategy[int | str] = st.integers(0, 3) | st.sampled_from("ab")
OPERATIONS = st.tuples(TABLES, SMALL_KEYS, st.none() | st.integers(0, 2**65))
MAP_NAMES = st.integers(0, 1)


@given(
    st.lists(st.lists(OPERATIONS, max_size=12), max_size=12),
    st.booleans(),
    st.sets(st.tuples(st.integers(0, 11), MAP_NAMES)),
)
def test_tables_come_back_from_their_files(
    epochs: list[list[tuple[str, int | str, int | None]]],
    declare_map: bool,
    in_map: set[tuple[int, int]],
) -> None:
    """Also where an epoch writes every key, so that the files before it are let go."""

    async def story() -> None:
        machine = Machine()
        await machine.files.make_folder(f"{FOLDER}/{STATE_FOLDER}")
        writes = StateWriter(machine.files, Subtask(FOLDER, "count", 0, ALL_GROUPS, 1))
        backend, scope = MemoryBackend("count"), Scope(1)
        tables = {name: backend.table(name, int) for name in ("one", "two")}
        names = backend.handle(MapState(name="names"), scope) if declare_map else None
        model: dict[str, dict[int | str, int]] = {"one": {}, "two": {}}
        for epoch, operations in enumerate(epochs):
            for table, key, value in operations:
                if value is None:
                    tables[table].delete(key)
                    model[table].pop(key, None)
                else:
                    tables[table].put(key, value)
                    model[table][key] = value
            for name in (0, 1):
                if names is not None and (epoch, name) in in_map:
                    names.remove(name) if name in names else names.put(name, epoch)
            files = await writes.write(epoch, backend.freeze())
            if operations and not model["two"] and names is None:
                covers = {key for table, key, _ in operations if table == "one"} >= set(
                    model["one"]
                )
                assert len(files) == 1 or not covers or not model["one"]

            again = MemoryBackend("count")
            again.load(await blocks_in(machine, files))
            for table, values in model.items():
                assert dict(again.table(table, int).items()) == values
            if names is not None:
                restored = again.handle(MapState(name="names"), scope)
                assert dict(restored.items()) == dict(names.items())

    anyio.run(story)


async def blocks_in(machine: Machine, files: list[StateFile]) -> list[Block]:
    """All blocks of some files, oldest first."""
    return [block async for blocks in machine.reader().load(files) for block in blocks]
