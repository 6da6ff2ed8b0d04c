from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from io import StringIO
from typing import NamedTuple

import msgspec
import pytest

from flowrt.connectors.console import ConsoleSink
from flowrt.contract.errors import ConfigError, SinkError
from flowrt.testing import check_sink
from tests.connectors.kit import sink_context

pytestmark = pytest.mark.anyio


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


async def test_rows_are_printed_as_they_come_up_to_a_number_for_each_epoch() -> None:
    file = StringIO()
    writer = await ConsoleSink(2, file=file).writer(sink_context(), [])

    await writer.write([{"a": 1}], None)
    assert file.getvalue() == "out: {'a': 1}\n"
    await writer.write(["two", 3, 4], None)
    assert await writer.prepare(7) is None
    await writer.write([5], None)
    await writer.close()

    assert file.getvalue().splitlines() == [
        "out: {'a': 1}",
        "out: two",
        "out, epoch 7: … and 2 more rows",
        "out: 5",
    ]


async def test_standard_output_is_the_place_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    sink = ConsoleSink(title="late")
    writer = await sink.writer(sink_context(subtask=1, parallelism=2), [])

    await writer.write(["x" * 1_000], None)

    printed = capsys.readouterr().out
    assert printed.startswith("late[1]: xxx")
    assert len(printed) < 220


async def test_a_terminal_gets_a_table_for_each_epoch() -> None:
    @dataclass
    class Airport:
        name: str
        delay: float

    class Carrier(msgspec.Struct):
        name: str

    class Pair(NamedTuple):
        key: str
        flights: int

    file = Terminal()
    writer = await ConsoleSink(6, file=file).writer(sink_context(), [])
    rows = [Airport("JFK", 1.5), Carrier("[UA]"), {"delay": 3}, (1, 2), "text", Pair("k", 9)]

    await writer.write([*rows, 8], None)
    assert file.getvalue() == ""
    await writer.prepare(7)

    printed = file.getvalue()
    for text in ("out, epoch 7", "name", "delay", "JFK", "1.5", "[UA]", "text", "flights", "9"):
        assert text in printed
    assert printed.endswith("out, epoch 7: … and 1 more rows\n")


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_a_file_that_cannot_be_written_is_an_error(is_terminal: bool) -> None:
    class Broken(StringIO):
        def isatty(self) -> bool:
            return is_terminal

        def write(self, text: str) -> int:
            raise OSError("broken pipe")

    writer = await ConsoleSink(file=Broken()).writer(sink_context(), [])

    async def print_a_row() -> None:
        await writer.write([1], None)
        await writer.prepare(1)

    with pytest.raises(SinkError, match="console sink 'out' cannot print: broken pipe"):
        await print_a_row()


@pytest.mark.parametrize("kind", [StringIO, Terminal], ids=["lines", "tables"])
async def test_what_could_not_be_printed_is_not_tried_again_when_closing(
    kind: type[StringIO],
) -> None:
    class Broken(kind):  # type: ignore[valid-type, misc]
        def write(self, text: str) -> int:
            raise OSError("broken pipe")

    writer = await ConsoleSink(1, file=Broken()).writer(sink_context(), [])

    async def print_rows() -> None:
        await writer.write([1, 2, 3], None)
        await writer.prepare(1)

    with pytest.raises(SinkError):
        await print_rows()

    await writer.close()


def test_options() -> None:
    assert ConsoleSink(5).describe() == "console (5 rows of each epoch)"
    with pytest.raises(ConfigError):
        ConsoleSink(-1)


@pytest.mark.parametrize("kind", [StringIO, Terminal], ids=["lines", "tables"])
async def test_laws(kind: type[StringIO]) -> None:
    files: dict[str, StringIO] = defaultdict(kind)
    row = r"^sink(?:\[\d\])?: row (\d)$" if kind is StringIO else r"^│ row (\d) *│$"

    def visible(place: str) -> list[str]:
        return [f"row {number}" for number in re.findall(row, files[place].getvalue(), re.M)]

    await check_sink(
        lambda place: ConsoleSink(file=files[place]),
        [f"row {number}" for number in range(7)],
        visible,
    )
