"""Checks of what operators are given, so that a mistake is found when a flow is described."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar, get_type_hints

import msgspec

from flowrt.contract.errors import GraphError


def check_function(fn: object, operator: str, arguments: int = 1, argument: str = "fn") -> None:
    """Refuse what cannot be called with that many positional arguments; `GraphError` saying so."""
    if not callable(fn):
        raise GraphError(f"{operator} needs a function as {argument}, and {fn!r} cannot be called")
    if not takes(fn, arguments):
        raise GraphError(
            f"{operator} calls {argument} with {_counted(arguments)}, and {name_of(fn)} cannot be "
            "called so"
        )


def check_plain(fn: object, operator: str, arguments: int = 1, argument: str = "fn") -> None:
    """As `check_function`, and refuse coroutine functions too."""
    check_function(fn, operator, arguments, argument)
    if is_coroutine_function(fn):
        raise GraphError(
            f"{operator} needs a plain function as {argument}, and {name_of(fn)} is a coroutine "
            "function: put what waits into a map(...) before it, and use what that returns here"
        )


def is_coroutine_function(fn: object) -> bool:
    """Say whether calling `fn` gives something to await; sees through partials and `__call__`."""
    call = getattr(fn, "__call__", None)  # noqa: B004 - not whether, but which
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(call)


def takes(fn: Any, arguments: int) -> bool:
    """Say whether `fn` takes that many positional arguments; True where nobody knows."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # many builtins have no signature
        return True
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        return False
    return True


def state_type(fn: Any) -> Any:
    """Return the type that `fn` says it returns, where state can be declared with it; else None.

    `float` is not taken at its word: a function annotated so may return an int.
    """
    try:
        returned = get_type_hints(fn).get("return")
    except (
        Exception
    ):  # evaluating an annotation can fail in any way, and none is the user's mistake
        return None
    if isinstance(returned, TypeVar) or returned in (None, type(None), Any, object, float, complex):
        return None
    try:
        msgspec.msgpack.Decoder(returned)
    except (TypeError, ValueError):
        return None
    return returned


def name_of(fn: object) -> str:
    """Return how a message calls a function."""
    name: object = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else repr(fn)


def _counted(arguments: int) -> str:
    return "no argument" if not arguments else f"{arguments} argument{'s' * (arguments > 1)}"
