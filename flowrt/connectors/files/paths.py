"""Which files a path means: one file, the files of a folder, or those that a pattern matches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import itemgetter
from pathlib import PurePath

from flowrt.contract.errors import ConfigError
from flowrt.contract.folders import folder_of
from flowrt.contract.world import Entry, Files

_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Found:
    """Files by path, as they can be opened, with their sizes in bytes; in the order of the paths.

    `folder` ("" or ending in "/") is the one given, that of a file given, or what stands before the
    first wildcard. The rest of a path is the file's name: it is the same however the way to the
    folder is spelled, and wherever that is moved.
    """

    folder: str
    sizes: dict[str, int]

    def name(self, path: str) -> str:
        """Return a file's name below the folder; `ConfigError` where it is not UTF-8."""
        try:
            path.encode()
        except UnicodeEncodeError:
            name = path.encode(errors="surrogateescape")
            raise ConfigError(
                f"the input {name!r} has a name that is not UTF-8: rename it"
            ) from None
        return path.removeprefix(self.folder)


async def find_files(files: Files, path: str) -> Found:
    """Return the files that a path means; none where a pattern or a folder has none.

    Names that begin with a dot or an underscore are left out unless they are asked for: by custom
    they are not finished, or not data. `**` does not follow links to folders. `ConfigError` where a
    path, or the folder of a pattern, does not exist, and where it is neither file nor folder.
    """
    try:
        folder, found = await _find(files, path)
    except OSError as error:
        raise ConfigError(
            f"the input {path!r} cannot be looked up: {error.strerror or error} "
            f"({error.filename or path})"
        ) from error
    return Found(folder, dict(sorted(found.items(), key=itemgetter(0))))


async def _find(files: Files, path: str) -> tuple[str, dict[str, int]]:
    """Return the folder ("" or ending in "/"), and the files below it with their sizes."""
    listed = await files.entries(path)
    if listed is not None:
        folder = path.rstrip("/") + "/"
        return folder, await _expand(files, folder, ["*"], listed)
    size = await files.size(path)
    if size is not None:
        return path[: path.rfind("/") + 1], {path: size}
    folder, parts = _split(path)
    if parts:
        listed = await files.entries(folder or ".")
    if listed is None:
        raise ConfigError(f"the input {path!r} does not exist: {_ADVICE}")
    return folder, await _expand(files, folder, parts, listed)


def _split(path: str) -> tuple[str, list[str]]:
    """Return what stands before the first wildcard ("" or ending in "/"), and the parts from it."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    fixed = next((n for n, part in enumerate(parts) if _WILD.intersection(part)), len(parts))
    top = "/" if path.startswith("/") else ""
    return top + "".join(f"{part}/" for part in parts[:fixed]), parts[fixed:]


def means(path: str, file: str) -> bool:
    """Say whether `find_files` would return a file for a path, if there were a file of that name.

    Where the folders are spelled otherwise, they are compared as the links on the way lead.
    """
    folder, parts = _split(path)
    names = [file.rpartition("/")[2]]
    return any(_are_meant(parts or ["*"], way + names) for way in _ways(folder, folder_of(file)))


def _ways(above: str, folder: str) -> Iterator[list[str]]:
    """Iterate over the names on the way down to a folder, as far as it lies below another."""
    for end in (os.path.abspath(folder), os.path.realpath(folder)):
        for top in (os.path.abspath(above), os.path.realpath(above)):
            if PurePath(end).is_relative_to(top):
                yield list(PurePath(end).relative_to(top).parts)


def _are_meant(parts: list[str], names: list[str]) -> bool:
    """Say whether a pattern's parts match the names on the way to a file, as in `_expand`."""
    part, rest = parts[0], parts[1:]
    if part == "**" and _are_meant(rest or ["*"], names):
        return True
    if not _matching([Entry(names[0], None)], part):
        return False
    below = parts if part == "**" else rest
    return _are_meant(below, names[1:]) if below and names[1:] else not rest and not names[1:]


_ADVICE = (
    "check the spelling; a relative path starts at the folder in which the process was started, so "
    "an absolute one is safer"
)


def nothing_found(path: str) -> ConfigError:
    """Return the error for a pattern or a folder without a file."""
    return ConfigError(
        f"the input {path!r} has no file: {_ADVICE}. To wait for files to come, pass watch=True"
    )


async def _expand(
    files: Files, folder: str, parts: list[str], listed: list[Entry] | None = None
) -> dict[str, int]:
    """Return the files below `folder` that the parts of a pattern match, with their sizes.

    `listed` is what is in the folder, where that is known.
    """
    part, rest = parts[0], parts[1:]
    if not _WILD.intersection(part):
        return await _expand_name(files, folder + part, rest)
    if listed is None:
        listed = await files.entries(folder or ".") or []
    found: dict[str, int] = {}
    if part == "**":
        found |= await _expand(files, folder, rest or ["*"], listed)
    for entry in _matching(listed, part):
        path = folder + entry.name
        if entry.is_folder:
            if part == "**" and entry.is_link:
                continue  # it may lead to a folder that this one is in
            if below := parts if part == "**" else rest:
                found |= await _expand(files, path + "/", below)
        elif not rest and part != "**":
            size = entry.size if entry.size is not None else await files.size(path)
            if size is not None:
                found[path] = size
    return found


async def _expand_name(files: Files, path: str, rest: list[str]) -> dict[str, int]:
    """Return what `_expand` does for a part without wildcards: its folder need not be listed."""
    if await files.is_folder(path):
        return await _expand(files, path + "/", rest) if rest else {}
    size = None if rest else await files.size(path)
    return {} if size is None else {path: size}


def _matching(listed: list[Entry], part: str) -> list[Entry]:
    if part[0] not in "._":
        listed = [entry for entry in listed if entry.name[0] not in "._"]
    if part in ("*", "**"):
        return listed
    return [entry for entry in listed if fnmatchcase(entry.name, part)]
