"""What becomes of a record that a step fails at, and what is known of it then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from flowrt.contract.errors import GraphError
from flowrt.contract.operator import OutputTag
from flowrt.contract.retry import RetryStrategy


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that a step failed at: plain data, for a sink, for state, to be fed back."""

    value: Any
    """What the step was given; None for a timer."""
    key: Any
    """Its key, where the step keeps state for each key; else None."""
    timestamp: int | None
    """Its event time (ms), or the timer's."""
    operator: str
    error: str
    """The name of the exception's class."""
    message: str
    """What the exception says, cut off where it is very long."""
    traceback: str
    """Where it was raised: the lines of the user's code, cut off where they are very many."""
    attempts: int
    """How often the step tried."""
    where: str | None = None
    """Where the record came from, for people: source, split and the position behind which it was
    read, in the steps that run in the source's task; "timer at ..." for a timer; else None."""


@dataclass(frozen=True, slots=True)
class OnError:
    """What becomes of a record that a step fails at: fail the flow, skip, dead letter, or retry.

    To be made by the four methods below. Whatever comes of it, a record that was skipped or became
    a dead letter leaves no trace: what the step emitted, wrote to state or asked of timers while it
    had the record is taken back. The record itself is handed on and not copied, for that would cost
    more than most steps do: one that the step has changed in place goes changed into the next try
    and into its letter, so a step makes a new value and leaves the one that it was given.

    An error of the record is an `Exception` that a function or operator of the user raises, and a
    `StateError` for a value or key that cannot be stored; also a cancellation that nobody asked
    the flow or the task for. Any other `FlowrtError` fails the flow,
    and so does what is no `Exception`.
    """

    action: Literal["fail", "skip", "dead_letter"] = "fail"
    tag: OutputTag[DeadLetter] | None = None
    strategy: RetryStrategy | None = None

    @staticmethod
    def fail() -> OnError:
        """Fail the flow, naming operator and record: what a step does unless told otherwise."""
        return OnError()

    @staticmethod
    def skip() -> OnError:
        """Go on without the record; it is counted in `JobMetrics.skipped`."""
        return OnError("skip")

    @staticmethod
    def dead_letter(tag: OutputTag[DeadLetter]) -> OnError:
        """Go on without the record, and send a `DeadLetter` to the step's side output `tag`.

        Somebody must read it: `stream.side_output(tag)`, or `flow.dead_letters(tag)`.
        """
        if not isinstance(tag, OutputTag):
            raise GraphError(
                f"dead_letter needs an OutputTag, such as OutputTag[DeadLetter]('bad'): got {tag!r}"
            )
        return OnError("dead_letter", tag)

    @staticmethod
    def retry(strategy: RetryStrategy, then: OnError | None = None) -> OnError:
        """Try the record again as `strategy` says, in its place; `then` decides (default: fail).

        Nothing passes the record meanwhile: the whole task waits, also with barriers.
        """
        then = then or OnError()
        if not hasattr(strategy, "delay_ms"):
            raise GraphError(f"retry needs a strategy such as FixedDelay('1s'): got {strategy!r}")
        if not isinstance(then, OnError) or then.strategy is not None:
            raise GraphError(
                "what follows a retry is OnError.fail(), skip() or dead_letter(tag), "
                f"and not {then!r}"
            )
        return OnError(then.action, then.tag, strategy)

    @property
    def fails_at_once(self) -> bool:
        """Whether this is what every step does unless told otherwise."""
        return self.action == "fail" and self.strategy is None

    def after_tries(self) -> OnError:
        """Return what decides once there are no more tries."""
        return OnError(self.action, self.tag)

    def describe(self) -> str:
        """Return what becomes of a record, in a few words."""
        told = self.action if self.tag is None else f"dead letter to {self.tag.name!r}"
        return told if self.strategy is None else f"retry, then {told}"


_TRIES = "__flowrt_tries__"


def note_tries(error: BaseException, tries: int) -> None:
    """Note on an exception how often was tried before it was raised."""
    setattr(error, _TRIES, tries)


def tries_of(error: BaseException) -> int:
    """Return how often was tried before an exception was raised; 1 unless noted."""
    tries = getattr(error, _TRIES, 1)
    return tries if isinstance(tries, int) else 1
