"""Feeds the records of dead letters back: into a folder that a flow watches, each of them once.

The ledger's rename is what decides. The values are durable before it, in a hidden file, and what
was decided and not finished is finished by the next replay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flowrt.cli.letters import FoundLetter
from flowrt.contract.errors import ConfigError
from flowrt.contract.folders import make_folder_durably
from flowrt.contract.world import Files

LOCK: Final = ".replay.lock"
_LEDGER: Final = re.compile(r"\.replayed-([0-9]{6,})")
_VALUES: Final = re.compile(r"replay-([0-9]{6,})\.jsonl")


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did, or with a dry run would do: numbers of letters."""

    fed_back: int
    before: int
    """Replayed into this folder before."""
    timers: int
    """Of timers, which have no record."""
    left: Sequence[FoundLetter]
    """Those whose records were kept as text: nothing can be fed back of them."""
    file: str | None


async def replay(
    files: Files, letters: Sequence[FoundLetter], folder: str, *, again: bool, dry_run: bool
) -> Replayed:
    """Write the values of letters into a folder; `ConfigError` while another replay does so."""
    folder = folder.rstrip("/") or "/"
    if dry_run:
        return await _replay(files, letters, folder, again=again, dry_run=True)
    await make_folder_durably(files, folder)
    lock = await files.lock(f"{folder}/{LOCK}")
    if lock is None:
        raise ConfigError(f"another replay writes to {folder}: wait until it is done")
    try:
        await _finish(files, folder)
        return await _replay(files, letters, folder, again=again, dry_run=False)
    finally:
        lock.release()


async def _replay(
    files: Files, letters: Sequence[FoundLetter], folder: str, *, again: bool, dry_run: bool
) -> Replayed:
    left = [one for one in letters if one.letter.is_kept_as_text]
    timers = sum(one.letter.is_of_a_timer for one in letters)
    with_record = [
        one for one in letters if not (one.letter.is_kept_as_text or one.letter.is_of_a_timer)
    ]
    known = await _known(files, folder)
    chosen = with_record if again else [one for one in with_record if one.id not in known]
    before = len(with_record) - len(chosen)
    if dry_run or not chosen:
        return Replayed(len(chosen), before, timers, left, None)
    number = await _next_number(files, folder)
    values = f"{folder}/{_hidden_values(number)}"
    await _write(files, values, [bytes(one.letter.value) + b"\n" for one in chosen])
    # With its name: a ledger that survives alone would keep what it lists from ever being fed back.
    await files.sync_folder(folder)
    ledger = f"{folder}/{_ledger(number)}"
    await _write(files, f"{ledger}.new", [f"{one.id}\n".encode() for one in chosen])
    await files.rename(f"{ledger}.new", ledger)
    await files.sync_folder(folder)
    await _show(files, folder, number)
    return Replayed(len(chosen), before, timers, left, f"{folder}/{_values(number)}")


async def _finish(files: Files, folder: str) -> None:
    """Finish what an earlier replay decided, and take away what it did not."""
    names = await files.names(folder)
    decided = {match[1] for name in names if (match := _LEDGER.fullmatch(name))}
    for name in names:
        if name.endswith(".new") and _LEDGER.fullmatch(name.removesuffix(".new")):
            await files.delete(f"{folder}/{name}")
        elif name.startswith(".") and (match := _VALUES.fullmatch(name[1:])):
            if match[1] in decided:
                await _show(files, folder, int(match[1]))
            else:
                await files.delete(f"{folder}/{name}")


async def _show(files: Files, folder: str, number: int) -> None:
    await files.rename(f"{folder}/{_hidden_values(number)}", f"{folder}/{_values(number)}")
    await files.sync_folder(folder)


async def _known(files: Files, folder: str) -> set[str]:
    known: set[str] = set()
    for name in await files.names(folder):
        if _LEDGER.fullmatch(name):
            known.update((await files.read(f"{folder}/{name}")).decode().splitlines())
    return known


async def _next_number(files: Files, folder: str) -> int:
    names = await files.names(folder)
    matches = [_LEDGER.fullmatch(name) or _VALUES.fullmatch(name) for name in names]
    return 1 + max((int(match[1]) for match in matches if match), default=0)


async def _write(files: Files, path: str, chunks: list[bytes]) -> None:
    await files.write(path, chunks)
    await files.sync(path)


def _values(number: int) -> str:
    return f"replay-{number:06d}.jsonl"


def _hidden_values(number: int) -> str:
    return f".{_values(number)}"


def _ledger(number: int) -> str:
    return f".replayed-{number:06d}"
