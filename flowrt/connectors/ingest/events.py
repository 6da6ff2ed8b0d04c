"""An event's form in the journal: of a declared type, or plain data. No I/O."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from flowrt.contract.errors import ConfigError, IngestError

_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})

_UNFIT: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class Events:
    """Encodes and decodes events.

    What the flow gets is always decoded from the bytes, so that it is the same when it is read
    again, and whatever the sender does with its own event.
    """

    def __init__(self, ingest: str, type: Any = None) -> None:
        self._ingest = ingest
        self._type = type
        self._encoder = msgspec.msgpack.Encoder()
        try:
            self._decoder = msgspec.msgpack.Decoder(Any if type is None else type)
        except TypeError as error:
            raise ConfigError(
                f"ingest {ingest!r}: the type {type!r} cannot be read from a journal: {error}"
            ) from error

    def encode(self, event: Any) -> tuple[bytes, Any]:
        """Return an event's bytes and what the flow gets; `IngestError` naming an unfit type."""
        try:
            if self._type is None and (unfit := _unfit(event)) is not None:
                raise TypeError(
                    f"it holds a {unfit.__qualname__}, and without a declared type an event is "
                    "made of None, bool, int, float, str, bytes, list and dict"
                )
            payload = self._encoder.encode(event)
            return payload, self._decoder.decode(payload)
        except _UNFIT as error:
            wanted = "" if self._type is None else f" as {_name(self._type)}"
            advice = self._advice(error)
            raise IngestError(
                f"ingest {self._ingest!r} cannot keep an event of type {_name(type(event))}"
                f"{wanted} in its journal: {error}{advice}"
            ) from error

    def _advice(self, error: Exception) -> str:
        if isinstance(error, OverflowError):
            return "; an int must lie between -2**63 and 2**64 - 1: send a larger one as text"
        if isinstance(error, UnicodeError):
            return (
                "; its text has half a surrogate pair, which UTF-8 has no form for: leave it out, "
                "text.encode(errors='replace').decode()"
            )
        if isinstance(error, RecursionError):
            return "; it holds itself, or is nested too deeply"
        return "" if self._type is not None else "; declare it with type=..."

    def decode(self, payload: bytes) -> Any:
        """Return what the flow gets for an event's bytes; an exception where the type changed."""
        return self._decoder.decode(payload)


def _name(type: Any) -> str:
    return str(getattr(type, "__qualname__", type))


def _unfit(value: Any) -> type | None:
    """Return the type of what is not plain data in a value; None where all of it is."""
    kind = type(value)
    if kind in _SCALARS:
        return None
    if kind is list:
        return next((unfit for item in value if (unfit := _unfit(item))), None)
    if kind is not dict:
        return kind
    for key, item in value.items():
        if type(key) not in _SCALARS:
            return type(key)
        if (unfit := _unfit(item)) is not None:
            return unfit
    return None
