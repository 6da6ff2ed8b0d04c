"""State files against a plain dictionary: any changes, merged or not, read back the same."""

from __future__ import annotations

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrt.checkpoint.names import STATE_FOLDER
from flowrt.checkpoint.writer import StateWriter, Subtask
from tests.checkpoint.kit import ALL_GROUPS, FOLDER, Machine, State, frozen, load_state

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
