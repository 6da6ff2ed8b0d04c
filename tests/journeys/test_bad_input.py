"""What a user gets wrong, as the user sees it: each message says what, where, and what to do."""

from __future__ import annotations

import os
import sys
from errno import EACCES
from pathlib import Path
from typing import Any

import msgspec
import pytest

import flowrt
from flowrt import (
    CheckpointError,
    ConfigError,
    FileSink,
    FileSource,
    Flow,
    InputError,
    MemorySink,
    OperatorError,
    SinkError,
    StateError,
    ValueState,
)
from tests.journeys.kit import Place

pytestmark = pytest.mark.anyio


class Order(msgspec.Struct):
    id: int
    amount: float


async def fails(flow: Flow, kind: type[flowrt.FlowrtError], **options: Any) -> str:
    """Run a flow that must fail; return what its error says."""
    with pytest.raises(kind) as error:
        async with flowrt.start(flow, **options) as job:
            await job.wait()
    return str(error.value)


def reading(path: Path, format: Any, **how: Any) -> Flow:
    flow = Flow("reading")
    flow.source(FileSource(path, format, **how), name="orders").sink(MemorySink(), name="out")
    return flow


async def test_a_broken_json_line_is_told_with_file_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_bytes(b'{"id": 1, "amount": 2}\n{"id": 2, "amount"\n')

    text = await fails(reading(path, "jsonl", type=Order), InputError)

    assert str(path) in text
    assert "byte 23" in text
    assert '{"id": 2, "amount"' in text


async def test_a_value_of_the_wrong_type_is_told_with_file_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_bytes(b'{"id": 1, "amount": 2}\n{"id": "two", "amount": 2}\n')

    text = await fails(reading(path, "jsonl", type=Order), InputError)

    assert str(path) in text
    assert "byte 23" in text
    assert "$.id" in text


async def test_a_broken_csv_line_is_told_with_file_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(b"id,amount\n1,2.5\n2,much\n")

    text = await fails(reading(path, "csv", type=Order), InputError)

    assert str(path) in text
    assert "byte 16" in text
    assert "amount" in text


async def test_what_came_before_a_broken_line_is_kept_by_its_epoch(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_bytes(b'{"id": 1, "amount": 2}\nnonsense\n')
    kept = tmp_path / "kept"
    await fails(reading(path, "jsonl", type=Order), InputError, checkpoints=kept)

    path.write_bytes(b'{"id": 1, "amount": 2}\n{"id": 2, "amount": 3}\n')
    sink = MemorySink[Order]()
    flow = Flow("reading")
    flow.source(FileSource(path, type=Order), name="orders").sink(sink, name="out")
    async with flowrt.start(flow, checkpoints=kept) as job:
        await job.wait()

    assert [order.id for order in sink.rows] == [1, 2]


async def test_a_missing_file_is_told_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.jsonl"

    text = await fails(reading(path, "jsonl"), ConfigError)

    assert str(path) in text


async def test_a_file_in_place_of_a_checkpoint_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("not a folder")
    (tmp_path / "in.txt").write_text("a\n")

    text = await fails(
        reading(tmp_path / "in.txt", "text"), ConfigError, checkpoints=tmp_path / "kept"
    )

    assert str(tmp_path / "kept") in text


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="nothing is forbidden to this user"
)
async def test_an_unwritable_folder_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\n")
    (tmp_path / "locked").mkdir(mode=0o500)

    text = await fails(
        reading(tmp_path / "in.txt", "text"), CheckpointError, checkpoints=tmp_path / "locked/kept"
    )
    assert "Give the job's user the right to write there" in text

    flow = Flow("writing")
    flow.source([1]).sink(FileSink(tmp_path / "locked/out"), name="out")
    text = await fails(flow, SinkError, checkpoints=tmp_path / "kept")
    assert "sink 'out' cannot write" in text
    assert "give the sink a folder that this process may write to" in text


