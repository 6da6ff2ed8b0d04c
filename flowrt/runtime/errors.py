"""From a group of errors to the one that a user should read."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from anyio import get_cancelled_exc_class

from flowrt.contract.errors import FlowrtError, SinkError
from flowrt.contract.failures import failures, text_of

T = TypeVar("T")


async def asked(sink: str, what: str, answer: Awaitable[T], then: str = "") -> T:
    """Return a sink's answer; `SinkError` saying what it could not do where it raises."""
    try:
        return await answer
    except FlowrtError:
        raise
    except failures() as error:
        raise SinkError(
            f"sink {sink!r} could not {what}: {type(error).__name__}: {error}{then}"
        ) from error


def single(error: BaseException) -> BaseException:
    """Return the first error of ours in a group, else the first; the others become its notes."""
    every = leaves(error)
    chosen = next((leaf for leaf in every if isinstance(leaf, FlowrtError)), every[0])
    for other in every:
        if other is not chosen:
            chosen.add_note(f"at the same time: {type(other).__name__}: {other}")
    return chosen


def not_ours(error: BaseException) -> BaseException | None:
    """Return the first in a group that is to end more than the flow, such as `SystemExit`, if any.

    Not a cancellation. For a coroutine.
    """
    harmless = (Exception, get_cancelled_exc_class())
    return next((leaf for leaf in leaves(error) if not isinstance(leaf, harmless)), None)


def ended_by(flow: str, error: BaseException) -> FlowrtError:
    """Return what a flow failed with, for those who ask it, where it was ended with the program."""
    told = FlowrtError(f"flow {flow!r} was ended by {text_of(error)}, raised in one of its steps")
    told.__cause__ = error
    return told


def leaves(error: BaseException) -> list[BaseException]:
    """Return the errors in a group, however deep; an error that is no group is its own leaf."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in leaves(part)]
    return [error]
