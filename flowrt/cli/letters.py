"""Dead letters in files, as a `FileSink` writes them: found, read and chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.world import Files


class LetterLine(msgspec.Struct, frozen=True):
    """A `DeadLetter` as a line of JSON has it; the value stays as it was written.

    `value_text` and `value_error`: a record that JSON has no form for, as text, and why not.
    """

    value: msgspec.Raw
    operator: str
    error: str
    message: str = ""
    traceback: str = ""
    attempts: int = 1
    where: str | None = None
    timestamp: int | None = None
    key: Any = None
    value_text: str | None = None
    value_error: str | None = None

    @property
    def is_kept_as_text(self) -> bool:
        """Whether there is nothing but text of the record, so that it cannot be fed back."""
        return self.value_text is not None

    @property
    def is_of_a_timer(self) -> bool:
        """Whether a timer failed, so that there is no record to feed back."""
        return bytes(self.value) == b"null" and (self.where or "").startswith("timer at ")


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """A letter and where it stands: from which byte of which file on.

    `id` tells it from all others, also where files are moved.
    """

    letter: LetterLine
    file: str
    offset: int
    id: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are meant: those of an operator, those of an error, or all."""

    operator: str | None = None
    error: str | None = None

    def has(self, letter: LetterLine) -> bool:
        """Say whether a letter is meant."""
        return self.operator in (None, letter.operator) and self.error in (None, letter.error)


async def read_letters(files: Files, paths: Sequence[str]) -> list[FoundLetter]:
    """Return the letters of files and of the visible ".jsonl" files of folders, in order.

    `ConfigError` for a path that is not there, `InputError` for a line that is no letter.
    """
    found: list[FoundLetter] = []
    for path in paths:
        for file in await _files_of(files, path):
            found += _letters_of(file, await files.read(file))
    return found


async def _files_of(files: Files, path: str) -> list[str]:
    entries = await files.entries(path)
    if entries is None:
        if await files.size(path) is None:
            raise ConfigError(f"there is no file or folder {path}: name one with dead letters")
        return [path]
    # Hidden files of a sink are not committed.
    return [
        f"{path.rstrip('/')}/{entry.name}"
        for entry in sorted(entries)
        if entry.name.endswith(".jsonl") and entry.name[0] not in "._"
    ]


def _letters_of(file: str, data: bytes) -> list[FoundLetter]:
    decode = msgspec.json.Decoder(LetterLine).decode
    name = file.rpartition("/")[2]
    found, offset = [], 0
    for line in data.splitlines(keepends=True):
        if line.strip():
            try:
                letter = decode(line)
            except msgspec.MsgspecError as error:
                raise InputError(
                    f"{file}, byte {offset}: this is no dead letter ({error}): "
                    f"{line[:100].decode(errors='replace').strip()}"
                ) from error
            digest = sha256(line.strip()).hexdigest()[:32]
            found.append(FoundLetter(letter, file, offset, f"{name}:{offset}:{digest}"))
        offset += len(line)
    return found
