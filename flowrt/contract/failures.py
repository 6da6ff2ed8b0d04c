"""What counts as a failure of code that is not ours, and how its values are told."""

from __future__ import annotations

import asyncio
import math

from anyio import current_effective_deadline, get_cancelled_exc_class


def failures() -> tuple[type[BaseException], ...]:
    """Return what counts as a failure of code that is not ours; for `except`, in a coroutine.

    Also a cancellation that nobody asked for: whoever awaits something that somebody else cancelled
    raises one. Let through, it would end a task without a word, as if it had been told to stop.
    """
    if current_effective_deadline() == -math.inf:
        return (Exception,)
    return (Exception, get_cancelled_exc_class())


def survivable() -> tuple[type[BaseException], ...]:
    """Return those of `failures` after which a call may be made again, or its record left out.

    Not a cancellation of this task itself, also if it was no scope that cancelled it: whoever does
    that wants it to end. For `except`, in a coroutine.
    """
    if get_cancelled_exc_class() is asyncio.CancelledError:  # trio cancels scopes, never a task
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return (Exception,)
    return failures()


def text_of(value: object) -> str:
    """Return the repr of a value, whatever it is: never an error itself."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
