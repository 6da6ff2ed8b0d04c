"""A flow that moves money between accounts, and what its state must be after a number of records.

A transfer is one record of the input and changes two accounts, of which other subtasks may keep the
second. So the accounts of one cut belong together: those of a file are as they were after a number
of its lines, and what they hold is nothing in all. Whoever mixes two cuts sees something else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec

from flowrt import Context, FileSink, FileSource, Flow, Operator, ValueState
from tests.journeys.wide import KEYS, Event

Key: TypeAlias = tuple[str, int]
"""A file and an account in it."""


class Account(NamedTuple):
    """How many transfers an account has seen, and what it holds."""

    transfers: int = 0
    cents: int = 0

    def after(self, cents: int) -> Account:
        """Return it as it is after one more transfer."""
        return Account(self.transfers + 1, self.cents + cents)


def both_ends(event: Event) -> list[tuple[Key, int]]:
    """Return the two accounts of a transfer and what it does to them."""
    giver, cents = event.key, event.number % 97 + 1
    taker = (giver + 1 + event.number % (KEYS - 1)) % KEYS
    return [((event.file, giver), -cents), ((event.file, taker), cents)]


class Accounts(Operator[tuple[Key, int], Any]):
    """Keeps accounts, and emits each change."""

    account = ValueState(Account, default=Account())

    def process(self, change: tuple[Key, int], ctx: Context) -> None:
        account = self.account.get().after(change[1])
        self.account.set(account)
        ctx.emit((*change[0], *account))


def flow(data: Path, out: Path, rate: float | None = None) -> Flow:
    """From files to accounts in four subtasks."""
    flow = Flow("transfers")
    source = FileSource(data / "left", type=Event)
    events = flow.source(source, name="transfers", max_rate=rate, parallelism=2)
    (
        events.flat_map(both_ends, name="both-ends", parallelism=2)
        .key_by(lambda change: change[0])
        .process(Accounts, name="accounts", parallelism=4)
        .sink(FileSink(out / "accounts"), name="account-files", parallelism=4)
    )
    return flow


class History:
    """What the accounts were after each line of the input."""

    def __init__(self, data: Path) -> None:
        self._accounts: dict[Key, list[Account]] = defaultdict(lambda: [Account()])
        self._lines: dict[str, list[dict[Key, int]]] = {}
        for path in sorted((data / "left").iterdir()):
            events = msgspec.json.Decoder(Event).decode_lines(path.read_bytes())
            self._lines[events[0].file] = [{}, *map(self._transfer, events)]

    def _transfer(self, event: Event) -> dict[Key, int]:
        """Move the money; return how many transfers each account of the file has seen then."""
        for key, cents in both_ends(event):
            accounts = self._accounts[key]
            accounts.append(accounts[-1].after(cents))
        return {
            key: len(accounts) - 1
            for key, accounts in self._accounts.items()
            if key[0] == event.file
        }

    def has(self, key: Key, account: Account) -> bool:
        """Say whether an account was ever like this."""
        accounts = self._accounts.get(key, [Account()])
        return account.transfers < len(accounts) and accounts[account.transfers] == account

    def torn(self, accounts: dict[Key, Account]) -> Iterator[str]:
        """Give the files whose accounts are not as they were after a number of lines."""
        seen: dict[str, dict[Key, int]] = defaultdict(dict)
        for key, account in accounts.items():
            seen[key[0]][key] = account.transfers
        for file, counts in seen.items():
            lines, odd = divmod(sum(counts.values()), 2)
            if odd or lines >= len(self._lines[file]) or self._lines[file][lines] != counts:
                yield file

    def last(self) -> dict[Key, Account]:
        """Return all accounts at the end."""
        return {key: accounts[-1] for key, accounts in self._accounts.items()}
