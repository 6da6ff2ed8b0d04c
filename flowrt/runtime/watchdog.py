"""A watchdog: tells which operator blocks the event loop, and which waits for long.

A thread asks the event loop for a sign of life, and looks where it is when none comes. Records cost
nothing more.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from flowrt.contract.errors import ConfigError
from flowrt.contract.time import Duration, duration_ms
from flowrt.runtime.whereabouts import Whereabouts, innermost_place, whereabouts
from flowrt.runtime.wiring import AnyTask

log = logging.getLogger("flowrt")

LOOKS: Final = 4
"""How often it looks in the time after which it tells of an operator that waits."""


@dataclass(frozen=True, slots=True)
class Watchdog:
    """Warns, in the log, of what holds a flow up: `start(flow, watchdog=Watchdog())`.

    An operator, source or sink that does not let the event loop turn for longer than `blocks` is
    named with the user's line that it is at, once while it lasts and once when it is over: the
    whole service stands still meanwhile. So is one that awaits for longer than `waits`. None turns
    one of them off. Code outside of the flow that blocks the loop is told, too.
    """

    blocks: Duration | None = "100ms"
    waits: Duration | None = "30s"

    def __post_init__(self) -> None:
        for name, duration in (("blocks", self.blocks), ("waits", self.waits)):
            if duration is not None and duration_ms(duration) < 1:
                raise ConfigError(f"Watchdog has {name}={duration!r}: it must be at least 1ms")


@contextmanager
def watched(
    watchdog: Watchdog | None, flow: str, tasks: Callable[[], Sequence[AnyTask]]
) -> Iterator[None]:
    """Watch over the running event loop and the tasks of a flow, for the body of `with`."""
    if watchdog is None:
        yield
        return
    watch = _Watch(watchdog, flow, tasks)
    thread = threading.Thread(target=watch.run, name=f"flowrt watchdog {flow}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.stop()
        # So that it says nothing behind the job's end; it has nothing to wait for any more.
        thread.join(1)


class _Watch:
    """The thread's part, but for `_look`, which runs in the event loop."""

    def __init__(
        self, watchdog: Watchdog, flow: str, tasks: Callable[[], Sequence[AnyTask]]
    ) -> None:
        self._flow = flow
        self._tasks = tasks
        self._call = _caller()
        self._loop_thread = threading.get_ident()
        self._blocks_s = _seconds(watchdog.blocks)
        self._waits_s = _seconds(watchdog.waits)
        self._stopped = threading.Event()
        self._sign = threading.Event()
        self._waiting = Waiting()

    def stop(self) -> None:
        self._stopped.set()
        self._sign.set()

    def run(self) -> None:
        """Ask for signs of life until told to stop."""
        pauses = [limit for limit in (self._blocks_s, self._waits_s) if limit is not None]
        if not pauses:
            return
        pause_s = min(pauses) / LOOKS
        while not self._stopped.wait(pause_s):
            self._sign.clear()
            if self._stopped.is_set():
                return  # that may have been the sign of the end
            asked = time.monotonic()
            try:
                self._call(self._on_sign)
            except RuntimeError:
                return  # that loop is closed
            if self._blocks_s is None:
                self._sign.wait()
            elif not self._sign.wait(self._blocks_s):
                self._tell_blockade(asked, self._blocks_s)

    def _on_sign(self) -> None:
        self._sign.set()
        if self._waits_s is not None:
            self._look(self._waits_s)

    # ------------------------------------------------------------------ blocks

    def _tell_blockade(self, asked: float, limit_s: float) -> None:
        """Tell who blocks, and who else does before the loop turns again; then for how long."""
        told: dict[tuple[str, str], None] = {}
        is_first = True
        while is_first or not self._sign.wait(limit_s):
            is_first = False
            frames = _stack(sys._current_frames().get(self._loop_thread))
            found = whereabouts(frames, list(self._tasks()))
            what = "code outside of its operators" if found is None else str(found)
            line = innermost_place(frames) if found is None else found.line
            # That it is at another line of the same function is no news.
            who = (what, "" if found is None else line.partition(" in ")[2])
            del frames
            if self._sign.is_set() or who in told:
                continue  # if it went on just now, what was seen is not what blocked
            told[who] = None
            self._tell(
                "flow %s: %s blocks the event loop, for %.0f ms now, at %s",
                found,
                what,
                asked,
                line,
            )
        if told:
            everyone = " and ".join(dict.fromkeys(what for what, _ in told))
            self._tell("flow %s: %s blocked the event loop for %.0f ms", None, everyone, asked)

    def _tell(
        self, text: str, found: Whereabouts | None, what: str, asked: float, *more: object
    ) -> None:
        extra = {"flow": self._flow}
        if found is not None:
            extra["operator"] = found.operator
        blocked_ms = (time.monotonic() - asked) * 1_000
        log.warning(text, self._flow, what, blocked_ms, *more, extra=extra)

    # ------------------------------------------------------------------ waits

    def _look(self, limit_s: float) -> None:
        if self._stopped.is_set():
            return
        for operator, count, line in self._waiting.look(
            self._tasks(), _coroutines(), time.monotonic(), limit_s
        ):
            log.warning(
                "flow %s: operator %r waits for longer than %g s%s, at %s",
                self._flow,
                operator,
                limit_s,
                "" if count == 1 else f" in {count} calls",
                line,
                extra={"flow": self._flow, "operator": operator},
            )


