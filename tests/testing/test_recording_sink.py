"""RecordingSink: what was asked of it, and failures as data."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flowrt.contract.errors import ConfigError, SinkError
from flowrt.contract.sink import SinkContext
from flowrt.testing import RecordingSink, ScriptedSinkFailure, manual_world

pytestmark = pytest.mark.anyio

CONTEXT = SinkContext("here", 0, 1, 1, manual_world())


async def test_rows_appear_at_the_commit() -> None:
    sink: RecordingSink[str] = RecordingSink()
    await sink.recover(None, [], CONTEXT)
    writer = await sink.writer(CONTEXT, [])

    await writer.write(["a", "b"], None)
    prepared = await writer.prepare(1)
    assert sink.rows == []
    await sink.commit(1, [prepared])
    await sink.commit(1, [prepared])
    assert await writer.prepare(2) is None
    await sink.commit(2, [])
    await writer.close()
    await sink.close()

    assert sink.rows == ["a", "b"]
    assert sink.epochs == [1, 2]
    assert sink.calls == [
        "recover None",
        "writer 0",
        "write 2",
        "prepare 1",
        "commit 1",
        "commit 1",
        "prepare 2",
        "commit 2",
        "writer close",
        "close",
    ]


async def test_direct_rows_appear_as_they_are_written() -> None:
    sink: RecordingSink[str] = RecordingSink(kind="direct")
    writer = await sink.writer(CONTEXT, [])

    await writer.write(["a"], None)

    assert sink.rows == ["a"]
    assert sink.describe() == "recording (direct)"


@pytest.mark.parametrize("step", ["recover", "writer", "write", "prepare", "commit", "committed"])
async def test_it_fails_where_it_was_told_to_and_only_there(step: Any) -> None:
    sink: RecordingSink[str] = RecordingSink(fail_on=[(step, 1)])
    prepared: list[Any] = []

    async def live() -> None:
        await sink.recover(None, [], CONTEXT)
        writer = await sink.writer(CONTEXT, [])
        await writer.write(["a"], None)
        prepared[:] = [await writer.prepare(1)]
        await sink.commit(1, prepared)

    with pytest.raises(ScriptedSinkFailure, match=f"{step} number 1 fails, as scripted"):
        await live()
    assert sink.rows == (["a"] if step == "committed" else [])
    if step in ("commit", "committed"):
        await sink.recover(1, prepared, CONTEXT)
    else:
        await live()
    assert sink.rows == ["a"]


async def test_parts_that_were_lost_are_missed() -> None:
    sink: RecordingSink[str] = RecordingSink()

    with pytest.raises(SinkError, match="epoch 1 is to be committed, but lost 1 part"):
        await sink.commit(1, [7])


@pytest.mark.parametrize("fault", [("prepare", 0), ("close", 1)])
async def test_a_fault_that_cannot_be_is_refused(fault: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(fault))):
        RecordingSink(fail_on=[fault])
