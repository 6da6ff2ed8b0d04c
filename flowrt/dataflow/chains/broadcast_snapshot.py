"""Broadcast state as part of a snapshot, beside what the operator itself keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from flowrt.contract.snapshot import BroadcastBackend

_STATES: Final = "broadcast_states"
_OWN: Final = "operator"


def with_states(data: Any, backend: BroadcastBackend, subtask: int) -> Any:
    """Return an operator's data and its broadcast state as one; None where there is neither.

    Only the first subtask keeps the state: it is the same in all.
    """
    states = backend.snapshot() if subtask == 0 else {}
    return {_STATES: states, _OWN: data} if states or data is not None else None


def take_states(parts: Sequence[Any], backend: BroadcastBackend) -> list[Any]:
    """Give the state in restored parts to the backend; return what the operators kept."""
    own = []
    for part in parts:
        data = part
        if holds_states(part):
            backend.restore(part[_STATES])
            data = part[_OWN]
        if data is not None:
            own.append(data)
    return own


def holds_states(data: Any) -> bool:
    """Say whether a step left broadcast state in its part of a snapshot."""
    return isinstance(data, dict) and data.keys() == {_STATES, _OWN}


@contextmanager
def writing(backend: BroadcastBackend | None) -> Iterator[None]:
    """Let handles write, where there is broadcast state: all subtasks run what the block runs."""
    if backend is not None:
        backend.writable = True
    try:
        yield
    finally:
        if backend is not None:
            backend.writable = False