async def test_a_forbidden_folder_is_told_with_what_to_do() -> None:
    forbidden = OSError(EACCES, "Permission denied")
    flow = Flow("writing")
    flow.source([1]).sink(FileSink("/out"), name="out")
    place = Place()
    place.files.fail("make_folder", "/checkpoints", forbidden)
    with pytest.raises(CheckpointError, match="Give the job's user the right to write there"):
        await place.run(flow)

    place.files.fail("make_folder", "/out", forbidden)
    with pytest.raises(SinkError, match=r"sink 'out' cannot write /out: Permission denied; give"):
        await place.run(flow)


async def test_an_output_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("not a folder")
    flow = Flow("writing")
    flow.source([1]).sink(FileSink(tmp_path / "out"), name="rows")

    text = await fails(flow, SinkError, checkpoints=tmp_path / "kept")

    assert "sink 'rows' cannot write" in text
    assert str(tmp_path / "out") in text


async def test_the_checkpoints_of_another_flow_are_told_with_both_names(tmp_path: Path) -> None:
    first, second = Flow("first"), Flow("second")
    for flow in (first, second):
        flow.source([1]).sink(MemorySink())
    async with flowrt.start(first, checkpoints=tmp_path) as job:
        await job.wait()

    text = await fails(second, ConfigError, checkpoints=tmp_path)

    assert f"{tmp_path} holds checkpoints of flow 'first', not of 'second'" in text
    assert "give each flow a folder of its own" in text


class Socket:
    """Something that cannot be encoded."""


class Keeper(flowrt.Operator[int, int]):
    held = ValueState[Any](name="connection")

    def process(self, value: int, ctx: flowrt.Context) -> None:
        self.held.set(Socket())


async def test_a_state_value_that_cannot_be_encoded_is_told_when_it_is_written() -> None:
    flow = Flow("keeping")
    flow.source([7]).key_by(lambda n: n).process(Keeper, name="keeper").sink(MemorySink())

    with pytest.raises(StateError) as error:
        await Place().run(flow)

    text = str(error.value)
    for part in ("operator 'keeper'", "state 'connection'", "7", "Socket"):
        assert part in text


async def test_a_key_that_cannot_be_kept_is_told_with_its_step() -> None:
    flow = Flow("keys")
    flow.source([[1]]).key_by(lambda value: value, name="by-list").count().sink(  # type: ignore[type-var]
        MemorySink()
    )

    with pytest.raises(flowrt.FlowrtError) as error:
        await Place().run(flow)

    assert "list" in str(error.value)


async def test_a_raising_function_is_told_with_step_and_record() -> None:
    flow = Flow("raising")
    rows: list[dict[str, Any]] = [{"id": 1}, {"name": "x"}]
    flow.source(rows).map(lambda row: row["id"], name="pick").sink(MemorySink())

    with pytest.raises(OperatorError) as error:
        await Place().run(flow)

    text = str(error.value)
    for part in ("operator 'pick'", "KeyError", "{'name': 'x'}"):
        assert part in text


async def test_a_raising_timestamp_function_is_told_with_source_and_record() -> None:
    flow = Flow("timeless")
    in_time = flowrt.WatermarkStrategy.monotonous().with_timestamps(lambda row: row["at"])
    flow.source([{"at": 1}, {}], name="rows", watermarks=in_time).sink(MemorySink())

    with pytest.raises(OperatorError) as error:
        await Place().run(flow)

    text = str(error.value)
    for part in ("timestamp function of 'rows'", "KeyError", "{}", "ms since 1970"):
        assert part in text


async def test_a_value_that_a_sink_cannot_write_is_told_with_the_sink(tmp_path: Path) -> None:
    flow = Flow("writing")
    flow.source([Socket()]).sink(FileSink(tmp_path / "out"), name="rows")

    text = await fails(flow, SinkError, checkpoints=tmp_path / "kept")

    assert "sink 'rows'" in text
    assert "Socket" in text
