"""What a piece of a file means: JSON lines or plain text. (CSV has a file of its own.) No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

SHOWN_BYTES: Final = 80
"""How much of a broken line a message shows."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A line, or a record of several lines, that cannot be read.

    `at` counts bytes from the start of the piece; `line` is the beginning of what stands there.
    """

    at: int
    line: bytes
    reason: str


@dataclass(slots=True)
class Decoded:
    """The records in the first `size` bytes of a piece, and what in them was broken.

    `size` 0 means that the piece ends inside its first record.
    """

    values: list[Any]
    size: int
    broken: list[Broken] = field(default_factory=list)


class Format(Protocol):
    """Decodes pieces of one file."""

    def decode(self, piece: bytes, lines: int, limit: int, last: bool, skip: bool) -> Decoded:
        """Decode a piece of `lines` whole lines into at most `limit` records.

        `last` says that the file ends with the piece. Without `skip` a broken line ends the result;
        it is reported when it comes first, so that what is before it is not lost.
        """
        ...


class JsonLines:
    """One JSON value a line, blank lines left out; of a declared type where one is given."""

    def __init__(self, type: Any = None) -> None:
        self._decoder = msgspec.json.Decoder(Any if type is None else type)

    def decode(self, piece: bytes, lines: int, limit: int, last: bool, skip: bool) -> Decoded:
        """See `Format.decode`."""
        try:
            values = self._decoder.decode_lines(piece)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return line_by_line(piece, self._add, skip)
        # The library minds values, not lines: other numbers mean blank lines, or values that do not
        # stand one to a line.
        if len(values) != lines:
            return line_by_line(piece, self._add, skip)
        return Decoded(values, len(piece))

    def _add(self, line: bytes, values: list[Any]) -> None:
        if line.strip():
            values.append(self._decoder.decode(line))


class TextLines:
    """Each line as text in UTF-8, without its end; blank lines are records too."""

    def decode(self, piece: bytes, lines: int, limit: int, last: bool, skip: bool) -> Decoded:
        """See `Format.decode`."""
        try:
            values = piece.decode().split("\n")
        except UnicodeDecodeError:
            return line_by_line(piece, self._add, skip)
        if piece.endswith(b"\n"):
            values.pop()
        if b"\r" in piece:
            values = [value.removesuffix("\r") for value in values]
        return Decoded(values, len(piece))

    def _add(self, line: bytes, values: list[Any]) -> None:
        values.append(line.decode().removesuffix("\r"))


def split_lines(piece: bytes) -> list[bytes]:
    """Return the lines of a piece without their newlines."""
    lines = piece.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def line_by_line(piece: bytes, add: Callable[[bytes, list[Any]], None], skip: bool) -> Decoded:
    """Decode a piece with something unusual in it, to find out which line that is."""
    values: list[Any] = []
    broken: list[Broken] = []
    at = 0
    for line in split_lines(piece):
        try:
            add(line, values)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if values and not skip:
                return Decoded(values, at)
            broken.append(Broken(at, line[:SHOWN_BYTES], str(error)))
            if not skip:
                return Decoded([], at + len(line), broken)
        at += len(line) + 1
    return Decoded(values, len(piece), broken)
