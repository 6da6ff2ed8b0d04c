"""Looks into a checkpoint folder, for people and programs; reads only: a job may run meanwhile."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowrt.checkpoint.manifest import Manifest, decode_manifest
from flowrt.checkpoint.names import Made
from flowrt.checkpoint.store import DirectoryStore
from flowrt.cli.exits import Exit
from flowrt.cli.meter import NOTHING, amount_text, count_text, moment_text
from flowrt.contract.errors import CheckpointError, ConfigError
from flowrt.contract.plural import plural
from flowrt.contract.snapshot import OperatorSnapshot
from flowrt.runtime.world import system_world


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint in a folder: its manifest, or what is wrong with it."""

    made: Made
    manifest: Manifest | None = None
    problems: list[str] = field(default_factory=list)


def list_checkpoints(folder: Path, *, as_json: bool) -> Exit:
    """Print the checkpoints, newest first."""
    found = _found(folder, verify=False)
    if as_json:
        _print_json([_summary(checkpoint) for checkpoint in found])
    elif not found:
        typer.echo(f"no checkpoints in {folder}")
    else:
        table = _table("epoch", "generation", "made", "records read", "state", "remarks")
        for checkpoint in found:
            table.add_row(*_row(checkpoint))
        _print(table, title=_flow_of(found))
    return Exit.OK


def show_checkpoint(folder: Path, epoch: int | None, *, as_json: bool) -> Exit:
    """Print what one checkpoint holds; `ConfigError` where there is none of that epoch."""
    found = _needed(_found(folder, verify=False), folder)
    chosen = [c for c in found if epoch is None or c.made.epoch == epoch]
    if not chosen:
        there = ", ".join(str(c.made.epoch) for c in found)
        raise ConfigError(
            f"there is no checkpoint of epoch {epoch} in {folder}; there are: {there}"
        )
    checkpoint = chosen[0]
    manifest = checkpoint.manifest
    if manifest is None:
        raise CheckpointError("; ".join(checkpoint.problems))
    if as_json:
        _print_json({**_summary(checkpoint), "operators": list(map(_part, manifest.operators))})
        return Exit.OK
    _print(_splits_table(manifest), title=f"{manifest.flow}, epoch {manifest.epoch}: sources")
    _print(_state_table(manifest), title="state and sinks")
    return Exit.OK


def verify_checkpoints(folder: Path, *, as_json: bool) -> Exit:
    """Read every file of every checkpoint and print what is wrong with it."""
    found = _needed(_found(folder, verify=True), folder)
    damaged = [checkpoint for checkpoint in found if checkpoint.problems]
    if as_json:
        _print_json([_summary(checkpoint) for checkpoint in found])
    else:
        for checkpoint in found:
            typer.echo(f"epoch {checkpoint.made.epoch}: {_verdict(checkpoint)}")
            for problem in checkpoint.problems:
                typer.echo(f"  {problem}")
    return Exit.FAILED if damaged else Exit.OK


# ------------------------------------------------------------------------------------ reading


def _found(folder: Path, *, verify: bool) -> list[Found]:
    if not folder.is_dir():
        what = f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}"
        raise ConfigError(f"{what}: name the one given as --checkpoints")
    return anyio.run(_read_all, str(folder), verify)


async def _read_all(folder: str, verify: bool) -> list[Found]:
    files = system_world().files
    store = DirectoryStore(files, folder, "")
    found = []
    for made in await store.checkpoints():
        path = store.manifest_path(made)
        try:
            manifest = decode_manifest(await files.read(path), path)
        except FileNotFoundError:
            continue  # a running job deletes old checkpoints
        except (CheckpointError, OSError) as error:
            found.append(Found(made, problems=[str(error)]))
            continue
        try:
            problems = await store.problems(manifest) if verify else []
        except CheckpointError as error:
            problems = [str(error)]
        if not problems or await files.size(path) is not None:
            found.append(Found(made, manifest, problems))
    return found


def _needed(found: list[Found], folder: Path) -> list[Found]:
    if found:
        return found
    raise ConfigError(f"there is no checkpoint in {folder}")


# ------------------------------------------------------------------------------------ for people


def _row(checkpoint: Found) -> list[str]:
    made, manifest = checkpoint.made, checkpoint.manifest
    if manifest is None:
        return [str(made.epoch), str(made.generation), NOTHING, NOTHING, NOTHING, "damaged"]
    remarks = [word for word in ("finished", "savepoint") if getattr(manifest, word)]
    return [
        str(made.epoch),
        str(made.generation),
        moment_text(manifest.created_ms),
        count_text(_records(manifest)),
        amount_text(manifest.size(), "bytes"),
        ", ".join(remarks),
    ]


def _splits_table(manifest: Manifest) -> Table:
    table = _table("source", "split", "position", "records", "remarks")
    for part in manifest.operators:
        for split in part.splits:
            ended = "read to its end" if split.ended else ""
            position = NOTHING if split.position is None else f"{split.position}"
            table.add_row(part.operator, split.id, position, count_text(split.records), ended)
    return table


def _state_table(manifest: Manifest) -> Table:
    table = _table("operator", "subtask", "state files", "bytes", "watermark", "remarks")
    for part in manifest.operators:
        if part.splits:
            continue
        remarks = "has something to commit" if part.committable is not None else ""
        table.add_row(
            part.operator,
            str(part.subtask),
            count_text(len(part.files)),
            amount_text(sum(file.size for file in part.files), "bytes"),
            moment_text(part.watermark),
            remarks,
        )
    return table


def _verdict(checkpoint: Found) -> str:
    if checkpoint.problems:
        return "damaged"
    assert checkpoint.manifest is not None
    files = len(checkpoint.manifest.state_files())
    if not files:
        return "whole (no state)"
    size = amount_text(checkpoint.manifest.size(), "bytes")
    return f"whole ({files} state {plural(files, 'file')}, {size})"


def _flow_of(found: list[Found]) -> str:
    return next((c.manifest.flow for c in found if c.manifest is not None), "")


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        is_text = column in ("source", "split", "operator", "made", "remarks", "watermark")
        table.add_column(column, justify="left" if is_text else "right", overflow="fold")
    return table


def _print(table: Table, title: str) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # whoever reads a pipe wants the whole of a row in its line
    console.print(Text(title, style="bold"))
    console.print(table)


# ---------------------------------------------------------------------------------- for programs


def _summary(checkpoint: Found) -> dict[str, Any]:
    made, manifest = checkpoint.made, checkpoint.manifest
    summary: dict[str, Any] = {"epoch": made.epoch, "generation": made.generation}
    if manifest is not None:
        summary |= {
            "flow": manifest.flow,
            "created_ms": manifest.created_ms,
            "delivery": manifest.delivery,
            "finished": manifest.finished,
            "savepoint": manifest.savepoint,
            "records": _records(manifest),
            "state_bytes": manifest.size(),
        }
    return {**summary, "problems": checkpoint.problems}


def _part(part: OperatorSnapshot) -> dict[str, Any]:
    return {
        "operator": part.operator,
        "subtask": part.subtask,
        "state_files": [file.name for file in part.files],
        "state_bytes": sum(file.size for file in part.files),
        "watermark_ms": part.watermark,
        "splits": [
            {"id": s.id, "position": s.position, "records": s.records, "ended": s.ended}
            for s in part.splits
        ],
        "committable": part.committable is not None,
    }


def _records(manifest: Manifest) -> int:
    return sum(split.records for part in manifest.operators for split in part.splits)


def _print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=2, default=repr))
