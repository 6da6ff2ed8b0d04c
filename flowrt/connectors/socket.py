"""Lines from a TCP server as a source."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar, overload

import anyio
import msgspec
from anyio.abc import SocketStream

from flowrt.connectors.frames import Frame, Frames
from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.logs import flow_log
from flowrt.contract.plural import plural
from flowrt.contract.retry import ExponentialBackoff, RetryStrategy
from flowrt.contract.source import Chunk, Position, Reader, Source, SourceContext, Split
from flowrt.contract.waiting import sleep_ms
from flowrt.contract.world import World

T = TypeVar("T")

RECEIVE_BYTES: Final = 64 * 1024
CONNECT_SECONDS: Final = 5
_SHOWN_BYTES: Final = 80
_BACKOFF: Final = ExponentialBackoff("1s", longest="30s")
_log = flow_log("flowrt.connectors.socket")


class SocketSource(Source[T], Generic[T]):
    """Connects to a TCP server and reads what it sends, line by line.

    At most once: a connection cannot be read again. What arrived after the last snapshot is lost in
    a crash or restart, and what the server sends to nobody is lost as well. While the flow is
    slower, nothing is read, and the server's sending waits.

    `format` is "text" (lines as `str`, in UTF-8) or "jsonl" (one JSON value a line, of the given
    `type` where there is one; blank lines are left out). A line ends with `delimiter`. When the
    connection ends, breaks or cannot be made, `reconnect` says when it is made again: by default
    after 1 s, then twice as long each time, 30 s at most. What had come of a line then is no line,
    for the server may have died within it: it is left out, logged and counted in `cut_off`. With
    `reconnect=None` the source ends with the connection, and so does the last line, with or
    without its delimiter, as in a file; a connection that breaks or cannot be made is then an
    `InputError`, as it is when the strategy gives up.

    A line that cannot be read, or is longer than `max_line_bytes`, raises `InputError` with host,
    port, number of the line and byte within the connection; with `on_error="skip"` it is logged and
    counted in `skipped`.
    """

    replayable = False

    @overload
    def __init__(
        self: SocketSource[str],
        host: str,
        port: int,
        format: Literal["text"] = "text",
        *,
        delimiter: str | bytes = "\n",
        max_line_bytes: int = 1024 * 1024,
        reconnect: RetryStrategy | None = _BACKOFF,
        on_error: Literal["fail", "skip"] = "fail",
    ) -> None: ...
    @overload
    def __init__(
        self,
        host: str,
        port: int,
        format: Literal["jsonl"],
        *,
        type: type[T] | None = None,
        delimiter: str | bytes = "\n",
        max_line_bytes: int = 1024 * 1024,
        reconnect: RetryStrategy | None = _BACKOFF,
        on_error: Literal["fail", "skip"] = "fail",
    ) -> None: ...
    def __init__(
        self,
        host: str,
        port: int,
        format: Literal["text", "jsonl"] = "text",
        *,
        type: Any = None,
        delimiter: str | bytes = "\n",
        max_line_bytes: int = 1024 * 1024,
        reconnect: RetryStrategy | None = _BACKOFF,
        on_error: Literal["fail", "skip"] = "fail",
    ) -> None:
        ends = delimiter.encode() if isinstance(delimiter, str) else delimiter
        if not ends or max_line_bytes < 1 or not 0 < port < 65_536:
            raise ConfigError(
                f"a socket needs a delimiter, a port and a length, not delimiter={delimiter!r}, "
                f"port={port}, max_line_bytes={max_line_bytes}"
            )
        if on_error not in ("fail", "skip"):
            raise ConfigError(f'on_error is "fail" or "skip", not {on_error!r}')
        self._host = host
        self._port = port
        self._format = format
        self._how = _How(
            decode=_decoder(format, type, ends),
            delimiter=ends,
            max_line_bytes=max_line_bytes,
            reconnect=reconnect,
            skip_broken=on_error == "skip",
            on_skipped=self._count_skipped,
            on_cut_off=self._count_cut_off,
        )
        self.skipped = 0
        """How many broken lines this object has skipped."""
        self.cut_off = 0
        """How many lines this object has left out because their connection ended within them."""
        self.bounded = reconnect is None

    def describe(self) -> str:
        """Return the address and the format."""
        return f"socket {self._host}:{self._port} ({self._format})"

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        """Return the one split: the address."""
        return [Split(f"{self._host}:{self._port}")]

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[T]:
        """Return a reader; a position is the number of lines read, and says no more than that."""
        return _SocketReader(self._host, self._port, position or 0, ctx.world, self._how)

    def counters(self) -> Mapping[str, int]:
        """Return how many lines were skipped, and how many were cut off."""
        return {"skipped_lines": self.skipped, "cut_off_lines": self.cut_off}

    def _count_skipped(self) -> None:
        self.skipped += 1

    def _count_cut_off(self) -> None:
        self.cut_off += 1


@dataclass(frozen=True, slots=True)
class _How:
    """How a `SocketSource` reads."""

    decode: Callable[[bytes], Any]
    delimiter: bytes
    max_line_bytes: int
    reconnect: RetryStrategy | None
    skip_broken: bool
    on_skipped: Callable[[], None]
    on_cut_off: Callable[[], None]


_BLANK: Final = object()


def _decoder(format: str, type: Any, delimiter: bytes) -> Callable[[bytes], Any]:
    if format == "text" and type is None:
        at_newline = delimiter == b"\n"
        return lambda line: (line.removesuffix(b"\r") if at_newline else line).decode()
    if format != "jsonl":
        raise ConfigError(
            f'the format is "text", which takes no type, or "jsonl", not {format!r} with {type!r}'
        )
    try:
        decode = msgspec.json.Decoder(Any if type is None else type).decode
    except TypeError as error:
        raise ConfigError(f"the type {type!r} cannot be read from JSON: {error}") from error
    return lambda line: decode(line) if line.strip() else _BLANK


def _start_of(frame: Frame) -> str:
    return frame.data[:_SHOWN_BYTES].decode(errors="backslashreplace")


class _SocketReader(Generic[T]):
    """Reads one connection after another."""

    def __init__(self, host: str, port: int, read: int, world: World, how: _How) -> None:
        self._host = host
        self._port = port
        self._address = f"{host}:{port}"
        self._read = read
        self._world = world
        self._how = how
        self._frames = Frames(how.delimiter, how.max_line_bytes)
        self._ready: deque[Frame] = deque()
        self._stream: SocketStream | None = None
        self._failures = 0
        self._wait_ms = 0
        self._ended = False

    async def read(self, limit: int) -> Chunk[T] | None:
        while True:
            values = self._decode(limit)
            if values:
                self._read += len(values)
                return Chunk(values, self._read)
            if self._ended:
                return None
            await self._receive()

    async def lag(self, position: Position) -> tuple[int, str] | None:
        return None

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await anyio.aclose_forcefully(stream)

    def _decode(self, limit: int) -> list[T]:
        values: list[T] = []
        while self._ready and len(values) < limit:
            frame = self._ready[0]
            try:
                if frame.too_long:
                    limit_bytes = self._how.max_line_bytes
                    raise ValueError(
                        f"it is longer than {limit_bytes} {plural(limit_bytes, 'byte')}"
                    )
                value = self._how.decode(frame.data)
                if value is not _BLANK:
                    values.append(value)
            except (ValueError, RecursionError) as error:  # what is broken in UTF-8 and JSON too
                if values and not self._how.skip_broken:
                    return values  # it comes first the next time
                self._report(frame, error)
            self._ready.popleft()
        return values

    def _report(self, frame: Frame, reason: Exception) -> None:
        start = _start_of(frame)
        problem = (
            f"{self._address}: line {frame.number} of the connection, at byte {frame.at}, cannot "
            f"be read: {reason}. It starts with {start!r}"
        )
        if not self._how.skip_broken:
            raise InputError(
                f'{problem}. Mend what sends it, or pass on_error="skip" to go on without such '
                "lines"
            ) from reason
        self._how.on_skipped()
        _log.warning("skipped a broken line: %s", problem)

    async def _receive(self) -> None:
        try:
            if self._stream is None:
                self._stream = await self._connected()
                self._frames = Frames(self._how.delimiter, self._how.max_line_bytes)
            self._ready.extend(self._frames.feed(await self._stream.receive(RECEIVE_BYTES)))
            self._failures = 0
        except anyio.EndOfStream:
            if self._how.reconnect is None:
                self._ready.extend(self._frames.end())
            await self._lost("")
        except (OSError, anyio.BrokenResourceError) as error:
            await self._lost(str(error) or "the connection broke", error)

    def _leave_out_cut_off(self) -> None:
        """Leave out what has come of a line: half of a number reads like a whole one."""
        for frame in self._frames.end():
            self._how.on_cut_off()
            _log.warning(
                "%s: left out line %d of the connection, at byte %d: the connection ended within "
                "it. It starts with %r",
                self._address,
                frame.number,
                frame.at,
                _start_of(frame),
            )

    async def _connected(self) -> SocketStream:
        if self._wait_ms:
            await sleep_ms(self._world.clock, self._wait_ms)
        # Shielded: a connection that is made in the moment of a cancellation would be nobody's.
        with anyio.move_on_after(CONNECT_SECONDS, shield=True):
            return await anyio.connect_tcp(self._host, self._port)
        raise TimeoutError(f"no answer within {CONNECT_SECONDS} s")

    async def _lost(self, reason: str, error: Exception | None = None) -> None:
        """Note when to connect again, or that this is the end; no reason for an orderly one."""
        self._leave_out_cut_off()
        await self.close()
        strategy, wait_ms = self._how.reconnect, None
        if strategy is not None:
            self._failures += 1
            wait_ms = strategy.delay_ms(self._failures, self._world.randomness.fraction())
        if wait_ms is not None:
            self._wait_ms = wait_ms
            _log.warning(
                "%s: the connection %s; connecting again in %d ms",
                self._address,
                f"failed ({reason})" if reason else "ended",
                wait_ms,
            )
            return
        self._ended = True
        if strategy is not None or error is not None:
            raise InputError(
                f"{self._address} cannot be read: {reason or 'the connection ended'}. Does the "
                "server run there? With another reconnect= the source goes on when it does"
            ) from error
