"""Files as a source: JSON lines, CSV or plain text, compressed or not."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar, Unpack, overload

import msgspec

from flowrt.connectors.files.csv_format import CsvFormat
from flowrt.connectors.files.paths import find_files, means, nothing_found
from flowrt.connectors.files.reader import FileReader, ReadOptions, is_gzip, is_same_file
from flowrt.contract.errors import ConfigError, InputError
from flowrt.contract.source import UNKNOWN, Position, Reader, Source, SourceContext, Split
from flowrt.contract.time import Duration, duration_ms

T = TypeVar("T")

MAX_LINE_BYTES: Final = 16 * 1024 * 1024


class _Options(TypedDict, total=False):
    watch: bool
    follow: bool
    discovery_interval: Duration
    on_error: Literal["fail", "skip"]
    max_line_bytes: int


class FileSource(Source[T], Generic[T]):
    """Reads a file, the files of a folder, or those that a pattern such as "logs/*.gz" matches.

    Exactly once end to end, with a sink that allows it: a position is a byte offset, so reading
    again gives the same records, as long as what was read of a file stays as it was. That a file
    became shorter, or begins with other bytes (the first 1,024 are looked at), is noticed when it
    is opened again, and is an `InputError`. Each file is a split; a subtask reads its files one
    after the other, by path. A file is known by its name below the folder or pattern given: the way
    to the folder may be spelled otherwise, and the folder moved.

    When a flow that had finished is started again, files that have grown are read on, and others
    are not even opened; a last line that had no newline must not go on then. A file that is gone is
    remembered for a day. One of its name that comes back before is the same file if its size is, or
    if it is longer and begins with the same bytes, and then what was added is read; any other is a
    new one.

    `format` is "jsonl" (one JSON value a line; blank lines are left out), "csv" (dicts of text by
    the header row; a `CsvFormat` says more) or "text" (lines as `str`). With `type` (a dataclass,
    a msgspec Struct, a TypedDict) JSON and CSV are converted to it, which is also faster. Text is
    UTF-8. Files that end in .gz are unpacked; their offsets are those of the unpacked bytes.

    `watch` goes on looking for new files, which must appear whole (by rename), and for more in
    those that were read, as a later start does; `follow` reads on at once when a file grows, and
    then takes a line only once its newline is there. Both look each `discovery_interval`, and then
    the source never ends. A log that is followed must not be rotated to the same name: another file
    in its place is an `InputError` once it is longer than the first was, or at once if it is
    shorter. A file that was read and is still there takes some 150 bytes of each checkpoint, and
    10 µs of each look: move them away before they are 100,000.

    A line that cannot be read raises `InputError` with file, byte offset and start of the line;
    with `on_error="skip"` it is logged and counted in `skipped`, and `job.metrics().counters` shows
    it as "skipped_lines". `ConfigError` where a path, or the folder of a pattern, does not exist,
    where it is a pipe, and where a name is not UTF-8; `InputError` where the folder is gone later,
    while it is watched. A file that is deleted before anything of it was read is left out, with a
    warning; one that was begun must stay.
    """

    @overload
    def __init__(
        self,
        path: str | os.PathLike[str],
        format: Literal["jsonl", "csv"] | CsvFormat = "jsonl",
        *,
        type: type[T],
        **options: Unpack[_Options],
    ) -> None: ...
    @overload
    def __init__(
        self: FileSource[str],
        path: str | os.PathLike[str],
        format: Literal["text"],
        **options: Unpack[_Options],
    ) -> None: ...
    @overload
    def __init__(
        self: FileSource[dict[str, str]],
        path: str | os.PathLike[str],
        format: Literal["csv"] | CsvFormat,
        **options: Unpack[_Options],
    ) -> None: ...
    @overload
    def __init__(
        self: FileSource[Any],
        path: str | os.PathLike[str],
        format: Literal["jsonl"] = "jsonl",
        *,
        type: Any = None,
        **options: Unpack[_Options],
    ) -> None: ...
    def __init__(
        self,
        path: str | os.PathLike[str],
        format: Literal["jsonl", "csv", "text"] | CsvFormat = "jsonl",
        *,
        type: Any = None,
        watch: bool = False,
        follow: bool = False,
        discovery_interval: Duration = "1s",
        on_error: Literal["fail", "skip"] = "fail",
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        if not os.fspath(path):
            raise ConfigError(
                "the path of a FileSource is empty text: name a file, a folder or a pattern"
            )
        self._path = PurePath(path).as_posix()  # without ./ and //, so that ids stay the same
        self._watch = watch
        self.skipped = 0
        """How many broken lines this object has skipped, those read again after a restart too."""
        interval_ms = duration_ms(discovery_interval)
        if interval_ms == 0:
            raise ConfigError("discovery_interval must be at least 1ms")
        if on_error not in ("fail", "skip"):
            raise ConfigError(f'on_error is "fail" or "skip", not {on_error!r}')
        if follow and is_gzip(self._path):
            raise ConfigError(f"{self._path} is compressed and cannot be followed while it grows")
        self._options = ReadOptions(
            format=_checked_format(format, type),
            type=type,
            follow_ms=interval_ms if follow else None,
            skip_broken=on_error == "skip",
            max_line_bytes=max_line_bytes,
            on_skipped=self._count_skipped,
        )
        self._was_there = False
        self._splits: dict[str, Split] = {}  # as listed last: most are the same the next time
        self.bounded = not (watch or follow)
        self.discovery_interval_ms = interval_ms if watch else None
        # A file that is followed never ends, so the next would never be opened.
        self.max_open_splits = 0 if follow else 1

    def describe(self) -> str:
        """Return the kind and place of the files."""
        format = self._options.format
        how = "".join(
            [", watched" if self._watch else "", ", followed" if self._options.follow_ms else ""]
        )
        return f"files {self._path} ({format if isinstance(format, str) else 'csv'}{how})"

    def means(self, path: str) -> bool:
        """Say whether a file would be read if it were there; looks at names and links only."""
        return means(self._path, path)

    async def splits(self, ctx: SourceContext) -> Sequence[Split]:
        """Return the files there are, by path.

        The id of a split is the file's name below the folder or pattern given, so that it does not
        depend on how the way there is spelled; its version is the size. A file that is followed
        never ends.
        """
        try:
            found = await find_files(ctx.world.files, self._path)
        except ConfigError as error:
            if not self._was_there:
                raise
            raise InputError(f"{error}. It was there when the flow looked before") from error
        self._was_there = True
        if not found.sizes and not self._watch:
            raise nothing_found(self._path)
        followed = self._options.follow_ms is not None
        before, now = self._splits, dict[str, Split]()
        for path, size in found.sizes.items():
            version = UNKNOWN if followed else size
            split = before.get(path)
            if split is None or split.version != version:
                split = Split(found.name(path), path, version)
            now[path] = split
        self._splits = now
        return list(now.values())

    async def goes_on(self, split: Split, position: Position | None, ctx: SourceContext) -> bool:
        """Say whether a file that was away is no shorter than it was, and begins with the same."""
        return await is_same_file(ctx.world.files, split.data, position)

    async def reader(
        self, split: Split, position: Position | None, ctx: SourceContext
    ) -> Reader[T]:
        """Return a reader of one file; a position is a byte offset, with a checksum."""
        return FileReader(split.data, position, ctx.world, self._options)

    def counters(self) -> Mapping[str, int]:
        """Return the number of broken lines that were skipped."""
        return {"skipped_lines": self.skipped}

    def _count_skipped(self) -> None:
        self.skipped += 1


def _checked_format(format: str | CsvFormat, type: Any) -> str | CsvFormat:
    if format == "csv":
        format = CsvFormat()
    if isinstance(format, str) and format not in ("jsonl", "text"):
        raise ConfigError(f'the format is "jsonl", "csv" or "text", or a CsvFormat, not {format!r}')
    if type is None:
        return format
    if format == "text":
        raise ConfigError('format "text" gives lines as str: it takes no type')
    try:
        msgspec.json.Decoder(type)
    except TypeError as error:
        raise ConfigError(f"the type {type!r} cannot be read from files: {error}") from error
    if isinstance(format, CsvFormat) and not _has_fields(type):
        raise ConfigError(
            f"a CSV row is read as a dataclass, a Struct or a TypedDict, not as {type!r}"
        )
    return format


def _has_fields(type: Any) -> bool:
    return dataclasses.is_dataclass(type) or hasattr(msgspec.inspect.type_info(type), "fields")
