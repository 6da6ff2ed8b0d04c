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
from flowrt import (
    DeadLetter,
    FileSink,
    FileSource,
    FixedDelay,
    Flow,
    MemorySink,
    OnError,
    OutputTag,
)
from flowrt.cli.app import app
from flowrt.cli.letters import read_letters
from flowrt.cli.replay import LOCK, replay
from flowrt.testing.memory_files import MemoryFiles
from flowrt.testing.script import FAIL
from flowrt.testing.scripted_source import ScriptedSource
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
        {
            "operator": "amount",
            "error": "KeyError",
            "letters": 2,
            "kept_as_text": 0,
            "message": "'amount'",
        }
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


def test_a_copy_under_another_name_is_another_file_of_letters(
    letters: Path, tmp_path: Path
) -> None:
    """Two orders that are alike have letters that are alike, and both are to be fed back."""
    again, copy = tmp_path / "again", tmp_path / "copy.jsonl"
    call("replay", letters, "--into", again)
    (part,) = letters.glob("part-*")
    copy.write_bytes(part.read_bytes())

    assert call("replay", copy, "--into", again).stdout.startswith("4 fed back")


def test_letters_are_not_fed_back_among_themselves(letters: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(letters)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to("../link")
    before = sorted(letters.rglob("*"))

    for source in ("letters", "link", "here/../letters"):
        for into in ("letters", "letters/again", "link", "here/link"):
            for option in ("--again", "--dry-run"):
                done = call("replay", tmp_path / source, "--into", tmp_path / into, option)
                assert done.exit_code == 2
                assert "is where the letters of" in done.stderr.replace("\n", " ")

    assert sorted(letters.rglob("*")) == before


def test_letters_of_a_file_are_not_fed_back_beside_it(letters: Path, tmp_path: Path) -> None:
    (part,) = letters.glob("part-*")
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "link.jsonl"
    link.symlink_to(part)

    assert call("replay", part, "--into", letters).exit_code == 2
    assert call("replay", link, "--into", letters).exit_code == 2
    assert call("replay", link, "--into", tmp_path / "here").exit_code == 2
    assert call("replay", part, "--into", tmp_path / "here").exit_code == 0


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


# ------------------------------------------------------------------------ what JSON cannot hold


class Order:
    """What a user's program passes along."""

    def __repr__(self) -> str:
        return "Order(7)"


class Shy:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        raise ValueError("no")


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


POISON: list[tuple[Any, str, str]] = [
    (Order(), "Order(7)", "objects of type Order"),
    (Shy(), "<Shy whose repr raises ValueError>", "objects of type Shy"),
    (1 + 2j, "(1+2j)", "objects of type complex"),
    ({"of": {1j}}, "{'of': {1j}}", "objects of type complex"),
    ({(1, 2): 3}, "{(1, 2): 3}", "Only dicts with"),
    (float("nan"), "nan", "it is nan or infinite"),
    ({"a": [1, float("-inf")]}, "{'a': [1, -inf]}", "its ['a'][1] is nan or infinite"),
    ("\udcff", "'\\udcff'", "surrogates not allowed"),
    (endless(), "[[...]]", "recursion"),
]
"""Records with no form in JSON, how they are shown, and what is said of them."""


def refuse(value: Any) -> None:
    raise ValueError(f"bad: \udcff {type(value).__name__}")


def refusing(source: Any, letters: Path) -> Flow:
    flow = Flow("refusing", on_error=OnError.dead_letter(BAD))
    flow.source(source, name="in").map(refuse, name="refuse").sink(MemorySink(), name="out")
    flow.dead_letters(BAD).sink(FileSink(letters), name="letters")
    return flow


@pytest.mark.parametrize(("poison", "text", "why"), POISON, ids=[text for _, text, _ in POISON])
def test_what_json_cannot_hold_is_kept_as_text(
    poison: Any, text: str, why: str, tmp_path: Path
) -> None:
    flowrt.run(refusing([1, poison, 2], tmp_path / "letters"))

    lines = fed_back(tmp_path / "letters")
    assert [line["value"] for line in lines] == [1, None, 2]
    assert lines[1]["value_text"] == text
    assert why in lines[1]["value_error"]
    assert lines[1]["message"] == f"bad: \\udcff {type(poison).__name__}"
    assert "value_text" not in lines[0]

    shown = call("show", tmp_path / "letters").stdout
    assert f"  value     {text}\n            as text, and not to be fed back: " in shown
    listed = call("list", tmp_path / "letters").stdout
    assert listed.endswith("1 kept as text, for JSON has no form for the record: see show\n")
    (group,) = json.loads(call("list", tmp_path / "letters", "--json").stdout)
    assert (group["letters"], group["kept_as_text"]) == (3, 1)
    told = json.loads(call("show", tmp_path / "letters", "--json").stdout)
    assert [(one["value"], one["value_text"]) for one in told] == [
        (1, None),
        (None, text),
        (2, None),
    ]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"\xff\x00", bytes),
        ({1, 2}, set[int]),
        ((1, "a"), tuple[int, str]),
        (2**70, int),
        ({1: 2}, dict[int, int]),
    ],
)
def test_what_json_has_in_another_form_comes_back_by_its_type(
    value: Any, kind: Any, tmp_path: Path
) -> None:
    flowrt.run(refusing([value], tmp_path / "letters"))

    done = call("replay", tmp_path / "letters", "--into", tmp_path / "again")

    assert done.exit_code == 0
    again, flow = MemorySink[Any](), Flow("again")
    flow.source(FileSource(tmp_path / "again", type=kind)).sink(again)
    flowrt.run(flow)
    assert again.rows == [value]


