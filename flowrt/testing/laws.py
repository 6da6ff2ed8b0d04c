"""What every law check needs: the error that says what is broken, and turns of the loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from difflib import ndiff
from typing import Any, TypeVar

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from flowrt.checkpoint.plain import from_json, to_json
from flowrt.testing.script import show

T = TypeVar("T")


class LawBroken(AssertionError):
    """An operator, source or sink does not keep a law; says which, where, and the difference.

    `law` is the law's sentence, `where` the place in the script.
    """

    def __init__(self, law: str, where: str, details: str) -> None:
        super().__init__(f"broken law: {law}\n  where: {where}\n{details}")
        self.law = law
        self.where = where


def difference(expected: Iterable[Any], got: Iterable[Any]) -> str:
    """Return two lists side by side: "-" is expected and missing, "+" came and was not expected."""
    want, have = [show(element) for element in expected], [show(element) for element in got]
    lines = [line for line in ndiff(want, have) if not line.startswith("?")]
    return "\n".join(["  expected (-), got (+):", *(f"  {line}".rstrip() for line in lines)])


def same_multiset(left: Sequence[Any], right: Sequence[Any]) -> bool:
    """Say whether two lists hold the same values, in any order; the values need not be hashable."""
    if len(left) != len(right):
        return False
    rest = list(right)
    for value in left:
        if value not in rest:
            return False
        rest.remove(value)
    return True


def through_a_snapshot(data: T, what: str) -> T:
    """Return plain data as a snapshot gives it back; `CheckpointError` where it cannot."""
    written = msgspec.json.encode(to_json(data, what))
    back: T = from_json(msgspec.json.decode(written))
    return back


async def stopped_after(turns: int, call: Callable[[], Awaitable[T]]) -> list[T]:
    """Run `call` and cancel it after that many turns of the event loop.

    Returns [its result], or [] where it was cut off; raises what it raised.
    """
    done: list[T] = []
    errors: list[Exception] = []
    async with anyio.create_task_group() as group:

        async def run() -> None:
            try:
                done.append(await call())
            except Exception as error:
                errors.append(error)

        group.start_soon(run)
        for _ in range(turns):
            await checkpoint()
            if done or errors:
                break
        group.cancel_scope.cancel()
    if errors:
        raise errors[0]
    return done
