"""Files as a sink, on a real disk. What a crash leaves is in test_files_sink_crash.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowrt.connectors.files.sink import FileSink
from flowrt.connectors.files.source import FileSource
from flowrt.contract.errors import ConfigError, LeaseError, SinkError
from flowrt.contract.sink import Writer
from flowrt.testing.world import MemoryFiles, manual_world
from tests.connectors.kit import read_all, sink_context

pytestmark = pytest.mark.anyio


async def begin(sink: FileSink) -> Writer[Any]:
    await sink.recover(None, [], sink_context())
    return await sink.writer(sink_context(), [])


async def write_epoch(
    sink: FileSink,
    writer: Writer[Any],
    epoch: int,
    values: Sequence[Any],
    final: bool = False,
) -> Any:
    """Write, prepare and commit an epoch; return its committable."""
    await writer.write(values, None)
    committable = await writer.prepare(epoch, final)
    await sink.commit(epoch, [] if committable is None else [committable])
    return committable


def visible(folder: Path) -> dict[str, str]:
    """Return the visible files: name to content."""
    return {
        path.name: path.read_text()
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
    }


def staged(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*.jsonl"))


async def test_an_epoch_appears_when_it_is_committed(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "a" / "out")
    writer = await begin(sink)

    await writer.write([{"a": 1}, ("k", 2)], None)
    prepared = await writer.prepare(12)
    assert visible(tmp_path / "a" / "out") == {}
    await sink.commit(12, [prepared])
    await sink.commit(12, [prepared])

    assert visible(tmp_path / "a" / "out") == {"part-00000012-0-000000.jsonl": '{"a":1}\n["k",2]\n'}
    assert staged(tmp_path / "a" / "out") == []


async def test_an_epoch_without_records_makes_no_file(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    writer = await begin(sink)

    await writer.write([], None)

    assert await writer.prepare(1) is None
    assert visible(tmp_path) == {}


async def test_parts_are_rolled_by_size(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, roll_bytes=10)
    writer = await begin(sink)

    for number in (11_111, 22_222, 33_333):
        await writer.write([number], None)
    await write_epoch(sink, writer, 1, [4])

    assert visible(tmp_path) == {
        "part-00000001-0-000000.jsonl": "11111\n22222\n",
        "part-00000001-0-000001.jsonl": "33333\n4\n",
    }


async def test_parts_are_in_order_by_name(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, roll_bytes=3)
    writer = await begin(sink)

    for number in range(10, 122):
        await writer.write([number], None)
    await write_epoch(sink, writer, 1, [])

    assert [*map(int, visible(tmp_path).values())] == [*range(10, 122)]


async def test_much_is_written_before_the_epoch_ends(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    writer = await begin(sink)

    await writer.write(["x" * 1_000] * 1_100, None)
    (name,) = staged(tmp_path)

    assert (tmp_path / name).stat().st_size == 1_003 * 1_100


async def test_subtasks_write_parts_of_their_own(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    await sink.recover(None, [], sink_context())
    writers = [
        await sink.writer(sink_context(subtask=index, parallelism=2), []) for index in (0, 1)
    ]
    for index, writer in enumerate(writers):
        await writer.write([index], None)

    await sink.commit(3, [await writer.prepare(3) for writer in writers])

    assert visible(tmp_path) == {
        "part-00000003-0-000000.jsonl": "0\n",
        "part-00000003-1-000000.jsonl": "1\n",
    }


async def test_each_csv_part_has_a_header(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, "csv")
    writer = await begin(sink)

    for epoch in (1, 2):
        await write_epoch(sink, writer, epoch, [{"a": epoch, "b": "x,y"}])

    assert visible(tmp_path) == {
        "part-00000001-0-000000.csv": 'a,b\n1,"x,y"\n',
        "part-00000002-0-000000.csv": 'a,b\n2,"x,y"\n',
    }
    source = FileSource(tmp_path / "part-00000002-*", "csv")
    assert await read_all(source) == [{"a": "2", "b": "x,y"}]


async def test_a_part_of_several_epochs_appears_when_it_is_full(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, roll_epochs=3)
    writer = await begin(sink)

    seen = []
    for epoch in (1, 2, 3, 4):
        await write_epoch(sink, writer, epoch, [epoch])
        seen.append(visible(tmp_path))
    await write_epoch(sink, writer, 5, [], final=True)

    first = {"part-00000001-0-000000.jsonl": "1\n2\n3\n"}
    assert seen == [{}, {}, first, first]
    assert visible(tmp_path) == first | {"part-00000004-0-000000.jsonl": "4\n"}


async def test_an_open_part_goes_on_after_a_restart(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, "csv", roll_epochs=3)
    writer = await begin(sink)
    prepared = await write_epoch(sink, writer, 1, [{"b": 1, "a": 2}])
    await write_epoch(sink, writer, 2, [{"b": 3, "a": 4}])  # its manifest was never written

    again = FileSink(tmp_path, "csv", roll_epochs=3)
    ctx = sink_context(generation=2)
    await sink.close()
    await again.recover(1, [prepared], ctx)
    writer = await again.writer(ctx, [prepared])
    await write_epoch(again, writer, 2, [{"a": 6, "b": 5}])
    await write_epoch(again, writer, 3, [])

    assert visible(tmp_path) == {"part-00000001-0-000000.csv": "b,a\n1,2\n5,6\n"}


async def test_an_open_part_that_nobody_goes_on_writing_is_cut_back(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, roll_epochs=5)
    writer = await begin(sink)
    prepared = await write_epoch(sink, writer, 1, [1])
    await write_epoch(sink, writer, 2, [2])  # its manifest was never written

    await sink.close()
    await sink.recover(1, [prepared], sink_context(generation=2))
    writer = await sink.writer(sink_context(generation=2), [prepared])
    await write_epoch(sink, writer, 2, [], final=True)

    assert visible(tmp_path) == {"part-00000001-0-000000.jsonl": "1\n"}


@pytest.mark.parametrize("parallelism", [1, 2, 5])
async def test_open_parts_survive_another_parallelism(tmp_path: Path, parallelism: int) -> None:
    sink = FileSink(tmp_path, roll_epochs=10)
    await sink.recover(None, [], sink_context())
    prepared = []
    for index in range(3):
        writer = await sink.writer(sink_context(subtask=index, parallelism=3), [])
        await writer.write([index], None)
        prepared.append(await writer.prepare(1))

    contexts = [
        sink_context(subtask=index, parallelism=parallelism, generation=2)
        for index in range(parallelism)
    ]
    await sink.close()
    await sink.recover(1, prepared, contexts[0])
    writers = [await sink.writer(ctx, prepared) for ctx in contexts]
    for writer in writers:
        await writer.write(["new"], None)
    await sink.commit(2, [await writer.prepare(2, final=True) for writer in writers])

    lines = "".join(visible(tmp_path).values()).split()
    assert sorted(lines) == sorted(["0", "1", "2", *['"new"'] * parallelism])
    assert staged(tmp_path) == []


@pytest.mark.parametrize(
    "changed", [{"format": "csv", "fields": ["a"]}, {"roll_epochs": 1}, {"roll_bytes": 1}]
)
async def test_an_open_part_is_finished_where_it_cannot_go_on(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    sink = FileSink(tmp_path, roll_epochs=3)
    prepared = await write_epoch(sink, await begin(sink), 1, [(1,)])

    other = FileSink(tmp_path, **{"roll_epochs": 3, **changed})
    await sink.close()
    await other.recover(1, [prepared], sink_context(generation=2))
    writer = await other.writer(sink_context(generation=2), [prepared])
    await write_epoch(other, writer, 2, [(2,)], final=True)

    assert "".join(visible(tmp_path).values()).split() in (["[1]", "[2]"], ["[1]", "a", "2"])


# ---------------------------------------------------------------------------------- whose files


async def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    others = [
        "notes.txt",
        "part-1.jsonl",
        "parts-00000009-0-000000.jsonl",
        ".part.other.abc",
        ".keep",
    ]
    for name in others:
        (tmp_path / name).write_text(name)
    sink = FileSink(tmp_path)
    await write_epoch(sink, await begin(sink), 1, [1])

    await sink.close()
    await sink.recover(1, [], sink_context())

    assert all((tmp_path / name).read_text() == name for name in others)


async def test_two_sinks_share_a_folder_with_prefixes_of_their_own(tmp_path: Path) -> None:
    for operator, prefix in (("clean", "part"), ("late", "part-late")):
        sink = FileSink(tmp_path, prefix=prefix)
        ctx = sink_context(operator=operator)
        await sink.recover(None, [], ctx)
        await write_epoch(sink, await sink.writer(ctx, []), 1, [operator])

    assert list(visible(tmp_path)) == [
        "part-00000001-0-000000.jsonl",
        "part-late-00000001-0-000000.jsonl",
    ]


async def test_two_sinks_with_one_prefix_are_refused(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    await sink.recover(None, [], sink_context(operator="clean/1"))
    await sink.commit(1, [])
    await sink.close()

    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            await FileSink(tmp_path).recover(None, [], sink_context(operator="late"))
        assert f"{tmp_path}/part-* belong to another sink" in str(caught.value)
        assert f"{tmp_path}/.part.clean%2F1.owner" in str(caught.value)
    await FileSink(tmp_path).recover(None, [], sink_context(operator="clean/1"))


async def test_two_sinks_that_claim_a_prefix_at_once_are_both_refused() -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)
    ctx = sink_context(world, operator="late")

    class Racing(MemoryFiles):
        async def write(self, path: str, chunks: Any) -> int:
            self.replace("out/.part.clean.owner", b"")
            return await super().write(path, chunks)

    racing = Racing()
    object.__setattr__(world, "files", racing)
    with pytest.raises(ConfigError, match="belong to another sink"):
        await FileSink("out").recover(None, [], ctx)
    assert racing.paths() == ["out/.part.clean.owner"]


async def test_a_sink_that_was_refused_leaves_nothing() -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)
    first = FileSink("out")
    ctx = sink_context(world)
    await first.recover(None, [], ctx)
    committable = await write_epoch(first, await first.writer(ctx, []), 1, [1])
    await first.close()
    before = files.paths()

    moved = FileSink("elsewhere")
    with pytest.raises(SinkError, match=r"lost .* bytes of epoch 1.*give the sink another name"):
        await moved.recover(1, [committable], ctx)
    await moved.close()
    assert files.paths() == before
    # As the error says: a sink of another name may write there.
    await FileSink("elsewhere").recover(None, [], sink_context(world, operator="late"))


async def test_parts_without_an_owner_are_not_marked_by_a_sink_that_is_refused() -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)
    files.replace("out/part-00000001-0-000000.jsonl", b"1\n")

    sink = FileSink("out")
    with pytest.raises(ConfigError, match="1 part of an earlier life"):
        await sink.recover(None, [], sink_context(world))
    await sink.close()

    assert files.paths() == ["out/part-00000001-0-000000.jsonl"]


async def test_a_mark_stays_where_the_sink_has_something() -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)
    ctx = sink_context(world)
    sink = FileSink("out")
    await sink.recover(None, [], ctx)
    writer = await sink.writer(ctx, [])
    await writer.write([1], None)
    await writer.prepare(1)
    await sink.close()
    assert "out/.part.out.owner" in files.paths()

    again = FileSink("out")
    await again.recover(None, [], ctx)
    await again.close()
    assert files.paths() == ["out/.part.lock", "out/.part.out.owner"]


async def test_a_mark_that_cannot_be_taken_away_is_told(caplog: pytest.LogCaptureFixture) -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)
    sink = FileSink("out")
    await sink.recover(None, [], sink_context(world))
    files.fail("delete", ".owner", OSError(13, "not now"))

    await sink.close()

    assert "left its mark in out: [Errno 13] not now" in caplog.text
    assert await files.lock("out/.part.lock") is not None


async def test_a_second_job_on_a_prefix_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    first = FileSink(tmp_path)
    writer = await begin(first)
    committable = await write_epoch(first, writer, 1, [1])
    await write_epoch(first, writer, 2, [2])

    with pytest.raises(
        LeaseError, match=r"another job writes to .*/part-\* and holds .*part\.lock"
    ):
        await FileSink(tmp_path).recover(1, [committable], sink_context(generation=2))
    assert len(visible(tmp_path)) == 2
    await begin(FileSink(tmp_path, prefix="late"))

    await first.close()
    await first.close()
    await FileSink(tmp_path).recover(1, [committable], sink_context(generation=2))


async def test_a_folder_is_taken_over_from_a_job_that_hangs(tmp_path: Path) -> None:
    first = FileSink(tmp_path)
    await begin(first)
    second = FileSink(tmp_path)
    await second.recover(None, [], replace(sink_context(generation=2), take_over=True))
    await first.close()

    with pytest.raises(LeaseError, match="another job writes"):
        await FileSink(tmp_path).recover(None, [], sink_context(generation=3))


async def test_it_is_told_how_many_parts_an_older_checkpoint_takes_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = FileSink(tmp_path)
    writer = await begin(sink)
    first = await write_epoch(sink, writer, 1, [1])
    await sink.close()
    await sink.recover(1, [first], sink_context(generation=2))
    assert caplog.text == ""
    for epoch in (2, 3):
        await write_epoch(sink, writer, epoch, [epoch])

    await sink.close()
    await sink.recover(1, [first], sink_context(generation=2))

    (told,) = caplog.records
    assert told.levelname == "WARNING"
    assert "goes on from epoch 1, so 2 parts of later epochs are taken away" in told.getMessage()
    assert len(visible(tmp_path)) == 1


async def test_results_of_an_earlier_life_are_not_mixed_with_new_ones(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    await write_epoch(sink, await begin(sink), 1, [1])

    await sink.close()
    with pytest.raises(ConfigError, match="1 part of an earlier life") as caught:
        await FileSink(tmp_path).recover(None, [], sink_context())
    assert "start it with the checkpoint folder that it had" in str(caught.value)
    assert list(visible(tmp_path)) == ["part-00000001-0-000000.jsonl"]


async def test_what_an_earlier_life_never_committed_is_taken_away(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    writer = await begin(sink)
    await writer.write([1], None)
    await writer.prepare(1)
    assert len(staged(tmp_path)) == 1

    await sink.close()
    await FileSink(tmp_path).recover(None, [], sink_context())

    assert staged(tmp_path) == []


# ---------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("folder", ["file", "file/out"])
async def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SinkError, match=f"sink 'out' cannot write {tmp_path}/{folder}: ") as caught:
        await FileSink(tmp_path / folder).recover(None, [], sink_context())
    assert "it is no folder, or lies below a file: give the sink another folder" in str(
        caught.value
    )


@pytest.mark.parametrize("operation", ["write_at", "sync", "sync_folder"])
async def test_a_full_disk_is_an_error_that_says_so(operation: Any) -> None:
    world = manual_world()
    files = world.files
    assert isinstance(files, MemoryFiles)
    sink = FileSink("out")
    await sink.recover(None, [], sink_context(world))
    writer = await sink.writer(sink_context(world), [])
    files.fail(operation, "out", OSError(28, "No space left on device"))

    with pytest.raises(SinkError, match="No space left on device; make room"):
        await write_epoch(sink, writer, 1, [1])


async def test_a_folder_that_went_away_is_an_error(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out")
    writer = await begin(sink)
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    (tmp_path / "out").rmdir()

    with pytest.raises(SinkError, match=r"did somebody delete it\? What was committed"):
        await write_epoch(sink, writer, 1, [1])


async def test_a_value_that_cannot_be_encoded_names_sink_and_type(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    writer = await begin(sink)

    with pytest.raises(SinkError, match="sink 'out': a value of type object cannot be written"):
        await writer.write([object()], None)


async def test_a_staged_file_that_was_lost_is_named(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    writer = await begin(sink)
    await writer.write([1], None)
    prepared: Any = await writer.prepare(1)
    (tmp_path / prepared["parts"][0]["staged"]).unlink()

    await sink.close()
    with pytest.raises(SinkError, match="sink 'out' lost 2 bytes of epoch 1: neither") as caught:
        await sink.recover(1, [prepared], sink_context())
    assert str(tmp_path / "part-00000001-0-000000.jsonl") in str(caught.value)


@pytest.mark.parametrize("content", [None, "short"])
async def test_an_open_part_that_was_lost_is_named(tmp_path: Path, content: str | None) -> None:
    sink = FileSink(tmp_path, roll_epochs=5)
    prepared = await write_epoch(sink, await begin(sink), 1, [123_456_789])
    (name,) = staged(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)

    await sink.close()
    with pytest.raises(SinkError, match=r"sink 'out' lost records: .* at least 10 bytes, but"):
        await sink.recover(1, [prepared], sink_context())


async def test_a_part_of_another_size_is_not_overwritten(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    writer = await begin(sink)
    (tmp_path / "part-00000001-0-000000.jsonl").write_text("of somebody else\n")

    with pytest.raises(SinkError, match="Does another job write to this folder"):
        await write_epoch(sink, writer, 1, [1])
    assert visible(tmp_path) == {"part-00000001-0-000000.jsonl": "of somebody else\n"}


# --------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "xml"}, "the format is"),
        ({"fields": ["a"]}, "fields names the columns"),
        ({"format": "csv", "fields": "ab"}, "fields names the columns"),
        ({"roll_epochs": 0}, "roll_epochs must be at least 1"),
        ({"roll_bytes": "12 parsecs"}, "is not a size"),
        ({"roll_bytes": 0}, "is not a size"),
        ({"prefix": "a/b"}, "the prefix 'a/b'"),
        ({"prefix": ".a"}, "the prefix '.a'"),
        ({"folder": ""}, "the folder of a FileSink is empty text"),
    ],
)
async def test_wrong_options_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FileSink(**{"folder": "out", **arguments})


async def test_what_a_sink_says_of_itself() -> None:
    sink = FileSink("out/", "csv", prefix="late", roll_bytes="1.5 MiB")

    assert sink.describe() == "files out/late-* (csv)"
    assert sink.kind == "repeatable"
