"""Encoding values that an operator keeps beside keyed state, such as records in flight."""

from __future__ import annotations

from typing import Any

from flowrt.contract.errors import StateError
from flowrt.state.classes import Unfit
from flowrt.state.codec import codec_for


class DescribedValues:
    """A `ValueCodec` by declared type; None: each value says what it is."""

    def __init__(self, operator: str, what: str, declared: Any) -> None:
        self._operator = operator
        self._what = what
        try:
            self._codec = codec_for(declared)
        except Unfit as error:
            raise self._error(error) from error

    def encode(self, value: Any) -> bytes:
        """Return the bytes of a value."""
        try:
            return bytes(self._codec.encode(self._codec.seal(value)))
        except Unfit as error:
            raise self._error(error) from error

    def decode(self, data: bytes) -> Any:
        """Return the value; one of the caller's own."""
        try:
            return self._codec.unseal(self._codec.restore(data))
        except Unfit as error:
            raise self._error(error) from error

    def _error(self, reason: object) -> StateError:
        return StateError(f"operator {self._operator!r}, {self._what}: {reason}")
