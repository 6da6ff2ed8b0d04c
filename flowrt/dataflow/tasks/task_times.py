"""How a task spends its time: at work, or waiting. Only counts; told when it waits.

Waiting for room downstream is counted where it happens, in the channel.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from flowrt.contract.world import Clock

T = TypeVar("T")


class TaskTimes:
    """The times of one task, between `begin` and `end`.

    A task may do several things at once (a source reads many splits). It is idle while all of them
    wait, and paused while those that do not wait have given others their turn. The clock is looked
    at when the last one stops, and when the first goes on.
    """

    __slots__ = (
        "_began_ns",
        "_ended_ns",
        "waited_ns",
        "_now_ns",
        "_paused",
        "_paused_ns",
        "since",
        "working",
    )

    def __init__(self, clock: Clock) -> None:
        self._now_ns = clock.monotonic_ns
        self._began_ns: int | None = None
        self._ended_ns: int | None = None
        self.waited_ns = 0
        self._paused_ns = 0
        self.since = 0
        self.working = 0
        self._paused = 0

    def begin(self) -> None:
        """Begin, with one thing to do."""
        self._began_ns = self._now_ns()
        self.working = 1

    def end(self) -> None:
        """Stand still from now on."""
        self._ended_ns = self._now_ns()

    def rest(self) -> None:
        """Take note that one thing less is done now: it waits."""
        self.working -= 1
        if self.working == self._paused:
            self.since = self._now_ns()

    def work(self) -> None:
        """Take note that one thing more is done now."""
        if not self.working:
            self.waited_ns += self._now_ns() - self.since
        elif self.working == self._paused:
            self._paused_ns += self._now_ns() - self.since
        self.working += 1

    def pause(self) -> None:
        """Take note that one of the things that are done gives others their turn."""
        self._paused += 1
        if self.working == self._paused:
            self.since = self._now_ns()

    def go_on(self) -> None:
        """Take note that it has its turn again."""
        if self.working == self._paused:
            self._paused_ns += self._now_ns() - self.since
        self._paused -= 1

    def elapsed_ns(self) -> int:
        """Return the time since `begin`, or from there to `end`."""
        return 0 if self._began_ns is None else self._until() - self._began_ns

    def idle_ns(self) -> int:
        """Return how long it waited, with the wait that is under way."""
        return self._spent()[0]

    def paused_ns(self) -> int:
        """Return for how long others had their turn, though there was more to do."""
        return self._spent()[1]

    def _spent(self) -> tuple[int, int]:
        if self._began_ns is None or self.working != self._paused:
            return self.waited_ns, self._paused_ns
        stopped = self._until() - self.since
        if self.working:
            return self.waited_ns, self._paused_ns + stopped
        return self.waited_ns + stopped, self._paused_ns

    def _until(self) -> int:
        return self._now_ns() if self._ended_ns is None else self._ended_ns


@types.coroutine
def resting(
    answer: Coroutine[Any, Any, T], times: TaskTimes, *, closely: bool = True
) -> Generator[Any, Any, T]:
    """Await an answer; what is done until it waits is work, and the wait is none.

    Not `closely`, which costs less, all that follows the first wait counts as waiting. An answer
    that need not wait costs no look at the clock.
    """
    step: Callable[[Any], Any] = answer.send
    given: Any = None
    while True:
        try:
            asked = step(given)
        except StopIteration as end:
            result: T = end.value
            return result
        times.rest()
        try:
            given = yield asked
            step = answer.send
        except GeneratorExit:
            answer.close()
            raise
        except BaseException as error:
            step, given = answer.throw, error
        if not closely and given is None:
            try:
                # Begins by sending None, as is to be done now; the rest costs nothing.
                result = yield from answer
                return result
            finally:
                times.work()
        times.work()
