"""`flowrt deadletters`: what is printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from flowrt.cli.exits import Exit
from flowrt.cli.letters import Choice, FoundLetter, read_letters
from flowrt.cli.meter import moment_text
from flowrt.cli.replay import replay
from flowrt.runtime.world import system_world


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
    """Feed the records of letters back, and print how many."""

    async def run() -> None:
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

    anyio.run(run)
    return Exit.OK


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
    last = found[-1].letter.message
    return {"operator": operator, "error": error, "letters": len(found), "message": last}


def _everything(found: FoundLetter) -> dict[str, Any]:
    letter = found.letter
    return {
        "file": found.file,
        "value": json.loads(bytes(letter.value)),
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
        f"  value     {bytes(letter.value).decode()}",
    ]
    if letter.timestamp is not None:
        lines.append(f"  at        {moment_text(letter.timestamp)}")
    if letter.key is not None:
        lines.append(f"  key       {json.dumps(letter.key)}")
    if letter.where is not None:
        lines.append(f"  where     {letter.where}")
    lines += [f"  attempts  {letter.attempts}", f"  file      {found.file}"]
    lines += [f"    {line}" for line in letter.traceback.rstrip().splitlines()]
    return "\n".join([*lines, ""])


def _print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=2))
