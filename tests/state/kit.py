"""A scope with a current key, and snapshots taken to their end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flowrt.contract.snapshot import MISSING, Block, Frozen
from flowrt.contract.state import StateSpec
from flowrt.state.memory import MemoryBackend


class Scope:
    """Names the current key; none at first."""

    def __init__(self, key: Any = MISSING) -> None:
        self.key = key


def encoded(frozen: Frozen | None) -> list[Block]:
    """The blocks of a frozen state, encoded at one go."""
    slices = [] if frozen is None else list(frozen.encode())
    return slices[-1] if slices else []


def snapshot(backend: MemoryBackend) -> list[Block]:
    """What changed since the last snapshot."""
    return encoded(backend.freeze())


def restored(*snapshots: Iterable[Block]) -> MemoryBackend:
    """A backend that took these snapshots, oldest first."""
    backend = MemoryBackend("orders")
    for blocks in snapshots:
        backend.load(blocks)
    return backend


def bound(spec: StateSpec[Any], key: Any = "k", backend: MemoryBackend | None = None) -> Any:
    """A state's handle for one key."""
    return (backend or MemoryBackend("orders")).handle(spec, Scope(key))
