"""The crash programme for state that is read while it lives: what was committed never goes back."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.journeys import wide
from tests.journeys.crash.judge import Verdict
from tests.journeys.crash.lives import Program
from tests.journeys.crash.looking import Look, read
from tests.journeys.crash.programme import Size, compare_parts, run_programme
from tests.journeys.crash.report import FIGURES
from tests.journeys.crash.test_crash import KILLS, SEED, pytestmark
from tests.journeys.transfers import Account, History, Key

__all__ = ["pytestmark"]

NEAR_A_CUT = ("manifest.renamed", "commit.sent")
COMMAND = [sys.executable, "-m", "tests.journeys.crash.looking", "run"]


class Reader:
    """Follows what one job showed, life after life, and finds what it should not have shown."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._floor: dict[Key, int] = {}
        """How far each account was as of an epoch, before this life."""
        self._seen: dict[str, dict[Key, int]] = {}
        """And in this life, by who saw it."""
        self.looks: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.gone_back: list[str] = []
        self.ahead = 0
        """Lives that began behind what was seen "now" in the life before."""
        self._now: dict[Key, int] = {}

    def follow(self, look: Look) -> None:
        if look.who == "first":
            self._begin_life(dict(look.rows))
        what = "scan" if look.scan else "get"
        self.looks[f"{what} {look.as_of}"] += 1
        accounts = dict(look.rows)
        if len(accounts) < len(look.rows):
            self.wrong.append(f"a key came twice in a scan {look.as_of}")
        for key, account in accounts.items():
            if not self._history.has(key, account):
                self.wrong.append(f"{key} was never {account}, {what} {look.as_of}")
        if look.as_of == "committed" and look.scan:
            torn = [*self._history.torn(accounts)]
            if torn:
                self.wrong.append(f"a scan as of an epoch is no cut in {torn}")
        self._compare(look, accounts)

    def _begin_life(self, restored: dict[Key, Account]) -> None:
        for seen in self._seen.values():
            self._floor = _further(self._floor, seen)
        self._seen = {}
        self.ahead += any(
            transfers > restored.get(key, Account()).transfers
            for key, transfers in self._now.items()
        )
        self._now = {}

    def _compare(self, look: Look, accounts: dict[Key, Account]) -> None:
        """Neither an epoch nor what is there now may be behind an epoch that was seen before."""
        counts = {key: account.transfers for key, account in accounts.items()}
        known = self._seen.setdefault(look.who, dict(self._floor))
        before = known if look.scan else {key: known.get(key, 0) for key in counts}
        for key, transfers in before.items():
            if counts.get(key, 0) < transfers:
                self.gone_back.append(
                    f"{key} had {transfers} transfers as of an epoch, and then "
                    f"{counts.get(key, 0)} {look.as_of} for {look.who!r}"
                )
        if look.as_of == "committed":
            self._seen[look.who] = _further(known, counts)
        else:
            self._now = _further(self._now, counts)


def _further(first: dict[Key, int], second: dict[Key, int]) -> dict[Key, int]:
    return {key: max(first.get(key, 0), second.get(key, 0)) for key in {**first, **second}}


@dataclass
class Judge:
    """Compares the output of jobs, and reads what each of them showed."""

    history: History
    looks: Counter[str] = field(default_factory=Counter)
    ahead: int = 0

    def compare(self, expected: Path, got: Path) -> Verdict:
        verdict = compare_parts(_numbered)(expected / "accounts", got / "accounts")
        looks = read(got.parent / "seen")
        reader = Reader(self.history)
        for look in looks:
            reader.follow(look)
        if looks[-1].who != "last" or dict(looks[-1].rows) != self.history.last():
            reader.wrong.append("the end is not what the whole input makes")
        verdict.add(Verdict(wrong=len(reader.wrong), reordered=len(reader.gone_back)))
        verdict.examples += [*reader.wrong[:5], *reader.gone_back[:5]]
        self.looks += reader.looks
        self.ahead += reader.ahead
        return verdict

    def __str__(self) -> str:
        looks = ", ".join(f"{count} by {what}" for what, count in sorted(self.looks.items()))
        return f"{looks}; {self.ahead} lives began behind what the one before had shown as of now"


def _numbered(line: bytes) -> tuple[Hashable, int]:
    file, account, transfers, _ = msgspec.json.decode(line)
    return (file, account), transfers


def test_what_was_read_as_committed_never_goes_back(tmp_path: Path) -> None:
    wide.write_input(tmp_path / "data")
    params = {"data": str(tmp_path / "data")}
    program = Program("tests.journeys.transfers:flow", params, rate=2_000, command=COMMAND)
    size = Size(KILLS * 2 // 10 or 2, [1, 2, 3, 4, 5] if KILLS else [2])
    if not KILLS:
        size = Size(size.random_kills, size.hits, NEAR_A_CUT)
    judge = Judge(History(tmp_path / "data"))

    figures = run_programme(program, tmp_path / "jobs", judge.compare, size, SEED)

    FIGURES["live state"] = figures
    FIGURES["what was seen of it"] = judge
    print(f"live state: {figures}", judge, *figures.verdict.examples, sep="\n")
    assert figures.verdict == Verdict()
    for what in ("get committed", "get now", "scan committed", "scan now"):
        assert judge.looks[what], "nobody looked"
    if KILLS:
        assert judge.ahead, "no life took anything back: nothing was put to the test"
        assert figures.never_hit == []
