"""Shows what an operator kept for one key in a checkpoint, without the flow that wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import anyio
import typer

from flowrt.checkpoint.manifest import decode_manifest
from flowrt.checkpoint.reading import CheckpointReader, newest, reading
from flowrt.checkpoint.store import DirectoryStore
from flowrt.cli.exits import Exit
from flowrt.contract.entries import LIST, MAP, kind_of
from flowrt.contract.errors import ConfigError
from flowrt.contract.snapshot import MISSING, Block
from flowrt.contract.state import ListState, MapState, StateSpec, ValueState
from flowrt.runtime.world import system_world
from flowrt.state.key_groups import key_group
from flowrt.state.memory import MemoryBackend
from flowrt.state.views import of_key

_NEWEST: Final = 2**63


def show_key(
    folder: Path, epoch: int | None, operator: str, key_text: str, *, as_json: bool
) -> Exit:
    """Print all that an operator kept for a key; a record is shown as the dict of its fields.

    `ConfigError` where there is no such checkpoint or operator.
    """
    key = parse_key(key_text)
    found = anyio.run(_read, str(folder), epoch, operator, key)
    if as_json:
        typer.echo(json.dumps(found, indent=2, default=repr))
    elif not found:
        typer.echo(f"operator {operator!r} has nothing for the key {key!r}")
    else:
        for state, value in found.items():
            typer.echo(f"{state}: {value!r}")
    return Exit.OK


def parse_key(text: str) -> Any:
    """Read a key: JSON where it is that (an array is a tuple), and else the text itself."""
    try:
        return _as_key(json.loads(text))
    except ValueError:
        return text


def _as_key(value: Any) -> Any:
    return tuple(map(_as_key, value)) if isinstance(value, list) else value


async def _read(folder: str, epoch: int | None, operator: str, key: Any) -> dict[str, Any]:
    files = system_world().files
    store = DirectoryStore(files, folder, "")
    chosen = await newest(store, _NEWEST if epoch is None else epoch)
    if chosen is None or epoch not in (None, chosen.epoch):
        what = "checkpoint" if epoch is None else f"checkpoint of epoch {epoch}"
        raise ConfigError(f"there is no {what} in {folder}")
    path = store.manifest_path(chosen)
    store.flow = decode_manifest(await files.read(path), path).flow
    async with reading(store, chosen) as reader:
        kept = sorted({part.operator for part in reader.manifest.operators if part.files})
        if operator not in kept:
            names = ", ".join(map(repr, kept)) or "none"
            raise ConfigError(
                f"checkpoint {chosen.epoch} has no state of an operator {operator!r}; it has that "
                f"of: {names}"
            )
        return await _states(reader, operator, key)


async def _states(reader: CheckpointReader, operator: str, key: Any) -> dict[str, Any]:
    group, found = key_group(key), {}
    for state in await reader.states(operator, group):
        blocks = [
            taken
            for block in await reader.blocks(operator, state, group)
            for taken in of_key(block, key)
            if taken is not None
        ]
        backend = MemoryBackend(operator)
        view = backend.declare(_spec(state, blocks), 0)
        backend.load(blocks)
        if (value := view.get(key)) is not MISSING:
            found[state] = value
    return found


def _spec(state: str, blocks: list[Block]) -> StateSpec[Any]:
    # Whatever its type was: what is stored is shown in builtins.
    kind = kind_of(blocks[0])
    if kind == MAP:
        return MapState(name=state, migrate=_as_it_is)
    return (ListState if kind == LIST else ValueState)(name=state, migrate=_as_it_is)


def _as_it_is(plain: Any) -> Any:
    return plain
