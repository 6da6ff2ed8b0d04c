"""A file as blocks of bytes, plain or gzip."""

from __future__ import annotations

import zlib
from typing import Final, Protocol

from anyio.lowlevel import checkpoint

from flowrt.contract.errors import InputError
from flowrt.contract.world import Files

BLOCK_BYTES: Final = 256 * 1024
_GZIP: Final = 31
"""zlib's `wbits` for: a gzip header and trailer around each member."""


class Blocks(Protocol):
    """Reads a file from some offset to its end."""

    async def next(self) -> bytes:
        """Return the bytes that follow, at most a block; b"" where the file ends (for now)."""
        ...

    async def left(self, position: int) -> int:
        """Return how many bytes of the file on disk lie behind `position`, about."""
        ...


class PlainBlocks:
    """The bytes of a file as they are. One that grows is followed: after b"" more may come."""

    def __init__(self, files: Files, path: str, offset: int = 0) -> None:
        self._files = files
        self._path = path
        self._offset = offset

    async def next(self) -> bytes:
        """See `Blocks.next`."""
        try:
            block = await self._files.read(self._path, self._offset, BLOCK_BYTES)
        except OSError as error:
            raise cannot_read(self._path, error) from error
        self._offset += len(block)
        return block

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

    async def skip(self, count: int) -> bytes:
        """Read on over `count` bytes; return what follows in the same block (may be b"")."""
        while count:
            block = await self.next()
            if not block:
                raise shorter_than(self._path, "its end", count)
            if len(block) > count:
                return block[count:]
            count -= len(block)
            await checkpoint()
        return b""

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


def shorter_than(path: str, where: str, missing: int) -> InputError:
    """Return the error for a file that ends before the position to go on from."""
    return InputError(
        f"{path} was replaced or cut: {where} lies {missing} bytes before the position to go on "
        "from. Give the new file another name, or start the flow from a new checkpoint folder"
    )
