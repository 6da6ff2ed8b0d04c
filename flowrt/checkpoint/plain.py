"""Plain data as JSON that comes back as it was: what JSON cannot say is tagged.

Bytes are {"$bytes": base64}, a tuple is {"$tuple": [...]}, nan and inf are {"$float": text}, an
integer of more than 64 bits is {"$int": text}; a dict with keys that are not text, or that begin
with "$", is {"$dict": [[key, value], ...]}.
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final

from flowrt.contract.errors import CheckpointError

_INT64: Final = range(-(2**63), 2**63)


def to_json(value: Any, what: str) -> Any:
    """Return data that JSON can say; `what` names it in errors.

    `CheckpointError` for anything but None, booleans, numbers, text, bytes, lists, tuples, dicts.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if value in _INT64 else {"$int": str(value)}
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if kind is bytes:
        return {"$bytes": b64encode(value).decode()}
    if kind is list:
        return [to_json(item, what) for item in value]
    if kind is tuple:
        return {"$tuple": [to_json(item, what) for item in value]}
    if kind is dict:
        return _dict_to_json(value, what)
    raise CheckpointError(
        f"{what} holds {value!r} of type {kind.__qualname__}, which a snapshot cannot keep: use "
        "numbers, text, bytes, lists, tuples and dicts only"
    )


def _dict_to_json(value: dict[Any, Any], what: str) -> dict[str, Any]:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: to_json(item, what) for key, item in value.items()}
    return {"$dict": [[to_json(key, what), to_json(item, what)] for key, item in value.items()]}


def from_json(value: Any) -> Any:
    """Return the data that `to_json` was given."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, dict):
        if len(value) == 1:
            ((tag, inner),) = value.items()
            if tag in _TAGS:
                return _TAGS[tag](inner)
        return {key: from_json(item) for key, item in value.items()}
    return value


_TAGS: Mapping[str, Callable[[Any], Any]] = {
    "$bytes": b64decode,
    "$dict": lambda pairs: {from_json(key): from_json(item) for key, item in pairs},
    "$float": float,
    "$int": int,
    "$tuple": lambda items: tuple(from_json(item) for item in items),
}