class Waiting:
    """What operators await, and since when. Only decides; it is told the time (s)."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[Any, float]] = {}
        self._told: set[int] = set()
        self._next_look = 0.0

    def look(
        self,
        tasks: Sequence[AnyTask],
        coroutines: Sequence[Any],
        now: float,
        limit_s: float,
    ) -> list[tuple[str, int, str]]:
        """Return operators that began to wait too long: id, for how many records, line of one."""
        if now < self._next_look:
            return []
        self._next_look = now + limit_s / LOOKS
        since: dict[int, tuple[Any, float]] = {}
        late: Counter[str] = Counter()
        lines: dict[str, str] = {}
        for coroutine in coroutines:
            found, awaited = _awaited(coroutine, tasks)
            if found is None:
                continue
            # With what is awaited, so that its id is not given to another.
            _, began = since[id(awaited)] = self._since.get(id(awaited), (awaited, now))
            if now - began >= limit_s and id(awaited) not in self._told:
                self._told.add(id(awaited))
                late[found.operator] += 1
                lines.setdefault(found.operator, found.line)
        self._since = since
        self._told &= since.keys()
        return [(operator, count, lines[operator]) for operator, count in late.items()]


def _awaited(coroutine: Any, tasks: Sequence[AnyTask]) -> tuple[Whereabouts | None, Any]:
    """Return what operator awaits there, and the first thing that it awaits; None for none."""
    awaited: list[Any] = []
    frames: list[FrameType] = []
    while (step := _step(coroutine)) is not None:
        frame, further = step
        awaited.append(coroutine)
        frames.append(frame)
        coroutine = further
    found = whereabouts(frames, tasks)
    # Of sources it is no news that they wait, and of a step not that it waits for room.
    if found is None or found.kind == "source" or not found.is_beyond_us:
        return None, None
    return found, awaited[found.depth]


def _step(coroutine: Any) -> tuple[FrameType, Any] | None:
    """Return the frame of a coroutine or generator and what it awaits."""
    for frame, awaits in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom")):
        if (found := getattr(coroutine, frame, None)) is not None:
            return found, getattr(coroutine, awaits)
    return None


def _stack(frame: FrameType | None) -> list[FrameType]:
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _seconds(duration: Duration | None) -> float | None:
    return None if duration is None else duration_ms(duration) / 1_000


def _caller() -> Callable[[Callable[[], None]], object]:
    """Return how another thread has a function called in the running event loop."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon


def _coroutines() -> list[Any]:
    """Return the coroutines of all tasks of the running event loop."""
    try:
        return [task.get_coro() for task in asyncio.all_tasks(asyncio.get_running_loop())]
    except RuntimeError:
        import trio

        found: list[Any] = []
        tasks = [trio.lowlevel.current_root_task()]
        while tasks:
            task = tasks.pop()
            if task is not None:
                found.append(task.coro)
                tasks += [child for n in task.child_nurseries for child in n.child_tasks]
        return found
