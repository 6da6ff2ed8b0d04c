"""Which operator of a job some frames belong to, and which line of the user's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, Final

from flowrt.dataflow.chains.chain import Chain
from flowrt.dataflow.chains.part import Part
from flowrt.dataflow.sources.source_reading import SourceReading
from flowrt.dataflow.sources.source_task import SourceTask
from flowrt.dataflow.tasks.async_task import AsyncTask
from flowrt.dataflow.tasks.sink_task import SinkTask
from flowrt.runtime.wiring import AnyTask

_KERNEL: Final = tuple(
    f"flowrt.{room}"
    for room in ("checkpoint", "contract", "dataflow", "graph", "runtime", "schedulers", "state")
)
_LOOPS: Final = ("anyio", "asyncio", "sniffio", "trio", "uvloop")


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """An operator, and the user's line that it is at."""

    operator: str
    kind: str
    """"operator", "source" or "sink"."""
    line: str
    """File, line and function, for people."""
    is_beyond_us: bool
    """Whether it is at code that is not the kernel's: the user's, or that of a connector."""
    depth: int
    """Which frame is the first of that code, or the last of all."""

    def __str__(self) -> str:
        return f"{self.kind} {self.operator!r}"


def whereabouts(frames: Sequence[FrameType], tasks: Sequence[AnyTask]) -> Whereabouts | None:
    """Find the operator that frames, outermost first, belong to; None where it is none of these."""
    found: tuple[str, str] | None = None
    named = -1
    for depth, frame in enumerate(frames):
        operator = _operator_of(frame, tasks)
        if operator is not None:
            found, named = operator, depth
    if found is None:
        return None
    behind = range(named + 1, len(frames))
    beyond = next((n for n in behind if not _is_of(frames[n], _KERNEL)), None)
    users = next((n for n in behind if not _is_of(frames[n], ("flowrt",))), None)
    last = len(frames) - 1
    return Whereabouts(
        *found,
        place_of(frames[last if users is None else users]),
        beyond is not None and not _is_of(frames[beyond], _LOOPS),
        last if beyond is None else beyond,
    )


def place_of(frame: FrameType) -> str:
    """Return file, line and function of a frame, for people."""
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"


def innermost_place(frames: Sequence[FrameType]) -> str:
    """Return the innermost line that is not the standard library's, for people."""
    chosen = [
        frame
        for frame in frames
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in sys.stdlib_module_names
    ]
    return place_of((chosen or frames)[-1]) if frames else "an unknown place"


def _operator_of(frame: FrameType, tasks: Sequence[AnyTask]) -> tuple[str, str] | None:
    code = frame.f_code
    if code.co_filename.startswith("<flowrt "):
        id = _fused(code, frame.f_lineno, tasks)
        return None if id is None else (id, "operator")
    if not _is_of(frame, ("flowrt.dataflow",)):
        return None
    variables = frame.f_locals
    owner: Any = variables.get("self")
    part = variables.get("part")
    if isinstance(part, Part) and isinstance(owner, Chain):
        return (part.id, "operator") if _is_ours(owner, tasks) else None
    if isinstance(owner, SinkTask):
        return (owner.desk.task, "sink") if owner in tasks else None
    if isinstance(owner, AsyncTask) and code.co_name == "_make_calls":
        return (owner.operators[0], "operator") if owner in tasks else None
    for task in tasks:
        if isinstance(task, SourceTask) and _reads(task, owner):
            return task.desk.task, "source"
    return None


def _fused(code: CodeType, line: int, tasks: Sequence[AnyTask]) -> str | None:
    chains = (task.chain for task in tasks if not isinstance(task, SinkTask))
    return next((id for chain in chains if (id := chain.operator_at(code, line))), None)


def _is_ours(chain: Chain, tasks: Sequence[AnyTask]) -> bool:
    return any(task.chain is chain for task in tasks if not isinstance(task, SinkTask))


def _reads(task: SourceTask, owner: object) -> bool:
    return owner is task or (isinstance(owner, SourceReading) and owner.turn is task.turn)


def _is_of(frame: FrameType, packages: tuple[str, ...]) -> bool:
    if frame.f_code.co_filename.startswith("<flowrt "):
        return "flowrt" in packages or "flowrt.dataflow" in packages
    name = str(frame.f_globals.get("__name__", ""))
    return any(name == package or name.startswith(f"{package}.") for package in packages)
