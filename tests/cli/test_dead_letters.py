"""`flowrt deadletters`: what is in the letters, and that each record is fed back once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from typer.testing import CliRunner, Result

import flowrt
from flowrt import DeadLetter, FileSink, FileSource, Flow, MemorySink, OnError, OutputTag
from flowrt.cli.app import app
from flowrt.cli.letters import read_letters
from flowrt.cli.replay import LOCK, replay
from flowrt.testing.memory_files import MemoryFiles
from flowrt.testing.world import SeededRandomness

BAD = OutputTag[DeadLetter]("bad")


def amount(order: dict[str, Any]) -> float:
    return 100 / order["amount"]  # type: ignore[no-any-return]


def flow_of(orders: list[Any], letters: Path) -> Flow:
    flow = Flow("orders", on_error=OnError.dead_letter(BAD))
    flow.source(orders, name="in").map(amount, name="amount").sink(MemorySink(), name="out")
    flow.dead_letters(BAD).sink(FileSink(letters), name="letters")
    return flow


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A folder with the letters of four orders: two of each kind."""
    orders = [
        {"id": 1, "amount": 0},
        {"id": 2, "amount": 5},
        {"id": 3},
        {"id": 4, "amount": 0},
        {"id": 5, "at": 2**70},
    ]
    folder = tmp_path / "letters"
    flowrt.run(flow_of(orders, folder), checkpoints=tmp_path / "kept")
    (folder / ".hidden.jsonl").write_text("not committed")
    return folder


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["deadletters", *map(str, arguments)])


