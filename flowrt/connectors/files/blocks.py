"""A file as blocks of bytes, plain or gzip."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final, Protocol

from anyio.lowlevel import checkpoint

from flowrt.contract.errors import InputError
from flowrt.contract.plural import plural
from flowrt.contract.world import Files

BLOCK_BYTES: Final = 256 * 1024
START_BYTES: Final = 1024
"""How many of a file's first bytes tell whether it is still the same file."""
_GZIP: Final = 31
"""zlib's `wbits` for: a gzip header and trailer around each member."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """What lies before an offset: the first bytes of the file, and the very last byte.

    `rest` was read already and follows the offset.
    """

    start: bytes = b""
    last: bytes = b""
    rest: bytes = b""


class Blocks(Protocol):
    """Reads a file from some offset to its end."""

    async def skip(self, count: int) -> Skipped:
        """Go on behind the first `count` bytes; asked first. `InputError` if there are fewer."""
        ...

    async def next(self) -> bytes:
        """Return the bytes that follow, at most a block; b"" where the file ends (for now)."""
        ...

    async def left(self, position: int) -> int:
        """Return how many bytes of the file on disk lie behind `position`, about."""
        ...


class PlainBlocks:
    """The bytes of a file as they are. One that grows is followed: after b"" more may come."""

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path
        self._offset = 0

    async def skip(self, count: int) -> Skipped:
        """See `Blocks.skip`; reads nothing but what it returns."""
        if not count:
            return Skipped()
        start = await self._read(0, min(count, START_BYTES))
        last = start[-1:] if count <= START_BYTES else await self._read(count - 1, 1)
        self._offset = count
        return Skipped(start, last)

    async def next(self) -> bytes:
        """See `Blocks.next`."""
        block = await self._read(self._offset, BLOCK_BYTES)
        self._offset += len(block)
        return block

    async def _read(self, offset: int, size: int) -> bytes:
        try:
            return await self._files.read(self._path, offset, size)
        except OSError as error:
            raise cannot_read(self._path, error) from error

    async def left(self, position: int) -> int:
        """See `Blocks.left`; exact."""
        return max((await self._files.size(self._path) or 0) - position, 0)


class GzipBlocks:
    """The bytes inside a gzip file, which may have several members; offsets count those bytes.

    Never more than two blocks are in memory, however well the file is compressed.
    """

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path
        self._compressed = PlainBlocks(files, path)
        self._compressed_read = 0
        self._inflated = 0
        self._pending = b""
        self._inflater = zlib.decompressobj(_GZIP)
        self._in_member = False
        self._held_back = False

    async def next(self) -> bytes:
        """See `Blocks.next`; `InputError` where the file is damaged or cut."""
        while True:
            if not self._pending and not self._held_back:
                self._pending = await self._compressed.next()
                self._compressed_read += len(self._pending)
                if not self._pending:
                    return self._end()
            if block := self._inflate():
                return block

    async def skip(self, count: int) -> Skipped:
        """See `Blocks.skip`; reads and unpacks all that it skips."""
        start = last = b""
        while count:
            block = await self.next()
            if not block:
                raise shorter_than(self._path, "its end", count)
            start += block[: min(START_BYTES - len(start), count)]
            last = block[:count][-1:]
            if len(block) > count:
                return Skipped(start, last, block[count:])
            count -= len(block)
            await checkpoint()
        return Skipped(start, last)

    async def left(self, position: int) -> int:
        """See `Blocks.left`: compressed bytes, as if each held as much as those until here."""
        consumed = self._compressed_read - len(self._pending)
        behind = consumed * position // self._inflated if self._inflated else 0
        return max((await self._files.size(self._path) or 0) - behind, 0)

    def _inflate(self) -> bytes:
        if not self._in_member:
            self._pending = self._pending.lstrip(b"\0")  # padding between members, as gzip allows
            if not self._pending:
                return b""
            self._inflater = zlib.decompressobj(_GZIP)
            self._in_member = True
        try:
            block = self._inflater.decompress(self._pending, BLOCK_BYTES)
        except zlib.error as error:
            raise InputError(
                f"{self._path} is damaged: its gzip data cannot be read ({error}) in the 256 KiB "
                f"before byte {self._compressed_read} of the file; fetch or pack the file again"
            ) from error
        self._inflated += len(block)
        self._in_member = not self._inflater.eof
        self._pending = (
            self._inflater.unconsumed_tail if self._in_member else self._inflater.unused_data
        )
        # A full block may leave output inside zlib although all input is consumed.
        self._held_back = self._in_member and len(block) == BLOCK_BYTES
        return block

    def _end(self) -> bytes:
        if self._in_member:
            raise InputError(
                f"{self._path} was cut: its gzip data goes on after the end of the file, at byte "
                f"{self._compressed_read}; fetch or pack the file again"
            )
        return b""


def cannot_read(path: str, error: OSError) -> InputError:
    """Return the error for a file that was there and cannot be read."""
    return InputError(
        f"{path} cannot be read: {error.strerror or error}; a file must stay in its place, "
        "readable, until the flow has read it"
    )


def replaced(path: str, size: int) -> InputError:
    """Return the error for a file whose first `size` bytes are others than when they were read."""
    others = (
        "byte is not the one that was" if size == 1 else f"{size} bytes are not those that were"
    )
    return InputError(f"{path} was replaced: its first {others} read before. {_ANEW}")


def shorter_than(path: str, where: str, missing: int) -> InputError:
    """Return the error for a file that ends before the position to go on from."""
    return InputError(
        f"{path} was replaced or cut: {where} lies {missing} {plural(missing, 'byte')} before the "
        f"position to go on from. {_ANEW}"
    )


_ANEW: Final = "Give the new file another name, or start the flow from a new checkpoint folder"
