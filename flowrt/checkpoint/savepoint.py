"""Savepoints: a checkpoint copied into a folder of its own, and brought back from there."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import msgspec

from flowrt.checkpoint.disk import TEMPORARY, disk_error, write_durably
from flowrt.checkpoint.format import PIECE_BYTES
from flowrt.checkpoint.manifest import Manifest, encode_manifest
from flowrt.checkpoint.names import STATE_FOLDER, Made, manifest_name, state_name
from flowrt.checkpoint.store import DirectoryStore
from flowrt.contract.errors import CheckpointError, ConfigError
from flowrt.contract.folders import make_folder_durably
from flowrt.contract.snapshot import StateFile

ORIGIN: Final = "origin"
"""A file that names the savepoint with which a checkpoint folder began."""


async def write_savepoint(store: DirectoryStore, manifest: Manifest, path: str) -> None:
    """Copy a checkpoint with all its state files into `path`, a new or empty folder.

    `CheckpointError` where the folder is not empty, cannot be written, or a file is damaged.
    """
    files = store.files
    state = f"{path}/{STATE_FOLDER}"
    try:
        if await files.names(path):
            raise CheckpointError(
                f"a savepoint needs a new or empty folder, but {path} is not empty: choose another"
            )
        await make_folder_durably(files, state)
        for file in manifest.state_files().values():
            await _copy(store, file, f"{state}/{file.name}")
        await files.sync_folder(state)
        target = f"{path}/{manifest_name(manifest.made)}"
        await write_durably(files, target, [encode_manifest(manifest)], lambda _: None)
    except OSError as error:
        raise disk_error(error, "write a savepoint", path) from error


async def bring_in_savepoint(store: DirectoryStore, path: str, now_ms: int) -> Manifest | None:
    """Copy a savepoint (or the newest checkpoint in `path`) into a store that holds none yet.

    Recovery then goes on from it. None where the store began with just this savepoint: whoever
    starts the same command again after a crash wants the checkpoints that came since.
    `ConfigError` where the store holds others, or `path` holds no checkpoint or one of another
    flow; `CheckpointError` where it is damaged.
    """
    origin = DirectoryStore(store.files, path, store.flow)
    old = await _savepoint_in(origin, store)
    if await store.checkpoints():
        if await _began_with(store) == await _identity(origin, old):
            return None
        raise ConfigError(
            f"the checkpoint folder {store.folder} already holds checkpoints, and did not begin "
            f"with the savepoint in {path}: restore a savepoint into a new folder, or go on from "
            "the checkpoints by leaving restore=... out"
        )
    problems = await origin.problems(old)
    if problems:
        raise CheckpointError(f"the savepoint in {path} is damaged: {'; '.join(problems)}")
    made = Made(store.lease.generation, old.epoch)
    manifest = _renamed(old, made, now_ms)
    await store.make_state_folder()
    try:
        for before, after in _pairs(old, manifest).items():
            await _copy(origin, before, store.state_path(after))
        await store.files.sync_folder(f"{store.folder}/{STATE_FOLDER}")
        # Before the manifest: a folder with checkpoints always says how it began.
        begun = [(await _identity(origin, old)).encode()]
        await write_durably(store.files, f"{store.folder}/{ORIGIN}", begun, lambda _: None)
    except OSError as error:
        raise disk_error(error, "bring in a savepoint", store.folder) from error
    await store.write(manifest)
    return manifest


async def _savepoint_in(origin: DirectoryStore, store: DirectoryStore) -> Manifest:
    try:
        is_folder = await origin.files.is_folder(origin.folder)
    except OSError as error:
        raise disk_error(error, "look for a savepoint", origin.folder) from error
    found = await origin.checkpoints() if is_folder else []
    if found:
        return await origin.read(found[0])
    why = "no manifest lies there" if is_folder else "no such folder"
    instead = ""
    if await store.checkpoints():
        instead = f"; leave restore=... out to go on from the checkpoints in {store.folder}"
    raise ConfigError(f"there is no savepoint in {origin.folder}: {why}{instead}")


async def _identity(origin: DirectoryStore, savepoint: Manifest) -> str:
    """Return a checksum of the manifest as it was written, by whatever version of flowrt."""
    path = origin.manifest_path(savepoint.made)
    try:
        return blake2b(await origin.files.read(path), digest_size=16).hexdigest()
    except OSError as error:
        raise disk_error(error, "read a savepoint", origin.folder) from error


async def _began_with(store: DirectoryStore) -> str | None:
    """Return the identity of the savepoint that a store began with; None for any other store."""
    path = f"{store.folder}/{ORIGIN}"
    try:
        if await store.files.size(path) is None:
            return None
        return (await store.files.read(path)).decode("ascii", "replace")
    except OSError as error:
        raise disk_error(error, "read how the checkpoints began", store.folder) from error


def _renamed(manifest: Manifest, made: Made, now_ms: int) -> Manifest:
    """Give the state files names of their own, for two folders may have the same names."""
    names: dict[str, str] = {}
    parts = []
    for part in manifest.operators:
        for file in part.files:
            names.setdefault(file.name, state_name(part.operator, len(names), "i", made))
        renamed = [msgspec.structs.replace(file, name=names[file.name]) for file in part.files]
        parts.append(msgspec.structs.replace(part, files=renamed))
    return msgspec.structs.replace(
        manifest,
        operators=parts,
        generation=made.generation,
        created_ms=now_ms,
        savepoint=True,
    )


def _pairs(old: Manifest, new: Manifest) -> dict[StateFile, str]:
    pairs = {}
    for before, after in zip(old.operators, new.operators, strict=True):
        for file, renamed in zip(before.files, after.files, strict=True):
            pairs[old.state_files()[file.name]] = renamed.name
    return pairs


async def _copy(store: DirectoryStore, file: StateFile, target: str) -> None:
    files, source, temporary = store.files, store.state_path(file.name), target + TEMPORARY
    digest = blake2b(digest_size=16)
    for offset in range(0, file.size, PIECE_BYTES):
        piece = await files.read(source, offset, PIECE_BYTES)
        digest.update(piece)
        await files.write_at(temporary, offset, piece)
    if digest.hexdigest() != file.checksum:
        raise CheckpointError(f"{source} is damaged: its bytes do not fit its checksum")
    await files.sync(temporary)
    await files.rename(temporary, target)
