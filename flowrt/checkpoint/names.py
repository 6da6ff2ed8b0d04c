"""The names of files in a checkpoint folder. No name is ever used by two generations."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final, Literal, NamedTuple, TypeAlias

STATE_FOLDER: Final = "state"
LEASE: Final = "lease.json"

_LONGEST = 80
_MANIFEST = re.compile(r"manifest-(\d+)-(\d+)\.json")
_FENCE = re.compile(r"fence-(\d+)-(\d+)")
_STATE = re.compile(r".+-\d+-[dmi](\d+)-(\d+)\.state")

Kind: TypeAlias = Literal["d", "m", "i"]
"""A state file holds what one epoch changed (d), merged files (m), or came from a savepoint (i)."""


class Made(NamedTuple):
    """When a file was made: by which generation of the job, for which epoch. Later is greater."""

    generation: int
    epoch: int


def safe(operator: str) -> str:
    """Return an operator's id as part of a file name: same id, same text; other id, other text.

    File systems may not tell upper case from lower, forbid characters and limit the length.
    """
    text = re.sub(r"[^a-z0-9_]", "_", operator)[:_LONGEST]
    if text == operator:
        return text
    return f"{text}-{blake2b(operator.encode(), digest_size=4).hexdigest()}"


def state_name(operator: str, subtask: int, kind: Kind, made: Made) -> str:
    """Return the name of a state file."""
    return f"{safe(operator)}-{subtask}-{kind}{made.epoch}-{made.generation}.state"


def manifest_name(made: Made) -> str:
    """Return the name of a manifest."""
    return f"manifest-{made.epoch}-{made.generation}.json"


def parse_manifest(name: str) -> Made | None:
    """Read back `manifest_name`; None for any other file."""
    match = _MANIFEST.fullmatch(name)
    return None if match is None else Made(int(match[2]), int(match[1]))


def fence_name(fence: Made) -> str:
    """Return the name of a fence: this generation resumed from this epoch (0: from nothing)."""
    return f"fence-{fence.epoch}-{fence.generation}"


def parse_fence(name: str) -> Made | None:
    """Read back `fence_name`; None for any other file."""
    match = _FENCE.fullmatch(name)
    return None if match is None else Made(int(match[2]), int(match[1]))


def parse_state(name: str) -> Made | None:
    """Read back when a state file was made; None for any other file."""
    match = _STATE.fullmatch(name)
    return None if match is None else Made(int(match[2]), int(match[1]))
