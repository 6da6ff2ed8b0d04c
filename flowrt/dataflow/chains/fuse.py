"""Writes one function for a line of steps: the loop a person would write, every step inline.

For `map(f), filter(g)` it is

    async def fused(values, timestamps, keys):
        out = []
        for v in values:
            v = f(v)
            if not g(v):
                continue
            out.append(v)
        ...

The figures behind this are in docs/decisions: calling each step through a list or a chain of calls
costs a third of the throughput. The text of the function holds no data of the user's, only names
that this module makes; what the names mean is passed in beside it.
"""

from __future__ import annotations

import inspect
import linecache
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, TypeAlias

from flowrt.contract.elements import Records
from flowrt.contract.snapshot import MISSING
from flowrt.dataflow.chains.judge import NotAwaited
from flowrt.dataflow.chains.line_writer import LineWriter
from flowrt.dataflow.chains.part import Part

Emit: TypeAlias = Callable[[Records], Awaitable[None]]
Fused: TypeAlias = Callable[[list[Any], list[Any] | None, list[Any] | None], Awaitable[None]]
Note: TypeAlias = Callable[[Sequence[int], Sequence[int]], None]
"""Hears how many records came to each step of a line, and left the last, and each step's time."""


@dataclass(slots=True)
class FusedLine:
    """A fused function, its code, and for each line of it the step and the variable it works on.

    `first` does the same as `run`, and refuses results of users' functions that must be awaited: it
    is for the first run of records, so that this costs nothing later.
    """

    run: Fused
    first: Fused
    code: CodeType
    places: dict[int, tuple[int, str]]


def fuse(
    parts: Sequence[Part],
    emit: Emit,
    *,
    timestamps: bool,
    keys: bool,
    timing: tuple[Callable[[], int], Note] | None = None,
) -> FusedLine:
    """Return one coroutine function for a line of steps.

    It is made for runs with or without `timestamps` and `keys`, and gives its results to `emit` in
    runs of at most `RUN_LIMIT` where a step can make many of one. With `timing`, a clock (ns) and a
    `Note`, the function looks at the clock behind every step, and tells after each run what it saw:
    the same function, but slow.
    """
    writer = LineWriter(parts, timestamps=timestamps, keys=keys, timed=timing is not None)
    text = writer.write()
    # Tracebacks show the generated lines; the same text has the same name, so nothing piles up.
    line = "+".join(part.id for part in parts)
    filename = f"<flowrt {line} {zlib.crc32(text.encode()):08x}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    names: dict[str, Any] = {}
    exec(compile(text, filename, "exec"), names)
    given = writer.arguments | dict(zip(("now", "note"), timing or (), strict=False))
    run = names["make"](emit, Records, MISSING, *given.values())
    careful = (_refusing(it) if name in writer.plain else it for name, it in given.items())
    first = names["make"](emit, Records, MISSING, *careful)
    return FusedLine(run, first, run.__code__, writer.places)


def _refusing(fn: Any) -> Any:
    """Return `fn` with a look at its results: a coroutine is true, and a value like any other."""

    def call(value: Any) -> Any:
        result = fn(value)
        if hasattr(type(result), "__await__"):
            if inspect.iscoroutine(result):
                result.close()
            raise NotAwaited(
                f"its function returned a {type(result).__name__}, which nobody awaits: pass the "
                "coroutine function itself, not a plain one that calls it; key_by takes only "
                "plain ones, so await in a map before it"
            )
        return result

    return call
