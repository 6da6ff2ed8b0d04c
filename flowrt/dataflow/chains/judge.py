"""What becomes of records that a step failed at, by its policy; see `OnError`."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from flowrt.contract.elements import Records
from flowrt.contract.errors import FlowrtError, StateError
from flowrt.contract.failures import survivable
from flowrt.contract.logs import flow_log
from flowrt.contract.on_error import DeadLetter, OnError
from flowrt.contract.operator import Operator
from flowrt.contract.undo import UndoLog
from flowrt.contract.waiting import sleep_ms
from flowrt.contract.world import World
from flowrt.dataflow.chains.blame import operator_error, shown
from flowrt.dataflow.chains.context import OperatorContext

EmitSide: TypeAlias = Callable[[str, str, Records], Awaitable[None]]

TOLD_EVERY_NS: Final = 60_000_000_000
"""How often a log hears of an operator's failing records, at most."""

MOST_TEXT: Final = 4_000
"""Characters of a message or traceback that a dead letter keeps."""

_log = flow_log()


class NotAwaited(TypeError):
    """A plain function returned something to await: a mistake in the flow, not in a record."""


class Judge:
    """Decides for one step of one subtask; made only where the step does not just fail.

    `where` says where the records come from that the step has now, if anybody knows.
    """

    def __init__(
        self,
        operator: str,
        policy: OnError,
        world: World,
        emit_side: EmitSide,
        where: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.operator = operator
        self.policy = policy
        self.context: OperatorContext | None = None
        self.undo: UndoLog | None = None
        self.failed_records = 0
        self._world = world
        self._emit_side = emit_side
        self._where = where
        self._is_silent = False
        self._told_ns: int | None = None
        self._untold = 0

    def silent(self) -> Judge:
        """Return one that decides alike and tells nobody.

        Every subtask fails at a broadcast record, and it is one record all the same.
        """
        judge = Judge(self.operator, self.policy, self._world, self._emit_side)
        judge.context, judge.undo, judge._is_silent = self.context, self.undo, True
        return judge

    def rest(self) -> None:
        """Hear that what the operator does now belongs to no record."""
        if self.undo is not None:
            self.undo.rest()

    async def fire(self, operator: Operator[Any, Any], timestamp: int, key: Any) -> None:
        """Call `on_timer` until it is done or given up: whatever comes of it, the timer fired."""
        context = self.context
        assert context is not None
        tries = 0
        while True:
            context.key = key
            context.timestamp = timestamp
            if self.undo is not None:
                self.undo.begin()
            try:
                result = operator.on_timer(timestamp, context)
                if inspect.isawaitable(result):
                    await result
            except survivable() as error:
                tries += 1
                if not await self.again(error, tries, None, timestamp, key, timer=timestamp):
                    return
            else:
                return

    async def again(
        self,
        error: BaseException,
        tries: int,
        value: Any,
        timestamp: int | None,
        key: Any,
        timer: int | None = None,
    ) -> bool:
        """Take back what the step did, and wait for the next try; False where there is none.

        Raises where the flow is to fail.
        """
        self._take_back()
        delay_ms = None
        if self.policy.strategy is not None and _is_of_the_record(error):
            chance = self._world.randomness.fraction()
            delay_ms = self.policy.strategy.delay_ms(tries, chance)
        if delay_ms is None:
            await self.failed(error, value, timestamp, key, tries, timer)
            return False
        await sleep_ms(self._world.clock, delay_ms)
        return True

    async def failed(
        self,
        error: BaseException,
        value: Any,
        timestamp: int | None,
        key: Any,
        tries: int = 1,
        timer: int | None = None,
    ) -> None:
        """Take back what the step did, and go on without the record; or raise."""
        self._take_back()
        if isinstance(error, FlowrtError) and not isinstance(error, StateError):
            raise error
        if self.policy.action == "fail" or not _is_of_the_record(error):
            given = {"value": value} if timer is None else {"method": "on_timer"}
            raise operator_error(self.operator, error, tries=tries, **given) from error
        if self._is_silent:
            return
        self.failed_records += 1
        self._tell(error, value, timer)
        if self.policy.tag is not None:
            where = self._where() if timer is None else f"timer at {timer}"
            letter = _letter(self.operator, error, value, timestamp, key, tries, where)
            records = Records([letter], None if timestamp is None else [timestamp])
            await self._emit_side(self.operator, self.policy.tag.name, records)

    def _take_back(self) -> None:
        if self.context is not None:
            self.context.emitted.clear()
            self.context.sides.clear()
        if self.undo is not None:
            self.undo.take_back()

    def _tell(self, error: BaseException, value: Any, timer: int | None) -> None:
        """Write to the log: of the first failure, then once a minute at most."""
        now_ns = self._world.clock.monotonic_ns()
        self._untold += 1
        if self._told_ns is not None and now_ns - self._told_ns < TOLD_EVERY_NS:
            return
        _log.warning(
            "operator %r: %d %s %s, the last one %s: %s: %s",
            self.operator,
            self._untold,
            "record" if self._untold == 1 else "records",
            "skipped" if self.policy.tag is None else f"sent to {self.policy.tag.name!r}",
            shown(value) if timer is None else f"the timer at {timer}",
            type(error).__name__,
            _text_of(error),
            extra={"operator": self.operator},
        )
        self._told_ns, self._untold = now_ns, 0


def _is_of_the_record(error: BaseException) -> bool:
    if isinstance(error, FlowrtError):
        return isinstance(error, StateError)
    return not isinstance(error, NotAwaited)


def _letter(
    operator: str,
    error: BaseException,
    value: Any,
    timestamp: int | None,
    key: Any,
    tries: int,
    where: str | None,
) -> DeadLetter:
    return DeadLetter(
        value,
        key,
        timestamp,
        operator,
        type(error).__name__,
        _text_of(error),
        _traceback_of(error),
        tries,
        where,
    )


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as other:
        return f"<its text cannot be made: {type(other).__name__}>"
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "…"


def _traceback_of(error: BaseException) -> str:
    # The first frame is ours, that of the fused function: it would tell a user nothing.
    trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
    text = "".join(traceback.format_exception(type(error), error, trace))
    # What is at the end, the error and the frame that raised it, says most.
    return text if len(text) <= MOST_TEXT else "…" + text[-MOST_TEXT:]
