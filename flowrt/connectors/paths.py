"""Which files a path means: one file, the files of a folder, or those that a pattern matches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from fnmatch import fnmatchcase

from flowrt.contract.errors import ConfigError
from flowrt.contract.world import Files

_WILD = frozenset("*?[")


async def find_files(files: Files, path: str) -> list[str]:
    """Return the files that a path means, sorted; [] where a pattern or a folder has none.

    Names that begin with a dot or an underscore are left out unless they are asked for: by custom
    they are not finished, or not data. `ConfigError` where a path without wildcards does not exist.
    """
    try:
        return await _find(files, path)
    except OSError as error:
        raise ConfigError(
            f"the input {path!r} cannot be looked up: {error.strerror or error} "
            f"({error.filename or path})"
        ) from error


async def _find(files: Files, path: str) -> list[str]:
    if await files.is_folder(path):
        return sorted([name async for name in _expand(files, path.rstrip("/") + "/", ["*"])])
    if await files.size(path) is not None:
        return [path]
    if not _WILD.intersection(path):
        raise ConfigError(f"the input {path!r} does not exist: {_ADVICE}")
    top = "/" if path.startswith("/") else ""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return sorted({name async for name in _expand(files, top, parts)})


_ADVICE = (
    "check the spelling; a relative path starts at the folder in which the process was started, so "
    "an absolute one is safer"
)


def nothing_found(path: str) -> ConfigError:
    """Return the error for a pattern or a folder without a file."""
    return ConfigError(
        f"the input {path!r} has no file: {_ADVICE}. To wait for files to come, pass watch=True"
    )


async def _expand(files: Files, folder: str, parts: list[str]) -> AsyncIterator[str]:
    """Yield the files below `folder` ("" or ending in "/") that the parts of a pattern match."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        async for name in _expand(files, folder, rest or ["*"]):
            yield name
    for name in await _candidates(files, folder, part):
        path = folder + name
        if await files.is_folder(path):
            below = parts if part == "**" else rest
            if below:
                async for found in _expand(files, path + "/", below):
                    yield found
        elif not rest and part != "**" and await files.size(path) is not None:
            yield path


async def _candidates(files: Files, folder: str, part: str) -> list[str]:
    if part == "**":
        part = "*"
    elif not _WILD.intersection(part):
        return [part]
    names = await files.names(folder or ".")
    if part[0] not in "._":
        names = [name for name in names if name[0] not in "._"]
    return [name for name in names if fnmatchcase(name, part)]
