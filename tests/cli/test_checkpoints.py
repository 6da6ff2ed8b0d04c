"""`flowrt checkpoints`: what a folder holds, and whether it is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import flowrt
from flowrt.cli.app import app


@dataclass
class Account:
    """A record whose class the command does not know."""

    balance: int
    notes: list[str]


def words(value: int) -> str:
    return f"word{value % 7}"


def counting(count: int) -> flowrt.Flow:
    flow = flowrt.Flow("words")
    counted = flow.source(range(count), name="range").map(words).key_by(lambda w: w).count(name="n")
    counted.sink(flowrt.MemorySink(), name="memory")
    return flow


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A checkpoint folder in which two lives of a flow left a checkpoint each."""
    folder = tmp_path / "kept"
    flowrt.run(counting(100), checkpoints=folder)
    flowrt.run(counting(100), checkpoints=folder)
    return folder


def checkpoints(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["checkpoints", *map(str, arguments)])


def as_json(*arguments: str | Path) -> Any:
    done = checkpoints(*arguments, "--json")
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_the_list_has_the_newest_first(kept: Path) -> None:
    done = checkpoints("list", kept)

    assert done.exit_code == 0
    title, *_, newest, oldest = [line for line in done.stdout.splitlines() if line.strip()]
    assert title.strip() == "words"
    assert newest.split()[:2] == ["2", "2"]
    assert oldest.split()[:2] == ["1", "1"]
    assert "finished" in newest

    listed = as_json("list", kept)
    assert [c["epoch"] for c in listed] == [2, 1]
    assert listed[0]["records"] == 100
    assert listed[0]["flow"] == "words"
    assert listed[0]["problems"] == []


def test_a_checkpoint_is_shown_with_its_positions_and_state(kept: Path) -> None:
    done = checkpoints("show", kept)

    assert done.exit_code == 0
    assert "words, epoch 2: sources" in done.stdout
    assert "read to its end" in done.stdout
    assert as_json("show", kept, "--epoch", "1")["epoch"] == 1
    operators = {part["operator"]: part for part in as_json("show", kept)["operators"]}
    assert operators["range"]["splits"][0]["records"] == 100
    assert operators["n"]["state_bytes"] > 0


def test_a_whole_folder_is_verified(kept: Path) -> None:
    done = checkpoints("verify", kept)

    assert done.exit_code == 0
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["epoch 2", "epoch 1"]
    assert done.stdout.count("whole") == 2


def test_a_damaged_state_file_is_found(kept: Path) -> None:
    for file in (kept / "state").glob("*.state"):
        file.write_bytes(file.read_bytes()[:-1])

    done = checkpoints("verify", kept)

    assert done.exit_code == 1
    assert "epoch 2: damaged" in done.stdout
    assert ".state has " in done.stdout
    assert all(c["problems"] for c in as_json("verify", kept))


def test_a_damaged_manifest_is_listed_found_and_not_shown(kept: Path) -> None:
    newest = max(kept.glob("manifest-2-*"))
    newest.write_bytes(newest.read_bytes()[:-10])

    assert "damaged" in checkpoints("list", kept).stdout
    assert checkpoints("verify", kept).exit_code == 1
    shown = checkpoints("show", kept)
    assert shown.exit_code == 1
    assert shown.stderr.startswith("flowrt: CheckpointError: ")
    assert checkpoints("show", kept, "--epoch", "1").exit_code == 0


def test_what_is_not_there_is_said(kept: Path, tmp_path: Path) -> None:
    absent = checkpoints("list", tmp_path / "absent")
    assert absent.exit_code == 2
    assert "there is no folder" in absent.stderr

    assert checkpoints("list", tmp_path).stdout == f"no checkpoints in {tmp_path}\n"
    assert checkpoints("verify", tmp_path).exit_code == 2
    no_epoch = checkpoints("show", kept, "--epoch", "9")
    assert no_epoch.exit_code == 2
    assert f"no checkpoint of epoch 9 in {kept}; there are: 2, 1" in no_epoch.stderr


class Keeper(flowrt.Operator[int, None]):
    """Keeps each kind of state."""

    account = flowrt.ValueState(Account)
    seen = flowrt.ListState(int, ttl="1d")
    by_parity = flowrt.MapState(str, Account)

    def process(self, value: int, ctx: flowrt.Context) -> None:
        self.account.set(Account(value, ["note"]))
        self.seen.add(value)
        self.by_parity.put("odd" if value % 2 else "even", Account(value, []))


def test_the_state_of_a_key_is_shown_without_the_flow(tmp_path: Path) -> None:
    folder, flow = tmp_path / "kept", flowrt.Flow("accounts")
    keyed = flow.source(range(1, 7), name="range").key_by(lambda value: ("key", value % 3))
    keyed.process(Keeper, name="keeper").sink(flowrt.MemorySink(), name="memory")
    flowrt.run(flow, checkpoints=folder)

    shown = as_json("show", folder, "--operator", "keeper", "--key", '["key", 2]')
    assert shown == {
        "account": {"balance": 5, "notes": ["note"]},
        "by_parity": {
            "even": {"balance": 2, "notes": []},
            "odd": {"balance": 5, "notes": []},
        },
        "seen": [2, 5],
    }
    done = checkpoints("show", folder, "--operator", "keeper", "--key", '["key", 2]')
    assert "seen: [2, 5]" in done.stdout
    done = checkpoints("show", folder, "--operator", "keeper", "--key", "nobody")
    assert done.stdout == "operator 'keeper' has nothing for the key 'nobody'\n"
    done = checkpoints("show", folder, "--operator", "other", "--key", "nobody")
    assert (done.exit_code, "it has that of: 'keeper'" in done.stderr) == (2, True)
    done = checkpoints("show", folder, "--operator", "keeper")
    assert (done.exit_code, "belong together" in done.stderr) == (2, True)
    done = checkpoints("show", folder, "--operator", "keeper", "--key", "1", "--epoch", "9")
    assert (done.exit_code, "no checkpoint of epoch 9" in done.stderr) == (2, True)


def test_counts_are_shown_too(kept: Path) -> None:
    done = checkpoints("show", kept, "--operator", "n", "--key", "word3", "--epoch", "2")
    assert done.stdout == "count: 14\n"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = CliRunner().invoke(app, ["checkpoints", "list", str(tmp_path / "file")])

    assert done.exit_code == 2
    assert "file is no folder: name the one given as --checkpoints" in done.stderr
