"""Says which operator of a user raised, and where."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from anyio import current_effective_deadline, get_cancelled_exc_class

from flowrt.contract.errors import FlowrtError, OperatorError
from flowrt.contract.operator import Operator

_NO_RECORD = object()
_SHOWN = 200


def failures() -> tuple[type[BaseException], ...]:
    """Return what counts as a failure of code that is not ours; for `except`, in a coroutine.

    Also a cancellation that nobody asked for: whoever awaits something that somebody else cancelled
    raises one. Let through, it would end a task without a word, as if it had been told to stop.
    """
    if current_effective_deadline() == -math.inf:
        return (Exception,)
    return (Exception, get_cancelled_exc_class())


def operator_error(
    operator: str,
    error: BaseException,
    *,
    method: str = "",
    value: object = _NO_RECORD,
    tries: int = 1,
) -> OperatorError:
    """Return the error that names the operator, and the record or the method it was at."""
    where = f" in {method}" if method else ""
    if value is _NO_RECORD:
        value = None
    else:
        where = f" at the record {shown(value)}"
    if tries > 1:
        where += f", at each of {tries} tries"
    message = f"operator {operator!r} raised {type(error).__name__}: {error}{where}"
    return OperatorError(message, operator=operator, value=value)


def shown(value: object) -> str:
    """Return a record as a message shows it: not endless, and never an error itself."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


async def called(operator: str, method: Callable[..., Any], *arguments: Any) -> None:
    """Call a plain or coroutine method of an operator; `OperatorError` where it raises."""
    try:
        result = method(*arguments)
        if inspect.isawaitable(result):
            await result
    except FlowrtError:
        raise
    except failures() as error:
        name = getattr(method, "__name__", "a method")
        raise operator_error(operator, error, method=name) from error


def snapshot_of(operator: str, instance: Operator[Any, Any] | None) -> Any:
    """Return what an operator keeps beside keyed state; `OperatorError` where it raises."""
    if instance is None:
        return None
    try:
        return instance.snapshot()
    except FlowrtError:
        raise
    except Exception as error:
        raise operator_error(operator, error, method="snapshot") from error
