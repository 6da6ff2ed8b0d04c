"""Which files a path means: one file, the files of a folder, or those that a pattern matches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from flowrt.contract.errors import ConfigError
from flowrt.contract.world import Files

_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True, order=True)
class FoundFile:
    """A file: its path as it can be opened, its size in bytes, and its `name` below the folder.

    The folder is the one given, that of a file given, or what stands before the first wildcard: so
    a name is the same however the way to the folder is spelled, and wherever it is moved.
    """

    path: str
    name: str
    size: int


async def find_files(files: Files, path: str) -> list[FoundFile]:
    """Return the files that a path means, by path; [] where a pattern or a folder has none.

    Names that begin with a dot or an underscore are left out unless they are asked for: by custom
    they are not finished, or not data. `ConfigError` where a path, or the folder of a pattern, does
    not exist, where it is neither file nor folder, and where a name is not UTF-8.
    """
    try:
        folder, found = await _find(files, path)
        return [_found(path, folder, size) for path, size in sorted(found.items())]
    except OSError as error:
        raise ConfigError(
            f"the input {path!r} cannot be looked up: {error.strerror or error} "
            f"({error.filename or path})"
        ) from error


def _found(path: str, folder: str, size: int) -> FoundFile:
    try:
        path.encode()
    except UnicodeEncodeError:
        name = path.encode(errors="surrogateescape")
        raise ConfigError(f"the input {name!r} has a name that is not UTF-8: rename it") from None
    return FoundFile(path, path.removeprefix(folder), size)


async def _find(files: Files, path: str) -> tuple[str, dict[str, int]]:
    """Return the folder ("" or ending in "/"), and the files below it with their sizes."""
    if await files.is_folder(path):
        folder = path.rstrip("/") + "/"
        return folder, {name: size async for name, size in _expand(files, folder, ["*"])}
    size = await files.size(path)
    if size is not None:
        return path[: path.rfind("/") + 1], {path: size}
    parts = [part for part in path.split("/") if part not in ("", ".")]
    fixed = next((n for n, part in enumerate(parts) if _WILD.intersection(part)), len(parts))
    top = "/" if path.startswith("/") else ""
    folder = top + "".join(f"{part}/" for part in parts[:fixed])
    if fixed == len(parts) or (folder and not await files.is_folder(folder)):
        raise ConfigError(f"the input {path!r} does not exist: {_ADVICE}")
    return folder, {name: size async for name, size in _expand(files, folder, parts[fixed:])}


_ADVICE = (
    "check the spelling; a relative path starts at the folder in which the process was started, so "
    "an absolute one is safer"
)


def nothing_found(path: str) -> ConfigError:
    """Return the error for a pattern or a folder without a file."""
    return ConfigError(
        f"the input {path!r} has no file: {_ADVICE}. To wait for files to come, pass watch=True"
    )


async def _expand(files: Files, folder: str, parts: list[str]) -> AsyncIterator[tuple[str, int]]:
    """Yield the files below `folder` that the parts of a pattern match, with their sizes."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        async for found in _expand(files, folder, rest or ["*"]):
            yield found
    for name in await _candidates(files, folder, part):
        path = folder + name
        if await files.is_folder(path):
            below = parts if part == "**" else rest
            if below:
                async for found in _expand(files, path + "/", below):
                    yield found
        elif not rest and part != "**" and (size := await files.size(path)) is not None:
            yield path, size


async def _candidates(files: Files, folder: str, part: str) -> list[str]:
    if part == "**":
        part = "*"
    elif not _WILD.intersection(part):
        return [part]
    names = await files.names(folder or ".")
    if part[0] not in "._":
        names = [name for name in names if name[0] not in "._"]
    return [name for name in names if fnmatchcase(name, part)]
