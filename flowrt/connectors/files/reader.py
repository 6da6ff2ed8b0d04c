"""Reads one file, record by record, from any position."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from flowrt.connectors.files.blocks import (
    START_BYTES,
    Blocks,
    GzipBlocks,
    PlainBlocks,
    cannot_read,
    replaced,
    shorter_than,
)
from flowrt.connectors.files.csv_format import CsvFormat, CsvLines, check_fields, read_rows
from flowrt.connectors.files.formats import (
    SHOWN_BYTES,
    Broken,
    Format,
    JsonLines,
    TextLines,
    split_lines,
)
from flowrt.connectors.files.lines import Lines
from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.logs import flow_log
from flowrt.contract.source import Chunk
from flowrt.contract.waiting import wait_until
from flowrt.contract.world import Files, World

T = TypeVar("T")

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_log = flow_log("flowrt.connectors.files")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a `FileSource` reads each file."""

    format: CsvFormat | str
    type: Any
    follow_ms: int | None
    """How often to look for what was added to a file; None: a file ends where it ends."""
    skip_broken: bool
    max_line_bytes: int
    on_skipped: Callable[[], None]
    """Called for each broken line that is skipped."""


class FileBytes:
    """A file as lines from a position on; knows whether it ended.

    A position holds the offset of a byte, and a checksum of the file's first bytes before it: by
    these it is noticed when another file has taken the place. An offset alone is taken, too.
    """

    def __init__(self, world: World, path: str, position: Any, options: ReadOptions) -> None:
        self.lines = Lines(offset_of(position))
        self.ended = False
        self._is_new = position is None
        self._checksum = position["start"] if isinstance(position, dict) else None
        self._start = b""
        self._in_line = False
        self._world = world
        self._path = path
        self._options = options
        self._blocks: Blocks | None = None

    async def fetch(self) -> None:
        """Wait for more bytes, or for the end."""
        if self._blocks is None:
            if self._is_new and not await self._is_there():
                self.ended = True
                return
            self._blocks, block = await self._open()
        else:
            block = await self._blocks.next()
            if not block:
                await self._at_end()
        at_start = not self.lines.fed_until
        if at_start:
            block = await self._with_mark(self._blocks, block)
        elif self._in_line and block == b"\r":
            block += await self._blocks.next()
        if len(self._start) < START_BYTES:
            self._start += block[: START_BYTES - len(self._start)]
        if at_start and block.startswith(_BYTE_ORDER_MARK):
            self.lines.offset = len(_BYTE_ORDER_MARK)
            block = block[len(_BYTE_ORDER_MARK) :]
        if self._in_line and block:
            block = self._behind_line(block)
        self.lines.feed(block)
        if self.lines.unfinished > self._options.max_line_bytes:
            raise self.too_long(self.lines.whole)

    def position(self) -> dict[str, int]:
        """Return the position behind the lines that were taken."""
        offset = self.lines.offset
        return {"byte": offset, "start": zlib.crc32(self._start[:offset])}

    async def left(self, position: int) -> int:
        """Return how many bytes on the disk lie behind a position, about."""
        if self._blocks is not None:
            return await self._blocks.left(position)
        return max((await self._world.files.size(self._path) or 0) - position, 0)

    def too_long(self, at: int) -> InputError:
        """Return the error for the line or record `at` bytes behind the first that is held."""
        start = self.lines.beginning(at + SHOWN_BYTES)[at:]
        return InputError(
            f"{self._path}: the line at byte {self.lines.offset + at} is longer than "
            f"max_line_bytes={self._options.max_line_bytes}. Is the file in another format? "
            f"Otherwise pass a larger max_line_bytes. {shown(start)}"
        )

    async def _open(self) -> tuple[Blocks, bytes]:
        files, offset = self._world.files, self.lines.offset
        await self._check_size(files, offset)
        if is_gzip(self._path) and self._options.follow_ms is not None:
            raise ConfigError(f"{self._path} is compressed and cannot be followed while it grows")
        blocks = _blocks(files, self._path)
        skipped = await blocks.skip(offset)
        if self._checksum is not None and zlib.crc32(skipped.start) != self._checksum:
            raise replaced(self._path, len(skipped.start))
        self._start = skipped.start
        self._in_line = skipped.last not in (b"", b"\n")
        return blocks, skipped.rest

    async def _is_there(self) -> bool:
        """Say whether the file is still there, before it is opened for the first time.

        Nothing of one that is not is in any result, and to stop for it would be for good: a
        checkpoint may know of it.
        """
        try:
            if await self._world.files.size(self._path) is not None:
                return True
        except OSError as error:
            raise cannot_read(self._path, error) from error
        _log.warning("%s was deleted before it was read, and is left out", self._path)
        return False

    async def _check_size(self, files: Files, expected: int) -> int:
        try:
            size = await files.size(self._path)
        except OSError as error:
            raise cannot_read(self._path, error) from error
        if size is None:
            raise cannot_read(self._path, FileNotFoundError(2, "the file is gone"))
        if size < expected and not is_gzip(self._path):
            raise shorter_than(self._path, f"its end, at byte {size},", expected - size)
        return size

    async def _at_end(self) -> None:
        if self._options.follow_ms is None:
            self.lines.end()
            self.ended = True
            return
        clock = self._world.clock
        await wait_until(clock, clock.now_ms() + self._options.follow_ms)
        size = await self._check_size(self._world.files, self.lines.fed_until)
        if size > self.lines.fed_until:
            # It may be another file by now, which took its name and has grown longer.
            known = len(self._start)
            now = await PlainBlocks(self._world.files, self._path).skip(known)
            if now.start != self._start:
                raise replaced(self._path, known)

    async def _with_mark(self, blocks: Blocks, block: bytes) -> bytes:
        """Return the first block, with a byte order mark whole if there is one."""
        while block and len(block) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(block):
            more = await blocks.next()
            if not more:
                break
            block += more
        return block

    def _behind_line(self, block: bytes) -> bytes:
        """Leave out the newline that the last line before the position did not have yet."""
        self._in_line = False
        newline = b"\r\n" if block.startswith(b"\r\n") else b"\n"
        if not block.startswith(newline):
            raise InputError(
                f"{self._path}: when it was read to its end, at byte {self.lines.offset}, the last "
                f"line had no newline, and now it goes on: {shown(block)}. That line was another "
                "record then. Start the flow from a new checkpoint folder; and while a file grows "
                "pass follow=True, which leaves a line until its newline is there"
            )
        self.lines.offset += len(newline)
        return block[len(newline) :]