class Refusing(flowrt.Operator[int, int]):
    def process(self, value: int, ctx: flowrt.Context) -> None:
        refuse(value)


def test_a_key_that_json_cannot_hold_is_kept_as_text(tmp_path: Path) -> None:
    flow = Flow("keyed", on_error=OnError.dead_letter(BAD))
    keyed = flow.source([1], name="in").key_by(lambda number: number * 1j, name="key")
    keyed.process(Refusing, name="refuse").sink(MemorySink(), name="out")
    flow.dead_letters(BAD).sink(FileSink(tmp_path / "letters"), name="letters")

    flowrt.run(flow)

    (line,) = fed_back(tmp_path / "letters")
    assert (line["value"], line["key"]) == (1, "1j")
    assert call("replay", tmp_path / "letters", "--into", tmp_path / "again").exit_code == 0


def test_a_replay_says_what_it_left_and_feeds_back_the_others(tmp_path: Path) -> None:
    letters, again = tmp_path / "letters", tmp_path / "again"
    flowrt.run(refusing([1, Order(), 2, 1j], letters))

    dry = call("replay", letters, "--into", again, "--dry-run")
    assert (dry.exit_code, dry.stdout) == (1, "2 would be fed back\n")
    assert "2 letters cannot be fed back" in dry.stderr
    first = call("replay", letters, "--into", again)
    assert first.exit_code == 1
    assert first.stdout == f"2 fed back as {again}/replay-000001.jsonl\n"
    assert fed_back(again) == [1, 2]
    (part,) = letters.glob("part-*")
    offset = part.read_bytes().index(b"\n") + 1
    assert f"  {part}, byte {offset}: refuse: Encoding objects of type Order is" in first.stderr
    assert "objects of type complex" in first.stderr

    second = call("replay", letters, "--into", again)
    assert second.exit_code == 1
    assert second.stdout.startswith("0 fed back; 2 were before")
    assert fed_back(again) == [1, 2]


def test_many_that_are_left_are_counted(tmp_path: Path) -> None:
    flowrt.run(refusing([1j] * 22, tmp_path / "letters"))

    done = call("replay", tmp_path / "letters", "--into", tmp_path / "again")

    assert done.stderr.count("refuse: Encoding") == 20
    assert "  and 2 more\n" in done.stderr


def test_a_letter_kept_as_text_is_there_once_after_a_restart(tmp_path: Path) -> None:
    source = ScriptedSource[Any]([1j, 1, FAIL, Order(), 2, FAIL, 3])

    flowrt.run(
        refusing(source, tmp_path / "letters"),
        checkpoints=tmp_path / "kept",
        restart=FixedDelay("1ms", attempts=5),
    )

    lines = fed_back(tmp_path / "letters")
    assert [line.get("value_text") or line["value"] for line in lines] == [
        "1j",
        1,
        "Order(7)",
        2,
        3,
    ]


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
