"""`flowrt deadletters`: what is printed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from flowrt.cli.exits import Exit
from flowrt.cli.letters import Choice, FoundLetter, LetterLine, read_letters
from flowrt.cli.meter import moment_text
from flowrt.cli.replay import replay
from flowrt.contract.errors import ConfigError
from flowrt.runtime.world import system_world

MOST_TOLD: Final = 20
"""So many letters that cannot be fed back are told one by one."""


def list_letters(paths: Sequence[Path], choice: Choice, *, as_json: bool) -> Exit:
    """Print how many letters there are of each operator and error, and what the last one says."""
    groups: dict[tuple[str, str], list[FoundLetter]] = {}
    for found in _chosen(paths, choice):
        groups.setdefault((found.letter.operator, found.letter.error), []).append(found)
    if as_json:
        _print_json([_summary(*group, found) for group, found in sorted(groups.items())])
    elif not groups:
        typer.echo("no dead letters")
    else:
        _print_table(groups)
        texts = sum(_kept_as_text(found) for found in groups.values())
        if texts:
            typer.echo(f"{texts} kept as text, for JSON has no form for the record: see show")
    return Exit.OK


def show_letters(paths: Sequence[Path], choice: Choice, limit: int, *, as_json: bool) -> Exit:
    """Print letters one by one, with all that they say."""
    found = _chosen(paths, choice)
    if as_json:
        _print_json([_everything(one) for one in found[:limit]])
        return Exit.OK
    for one in found[:limit]:
        typer.echo(_text(one))
    if len(found) > limit:
        typer.echo(f"{len(found) - limit} more: --limit shows them, --operator and --error choose")
    return Exit.OK


def replay_letters(
    paths: Sequence[Path], choice: Choice, into: Path, *, again: bool, dry_run: bool
) -> Exit:
    """Feed the records of letters back, and print how many; `FAILED` where some cannot be.

    `ConfigError` where `into` is a folder of the letters, or lies in one.
    """
    _check_target(paths, into)

    async def run() -> Exit:
        files = system_world().files
        found = await read_letters(files, [str(path) for path in paths])
        chosen = [one for one in found if choice.has(one.letter)]
        done = await replay(files, chosen, str(into), again=again, dry_run=dry_run)
        told = f"{done.fed_back} would be fed back" if dry_run else f"{done.fed_back} fed back"
        if done.file is not None:
            told += f" as {done.file}"
        if done.before:
            told += f"; {done.before} were before: --again feeds them back once more"
        if done.timers:
            told += f"; {done.timers} of timers, which have no record"
        typer.echo(told)
        _tell_left(done.left)
        return Exit.FAILED if done.left else Exit.OK

    return anyio.run(run)


def _check_target(paths: Sequence[Path], into: Path) -> None:
    """Refuse to write records among letters, whatever links the way there has.

    Whoever reads the letters next would find lines that are none, and the flow that watches the
    folder would take letters for records.
    """
    target = Path(os.path.realpath(into))
    for path in paths:
        source = Path(os.path.realpath(path))
        if source.is_file():
            among = target in (source.parent, Path(os.path.realpath(path.parent)))
        else:
            among = target.is_relative_to(source)
        if among:
            raise ConfigError(
                f"{into} is where the letters of {path} lie: feed them back into another folder, "
                "one that a FileSource of the flow watches"
            )


def _tell_left(left: Sequence[FoundLetter]) -> None:
    """Say to standard error which letters cannot be fed back, and why."""
    if not left:
        return
    many = "1 letter" if len(left) == 1 else f"{len(left)} letters"
    typer.echo(f"{many} cannot be fed back, for JSON has no form for the record:", err=True)
    for one in left[:MOST_TOLD]:
        letter = one.letter
        place = f"{one.file}, byte {one.offset}"
        typer.echo(f"  {place}: {letter.operator}: {letter.value_error}", err=True)
    if len(left) > MOST_TOLD:
        typer.echo(f"  and {len(left) - MOST_TOLD} more", err=True)
    typer.echo("`flowrt deadletters show` has them as text", err=True)


def _chosen(paths: Sequence[Path], choice: Choice) -> list[FoundLetter]:
    found = anyio.run(read_letters, system_world().files, [str(path) for path in paths])
    return [one for one in found if choice.has(one.letter)]


def _print_table(groups: dict[tuple[str, str], list[FoundLetter]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("letters", justify="right")
    for column in ("operator", "error", "the last one"):
        table.add_column(column, overflow="fold")
    for (operator, error), found in sorted(groups.items()):
        table.add_row(str(len(found)), operator, error, found[-1].letter.message)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # whoever reads a pipe wants the whole of a row in its line
    console.print(table)


def _summary(operator: str, error: str, found: list[FoundLetter]) -> dict[str, Any]:
    return {
        "operator": operator,
        "error": error,
        "letters": len(found),
        "kept_as_text": _kept_as_text(found),
        "message": found[-1].letter.message,
    }


def _kept_as_text(found: Sequence[FoundLetter]) -> int:
    return sum(one.letter.is_kept_as_text for one in found)


def _everything(found: FoundLetter) -> dict[str, Any]:
    letter = found.letter
    return {
        "file": found.file,
        "value": json.loads(bytes(letter.value)),
        "value_text": letter.value_text,
        "value_error": letter.value_error,
        "key": letter.key,
        "timestamp": letter.timestamp,
        "operator": letter.operator,
        "error": letter.error,
        "message": letter.message,
        "traceback": letter.traceback,
        "attempts": letter.attempts,
        "where": letter.where,
    }


def _text(found: FoundLetter) -> str:
    letter = found.letter
    lines = [
        f"{letter.operator}: {letter.error}: {letter.message}",
        f"  value     {_value(letter)}",
    ]
    if letter.is_kept_as_text:
        lines.append(f"            as text, and not to be fed back: {letter.value_error}")
    if letter.timestamp is not None:
        lines.append(f"  at        {moment_text(letter.timestamp)}")
    if letter.key is not None:
        lines.append(f"  key       {json.dumps(letter.key)}")
    if letter.where is not None:
        lines.append(f"  where     {letter.where}")
    lines += [f"  attempts  {letter.attempts}", f"  file      {found.file}"]
    lines += [f"    {line}" for line in letter.traceback.rstrip().splitlines()]
    return "\n".join([*lines, ""])


def _value(letter: LetterLine) -> str:
    return bytes(letter.value).decode() if letter.value_text is None else letter.value_text


def _print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=2))