class FileReader(Generic[T]):
    """Reads one file; a position lies behind a record and counts uncompressed bytes."""

    def __init__(self, path: str, position: Any, world: World, options: ReadOptions) -> None:
        self._path = path
        self._world = world
        self._options = options
        self._format: Format | None = None
        self._bytes = FileBytes(world, path, position, options)
        self._lines_wanted = 1

    async def read(self, limit: int) -> Chunk[T] | None:
        """See `Reader.read`; chunks are made of what was read from the disk at once."""
        if self._format is None:
            self._format = await self._open()
        while True:
            chunk = self._decode(self._format, limit)
            if chunk is not None:
                return chunk
            if self._bytes.ended:
                return None
            await self._bytes.fetch()

    async def lag(self, position: Any) -> tuple[int, str] | None:
        """Return the bytes left on disk; of a compressed file an estimate."""
        try:
            return await self._bytes.left(offset_of(position)), "bytes"
        except OSError:
            return None

    async def close(self) -> None:
        """Nothing is open between two reads."""

    async def _open(self) -> Format:
        options = self._options
        if options.format == "jsonl":
            return JsonLines(options.type)
        if not isinstance(options.format, CsvFormat):
            return TextLines()
        fields = options.format.fields
        try:
            if fields is None:
                fields, end = await self._read_header(options.format)
                if self._bytes.lines.offset < end:
                    self._bytes = FileBytes(self._world, self._path, end, options)
                if not fields:
                    return TextLines()  # an empty file: there is nothing to decode
            return CsvLines(options.format, fields, options.type)
        except ConfigError as error:
            raise ConfigError(f"{self._path}: {error}") from error

    async def _read_header(self, format: CsvFormat) -> tuple[list[str], int]:
        """Return the names in the first row and the offset behind it; no name for an empty file."""
        file = FileBytes(self._world, self._path, 0, self._options)
        while True:
            piece, count = file.lines.cut(1 << 62)
            for at, size, row, reason in read_rows(piece, format, file.ended) if count else ():
                if reason:
                    raise InputError(
                        f"{self._broken(file.lines.offset + at, piece[at:], reason)}. Mend the "
                        "file: without its first row none of the others can be read"
                    )
                if row:
                    check_fields(row)
                    return row, file.lines.offset + at + size
            if file.lines.whole > self._options.max_line_bytes:
                raise file.too_long(0)
            if file.ended:
                return [], file.lines.fed_until
            await file.fetch()

    def _decode(self, format: Format, limit: int) -> Chunk[T] | None:
        """Return the next records from what is in memory; None where that holds none whole."""
        lines, options = self._bytes.lines, self._options
        while True:
            wanted = max(limit, self._lines_wanted)
            piece, count = self._without_too_long(*lines.cut(wanted))
            if not count:
                return None
            last = self._bytes.ended and len(piece) == lines.whole
            decoded = format.decode(piece, count, limit, last, options.skip_broken)
            if decoded.size:
                break
            if len(piece) > options.max_line_bytes:
                raise self._bytes.too_long(0)
            if len(piece) == lines.whole:
                return None
            self._lines_wanted = 2 * wanted
        self._lines_wanted = 1
        self._report(decoded.broken)
        lines.take(decoded.size)
        return Chunk(decoded.values, self._bytes.position())

    def _without_too_long(self, piece: bytes, count: int) -> tuple[bytes, int]:
        """Return the lines before the first that is too long; raise where that is the first."""
        longest = self._options.max_line_bytes
        if len(piece) <= longest:
            return piece, count
        at = 0
        for before, line in enumerate(split_lines(piece)):
            if len(line) > longest:
                if not before:
                    raise self._bytes.too_long(0)
                return piece[:at], before
            at += len(line) + 1
        return piece, count

    def _report(self, broken: list[Broken]) -> None:
        for one in broken:
            offset = self._bytes.lines.offset + one.at
            problem = self._broken(offset, one.line, one.reason)
            if not self._options.skip_broken:
                raise InputError(
                    f'{problem}. Mend the file, or pass on_error="skip" to go on without such lines'
                )
            self._options.on_skipped()
            _log.warning("skipped a broken line: %s", problem)

    def _broken(self, offset: int, line: bytes, reason: str) -> str:
        return f"{self._path}: the line at byte {offset} cannot be read: {reason}. {shown(line)}"


