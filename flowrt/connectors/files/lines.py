"""Blocks of bytes cut into lines, with the offset of each. No I/O."""

from __future__ import annotations


class Lines:
    """A window over a file: bytes are fed behind, whole lines taken in front.

    A line ends with a newline; the last of a file may lack it. Offsets count bytes from the start
    of the file. Holds at most what was fed since the last whole line was taken.
    """

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        """Where the first line that was not taken begins."""
        self._data = b""  # whole lines
        self._start = 0  # of the first of them in _data
        self._parts: list[bytes] = []  # the begin of the line behind them
        self._parts_bytes = 0

    def feed(self, block: bytes) -> None:
        """Take the bytes that follow in the file."""
        end = block.rfind(b"\n") + 1
        if end:
            self._data = b"".join((self._data[self._start :], *self._parts, block[:end]))
            self._start = 0
            self._parts = []
            self._parts_bytes = 0
            block = block[end:]
        if block:
            self._parts.append(block)
            self._parts_bytes += len(block)

    def end(self) -> None:
        """Hear that the file ends here: what follows the last newline is a line too."""
        self._data = b"".join((self._data[self._start :], *self._parts))
        self._start = 0
        self._parts = []
        self._parts_bytes = 0

    def cut(self, limit: int) -> tuple[bytes, int]:
        """Return up to `limit` whole lines as one piece, and their number; takes none of them."""
        data, start = self._data, self._start
        end = len(data)
        if start == end:
            return b"", 0
        count = data.count(b"\n", start, end) + (data[-1] != 0x0A)
        while count > limit:
            guess = start + (end - start) * limit // count
            end = data.rfind(b"\n", start, guess) + 1 or data.find(b"\n", start) + 1
            count = data.count(b"\n", start, end)
        return data[start:end], count

    def take(self, size: int) -> None:
        """Let go of the first `size` bytes, which end a line."""
        self._start += size
        self.offset += size

    @property
    def whole(self) -> int:
        """How many bytes of whole lines there are."""
        return len(self._data) - self._start

    @property
    def unfinished(self) -> int:
        """How many bytes follow the last newline."""
        return self._parts_bytes

    @property
    def fed_until(self) -> int:
        """The offset behind the last byte that was fed."""
        return self.offset + self.whole + self._parts_bytes

    def beginning(self, size: int) -> bytes:
        """Return the first `size` bytes that were not taken, of a whole line or not."""
        first = self._data[self._start : self._start + size]
        if len(first) < size and self._parts:
            first += b"".join(self._parts)[: size - len(first)]
        return first
