"""From where a job may be asked: from its own event loop, and not by what the answer waits for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from flowrt.contract.errors import FlowrtError
from flowrt.runtime.attempt import Attempt, closed
from flowrt.runtime.errors import asked
from flowrt.runtime.whereabouts import whereabouts


class Callers:
    """Knows the callers that a job must refuse: each would wait for ever, or do harm.

    `attempt` returns the attempt that runs, if any; `has_ended` says whether nothing is waited for
    any more, so that everybody may ask.
    """

    def __init__(
        self, job: str, attempt: Callable[[], Attempt | None], has_ended: Callable[[], bool]
    ) -> None:
        self._job = job
        self._attempt = attempt
        self._has_ended = has_ended
        self._loop = _running_loop()

    def check_loop(self, method: str, *, waits: bool = True) -> None:
        """Make sure that the job's own event loop calls; `FlowrtError` saying how to get there."""
        if _running_loop() is self._loop or self._has_ended():
            return
        ways = (
            f"anyio.from_thread.run(job.{method}, ...), or "
            f"asyncio.run_coroutine_threadsafe(job.{method}(...), loop)"
            if waits
            else f"anyio.from_thread.run_sync(job.{method}, ...), or "
            f"loop.call_soon_threadsafe(job.{method}, ...)"
        )
        raise FlowrtError(
            f"{method}() of job {self._job!r} was called from outside of the event loop that the "
            f"job runs in: from another thread, call {ways}. Only status() and metrics() may be "
            "called from anywhere"
        )

    def check_outside(self, method: str) -> None:
        """Make sure that the job does not call itself; `FlowrtError` naming who does.

        Decided by the task that runs now: one that an operator has started is outside.
        """
        caller = self.inside()
        if caller is not None:
            instead = " (request_drain() does not wait)" if method == "drain" else ""
            raise FlowrtError(
                f"{method}() of job {self._job!r} was called from within {caller} of the same "
                "flow, which would wait for itself: start it in a task outside of the flow, or "
                f"note the wish and let the service do it{instead}"
            )

    def inside(self) -> str | None:
        """Return what of the flow the calling task is at; None where it is no part of it."""
        attempt = self._attempt()
        if attempt is None or self._has_ended():
            return None
        frames = _frames_of_task()
        found = whereabouts(frames, attempt.tasks)
        if found is not None:
            return str(found)
        if any(frame.f_locals.get("self") is attempt for frame in frames):
            return _what_is_asked(frames)
        return None


def _what_is_asked(frames: Sequence[FrameType]) -> str:
    """Return what an attempt itself calls: a sink that recovers or commits, or what it closes."""
    for frame in frames:
        if frame.f_code is asked.__code__:
            return f"sink {frame.f_locals['sink']!r}"
        if frame.f_code is closed.__code__:
            return str(frame.f_locals["what"])
    return "a part"


def _frames_of_task() -> list[FrameType]:
    """Return the frames of the task that runs now, outermost first."""
    # A task may begin inside of another one's turn: what lies above its own first frame is not its.
    first = _first_frame()
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frames.append(frame)
        frame = None if frame is first else frame.f_back
    return frames[::-1]


def _first_frame() -> FrameType | None:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        trio = sys.modules["trio"]
        coroutine = trio.lowlevel.current_task().coro
    else:
        coroutine = None if task is None else task.get_coro()
    return getattr(coroutine, "cr_frame", None)


def _running_loop() -> object | None:
    """Return what stands for the event loop of this thread; None where none runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
    try:
        return None if trio is None else trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
