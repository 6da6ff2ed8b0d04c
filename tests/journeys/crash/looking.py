"""`flowrt run` in a process that also asks for the state of its job, and writes down what it saw.

Called as `python -m tests.journeys.crash.looking run ...`. What is seen goes to the file "seen"
beside the checkpoint folder, and is on the disk before the next look.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias
from unittest.mock import patch

import anyio
import anyio.to_thread
import msgspec

from flowrt import Flow, Job, LiveState, StateError, start
from flowrt.cli import main, running
from flowrt.runtime.status import ENDED
from tests.journeys.transfers import Account, Key
from tests.journeys.wide import FILES, KEYS

AsOf: TypeAlias = Literal["now", "committed"]


class Look(msgspec.Struct):
    """What somebody saw.

    `who`: "first" is the first look of a life and "last" that after the job's end; between them two
    look side by side, at single "keys" and at "all", each writing before looking again.
    """

    who: Literal["first", "keys", "all", "last"]
    as_of: AsOf
    scan: bool
    rows: list[tuple[Key, Account]]


class Looker:
    """Looks at the accounts of a job while it runs. A death may leave half a line in its file."""

    def __init__(self, job: Job, path: Path) -> None:
        self._job = job
        self._accounts: LiveState[Key, Account] = job.state("accounts")
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    async def keys(self) -> None:
        """Look at single accounts: as of the last epoch, and then now."""
        chance = random.Random()
        while True:
            key = (f"left{chance.randrange(FILES)}", chance.randrange(KEYS))
            await self._look_at(key, "committed")
            if not await self._asked_now(partial(self._look_at, key, "now")):
                return

    async def all(self) -> None:
        """Look at all accounts: as of the last epoch, and then now."""
        while True:
            await self.scan("all", "committed")
            if not await self._asked_now(partial(self.scan, "all", "now")):
                return

    async def scan(self, who: Literal["first", "all", "last"], as_of: AsOf) -> None:
        """Look at all accounts once."""
        rows = [row async for row in self._accounts.scan(as_of=as_of)]
        await self._write(Look(who, as_of, True, rows))

    async def _look_at(self, key: Key, as_of: AsOf) -> None:
        account = await self._accounts.get(key, Account(), as_of=as_of)
        assert account is not None
        await self._write(Look("keys", as_of, False, [(key, account)]))

    async def _asked_now(self, look: Callable[[], Awaitable[None]]) -> bool:
        """Look at what is there now; say whether there will be any more of it."""
        try:
            await look()
        except StateError:
            pass  # The job ended, or began anew in the middle of a scan: the guide says so.
        return self._job.status().state not in ENDED

    async def _write(self, look: Look) -> None:
        await anyio.to_thread.run_sync(self._append, b"\n" + msgspec.json.encode(look))

    def _append(self, line: bytes) -> None:
        os.write(self._file, line)
        os.fsync(self._file)


@asynccontextmanager
async def start_and_look(flow: Flow, **options: Any) -> AsyncIterator[Job]:
    """Start a job, and look at it until it has ended."""
    async with start(flow, **options) as job:
        looker = Looker(job, Path(options["checkpoints"]).parent / "seen")
        async with anyio.create_task_group() as group:
            await looker.scan("first", "committed")
            group.start_soon(looker.keys)
            group.start_soon(looker.all)
            yield job
        await looker.scan("last", "committed")


def read(path: Path) -> list[Look]:
    """Return what was written, without what a death cut off."""
    looks = []
    decode = msgspec.json.Decoder(Look).decode
    for line in path.read_bytes().splitlines():
        try:
            looks.append(decode(line))
        except msgspec.DecodeError:
            continue
    return looks


if __name__ == "__main__":
    with patch.object(running, "start", start_and_look):
        main()
