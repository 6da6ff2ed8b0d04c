"""Says which operator of a user raised, and where."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from flowrt.contract.errors import FlowrtError, OperatorError
from flowrt.contract.failures import failures, text_of
from flowrt.contract.operator import Operator

_NO_RECORD = object()
_SHOWN = 200


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
    text = text_of(value)
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