def fed_back(folder: Path) -> list[Any]:
    files = sorted(folder.glob("[!.]*"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_the_list_counts_by_operator_and_error(letters: Path) -> None:
    done = call("list", letters)

    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()[3:] if line.strip()]
    assert rows == [
        ["2", "amount", "KeyError", "'amount'"],
        ["2", "amount", "ZeroDivisionError", "division", "by", "zero"],
    ]
    listed = json.loads(call("list", letters, "--error", "KeyError", "--json").stdout)
    assert listed == [
        {"operator": "amount", "error": "KeyError", "letters": 2, "message": "'amount'"}
    ]
    assert call("list", letters, "--operator", "other").stdout == "no dead letters\n"


def test_letters_are_shown_with_all_they_say(letters: Path) -> None:
    done = call("show", letters, "--limit", 1)

    assert done.exit_code == 0
    assert "amount: ZeroDivisionError: division by zero\n" in done.stdout
    assert '  value     {"id":1,"amount":0}\n' in done.stdout
    assert "  where     source 'in', split " in done.stdout
    assert 'return 100 / order["amount"]' in done.stdout
    assert "3 more: --limit shows them" in done.stdout
    (one,) = json.loads(call("show", letters, "--limit", 1, "--json").stdout)
    assert (one["value"], one["attempts"]) == ({"id": 1, "amount": 0}, 1)


def test_a_letter_is_fed_back_once(letters: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"

    dry = call("replay", letters, "--into", again, "--dry-run")
    assert dry.stdout == "4 would be fed back\n"
    assert not again.exists()

    first = call("replay", letters, "--into", again, "--error", "KeyError")
    assert first.exit_code == 0
    assert first.stdout == f"2 fed back as {again}/replay-000001.jsonl\n"
    assert fed_back(again) == [{"id": 3}, {"id": 5, "at": 2**70}]

    second = call("replay", letters, "--into", again)
    assert second.stdout == (
        f"2 fed back as {again}/replay-000002.jsonl; 2 were before: --again feeds them back once "
        "more\n"
    )
    assert [order["id"] for order in fed_back(again)] == [3, 5, 1, 4]

    third = call("replay", letters, "--into", again)
    assert third.stdout.startswith("0 fed back; 4 were before")
    assert call("replay", letters, "--into", again, "--again").stdout.startswith("4 fed back")
    assert [order["id"] for order in fed_back(again)] == [3, 5, 1, 4, 1, 3, 4, 5]


def test_a_file_that_was_moved_is_known(letters: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    call("replay", letters, "--into", again)
    moved = letters.rename(tmp_path / "moved")

    (part,) = moved.glob("part-*")
    assert call("replay", part, "--into", again).stdout.startswith("0 fed back; 4 were before")


def test_the_flow_reads_what_is_fed_back(letters: Path, tmp_path: Path) -> None:
    call("replay", letters, "--into", tmp_path / "again", "--error", "ZeroDivisionError")
    flow, results = Flow("orders"), MemorySink[float]()
    orders: flowrt.Stream[Any] = flow.source([{"id": 9, "amount": 50}])
    again = flow.source(FileSource[Any](tmp_path / "again"))
    orders.union(again).map(lambda order: 100 / (order["amount"] or 1)).sink(results)

    flowrt.run(flow)

    assert sorted(results.rows) == [2, 100, 100]


def test_timers_have_no_record_to_feed_back(tmp_path: Path) -> None:
    letter = DeadLetter(None, "k", 5, "alarm", "ValueError", "no", "", 1, "timer at 5")
    nothing = DeadLetter(None, None, None, "map", "ValueError", "no", "", 1)
    file = tmp_path / "letters.jsonl"
    file.write_bytes(msgspec.json.Encoder().encode_lines([letter, nothing]))

    done = call("replay", file, "--into", tmp_path / "again")

    assert done.stdout.endswith("replay-000001.jsonl; 1 of timers, which have no record\n")
    assert fed_back(tmp_path / "again") == [None]
    assert '  key       "k"\n' in call("show", file).stdout


def test_what_is_wrong_is_said(letters: Path, tmp_path: Path) -> None:
    gone = call("list", tmp_path / "gone")
    assert gone.exit_code == 2
    assert "there is no file or folder" in gone.stderr

    (letters / "other.jsonl").write_text('\n{"value": 1}\n')
    other = call("replay", letters, "--into", tmp_path / "again")
    assert other.exit_code == 1
    assert "other.jsonl, byte 1: this is no dead letter" in other.stderr
    assert call("replay", letters).exit_code == 2


# ------------------------------------------------------------------------------------ crashes

LETTERS = [DeadLetter(n, None, None, "map", "ValueError", "no", "", 1) for n in range(6)]


class Dies(BaseException):
    pass


class Mortal:
    """Files of a process that dies before its n-th operation."""

    def __init__(self, files: MemoryFiles, lives: int) -> None:
        self._files = files
        self._lives = lives

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._files, name)

        async def counted(*arguments: Any) -> Any:
            if not self._lives:
                raise Dies
            self._lives -= 1
            return await operation(*arguments)

        return counted


async def _feed(files: Any, count: int) -> None:
    lines = msgspec.json.Encoder().encode_lines(LETTERS[:count])
    letters = MemoryFiles()
    await letters.make_folder("/in")
    await letters.write("/in/part-1.jsonl", [lines])
    found = await read_letters(letters, ["/in"])
    await replay(files, found, "/again", again=False, dry_run=False)


@pytest.mark.parametrize("seed", range(20))
def test_a_crash_at_any_moment_neither_loses_nor_doubles(seed: int) -> None:
    async def story(lives: int) -> bool:
        files, died = MemoryFiles(), False
        await _feed(files, 2)
        try:
            await _feed(Mortal(files, lives), 4)
        except Dies:
            died = True
            files.crash(SeededRandomness(seed))
        await _feed(files, 6)
        names = [name for name in await files.names("/again") if name.startswith("replay-")]
        data = [await files.read(f"/again/{name}") for name in names]
        assert sorted(int(line) for part in data for line in part.splitlines()) == [*range(6)]
        return died

    lives = 0
    while anyio.run(story, lives):
        lives += 1
    assert lives > 10


def test_two_replays_at_once_are_refused() -> None:
    async def story() -> None:
        files = MemoryFiles()
        await files.make_folder("/again")
        held = await files.lock(f"/again/{LOCK}")
        assert held is not None
        with pytest.raises(flowrt.ConfigError, match="another replay writes to /again"):
            await _feed(files, 1)

    anyio.run(story)