async def is_same_file(files: Files, path: str, position: Any) -> bool:
    """Say whether a file is still the one that was read to a position: as long, and begins so.

    False where that cannot be known: the position is a bare offset, or nothing was read.
    """
    if not isinstance(position, dict):
        return False
    try:
        size = await files.size(path)
        if size is None or (size < position["byte"] and not is_gzip(path)):
            return False
        skipped = await _blocks(files, path).skip(position["byte"])
    except (InputError, OSError):
        return False  # whoever opens it says what is wrong with it
    return bool(zlib.crc32(skipped.start) == position["start"])


def _blocks(files: Files, path: str) -> Blocks:
    return GzipBlocks(files, path) if is_gzip(path) else PlainBlocks(files, path)


def offset_of(position: Any) -> int:
    """Return the byte at which a position lies; 0 for None, the beginning."""
    offset: int = position["byte"] if isinstance(position, dict) else position or 0
    return offset


def shown(line: bytes) -> str:
    """Return what a message says of a line: how it begins."""
    start = line.split(b"\n", 1)[0].rstrip(b"\r")[:SHOWN_BYTES]
    return f"It starts with {start.decode(errors='backslashreplace')!r}"


def is_gzip(path: str) -> bool:
    """Say whether a file is compressed: its name ends in .gz."""
    return path.lower().endswith(".gz")
