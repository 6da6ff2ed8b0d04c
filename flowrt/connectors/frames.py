"""Bytes of a connection cut at a delimiter, with the number and place of each piece. No I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Frame:
    """What stood before a delimiter: its number, from 1, and the byte at which it begins.

    Of one that is `too_long` only the beginning is there.
    """

    number: int
    at: int
    data: bytes
    too_long: bool = False


class Frames:
    """Cuts what it is fed. Holds at most the begin of one frame, up to `max_bytes`."""

    def __init__(self, delimiter: bytes, max_bytes: int) -> None:
        self._delimiter = delimiter
        self._max_bytes = max_bytes
        self._rest = b""
        self._number = 0
        self._at = 0
        self._skipping = False

    def feed(self, block: bytes) -> list[Frame]:
        """Take the bytes that follow; return the frames that end in them, or became too long."""
        *whole, self._rest = (self._rest + block).split(self._delimiter)
        frames = [frame for data in whole if (frame := self._end(data)) is not None]
        if len(self._rest) > self._max_bytes:
            # What is let go of may end in the begin of a delimiter.
            kept = len(self._delimiter) - 1
            if not self._skipping:
                frames.append(self._frame(self._rest, too_long=True))
                self._skipping = True
            self._at += len(self._rest) - kept
            self._rest = self._rest[len(self._rest) - kept :]
        return frames

    def end(self) -> list[Frame]:
        """Hear that no more comes: what follows the last delimiter is a frame too."""
        rest, self._rest = self._rest, b""
        frame = self._end(rest) if rest else None
        return [] if frame is None else [frame]

    def _end(self, data: bytes) -> Frame | None:
        frame = None
        if self._skipping:
            self._skipping = False
        else:
            frame = self._frame(data, too_long=len(data) > self._max_bytes)
        self._at += len(data) + len(self._delimiter)
        return frame

    def _frame(self, data: bytes, *, too_long: bool) -> Frame:
        self._number += 1
        return Frame(self._number, self._at, data, too_long)
